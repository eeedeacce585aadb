"""Listing of training examples token by token, with the loss mask.

Shows what a player reads and what is trained, to check a chat template before a run.
"""

from collections.abc import Iterator, Sequence

from elenchus.data import records
from elenchus.data.critiques.record_files import CritiqueRecord
from elenchus.data.records import TURN_ROLES, Example, Problem, Turn
from elenchus.data.text.chat import Chat
from elenchus.data.text.printable import printable

SAMPLED_ROLES = tuple(records.PLAYER_OF_ROLE)
"""Roles whose turns a player writes, in the order of a conversation."""


def list_tokens(chat: Chat, source: Problem | CritiqueRecord, role: str) -> str:
    """Lists the example that trains the turn of `role`, under a heading that counts its tokens."""
    turns = turns_until(chat, source, role)
    example = chat.example(turns, trained=(role,), weights=None, last_only=True)
    trained = int(example.loss_mask.sum())
    head = (
        f'{role} under {chat.template.name}: {trained} of {len(example.tokens)} tokens are trained'
    )
    return '\n'.join([head, *mask_lines(chat, example)])


def turns_until(chat: Chat, source: Problem | CritiqueRecord, role: str) -> tuple[Turn, ...]:
    """Conversation up to and including the turn of `role`.

    A problem's solution serves as its attempt. Raises ValueError if the source has no such turn.
    """
    texts = (
        {'attempt': source.solution}
        if isinstance(source, Problem)
        else {
            'attempt': source.response,
            'critique': source.critique,
            'refinement': source.refinement,
        }
    )
    if not texts.get(role):
        available = [name for name in texts if texts[name]]
        raise ValueError(f'role={role!r}: {source.question[:40]!r} has only {", ".join(available)}')
    roles = SAMPLED_ROLES[: SAMPLED_ROLES.index(role) + 1]
    return (
        *chat.question_turns(source.question),
        *(chat.text_turn(name, texts[name]) for name in roles),
    )


def mask_lines(chat: Chat, example: Example) -> Iterator[str]:
    """Yields lines of tokens separated by |, with + for trained and - for other tokens.

    A line ends where the mask changes or after a line break of the text.
    """
    line, sign = [], '-'
    for text, mask in zip(token_texts(chat, example.tokens), example.loss_mask, strict=True):
        token_sign = '+' if mask else '-'
        if line and (token_sign != sign or line[-1].endswith('\\n')):
            yield f'{sign} {"|".join(line)}'
            line = []
        line.append(text)
        sign = token_sign
    yield f'{sign} {"|".join(line)}'


def token_texts(chat: Chat, ids: Sequence[int]) -> list[str]:
    """Text that each token adds to the tokens before it.

    Tokens are decoded together with their predecessors, because a tokenizer may split a character
    over several tokens: all but the last of them add ''.
    """
    names = chat.template.specials()
    if chat.template.user is None:
        names |= {f'<{role}>' for role in TURN_ROLES}
    specials = {chat.tokenizer.special(name): name for name in names}
    texts, run, before = [], [], ''
    for token in map(int, ids):
        if token in specials:
            texts.append(specials[token])
            run, before = [], ''
            continue
        run.append(token)
        text = chat.tokenizer.decode(run).rstrip('\ufffd')
        texts.append(printable(text[len(before) :]).replace('\n', '\\n'))
        before = text
    return texts
