"""Sizes of prompts, and checks of them with a run's tokenizer."""

from collections.abc import Sequence

from elenchus.data.records import PLAYER_OF_ROLE, Turn
from elenchus.data.text import prompts as prompts_lib
from elenchus.data.text import thoughts
from elenchus.data.text.chat import Chat
from elenchus.data.text.prompts import MAX_PARAGRAPHS

BORDER_TOKENS = 4
"""Tokens that a text may have more beside another text than alone."""


def question_tokens(
    chat: Chat, question: Sequence[Turn], roles: Sequence[str] = tuple(PLAYER_OF_ROLE)
) -> int:
    """Returns the tokens that a question adds to prompts, with all that is not in later turns.

    It is the largest over the roles of (tokens of the prompt with empty turns) minus an overhead
    for each turn, which `checks.check_lengths` adds itself. Numbered paragraphs count with the
    largest number of tags.
    """
    turns, sizes = tuple(question), []
    for number, role in enumerate(roles, start=1):
        size = len(chat.context(turns, role)) - number * chat.overhead
        if chat.prompts.concern(PLAYER_OF_ROLE[role]):
            size += BORDER_TOKENS
        if 'paragraphs' in getattr(chat.prompts, role).fields:
            tag = chat.tokenizer.encode('\n\n<paragraph_00>\n\n</paragraph_00>')
            size += MAX_PARAGRAPHS * len(tag)
        sizes.append(size)
        turns += (chat.text_turn(role, ''),)
    return max(sizes)


def check_prompts(chat: Chat) -> None:
    """Raises ValueError, naming the field, if the prompts do not go with the run's tokenizer."""
    prompts_lib.check_prompts(chat.prompts)
    for role in prompts_lib.ROLES:
        prompt = getattr(chat.prompts, role)
        texts = {name: getattr(prompt, name) for name in ('system', 'instruction', 'prefix')}
        texts |= {f'examples[{i}]': ' '.join(pair) for i, pair in enumerate(prompt.examples)}
        for name, text in texts.items():
            _check_writable(chat, f'prompts.{role}.{name}', text)
    ids = chat.tokenizer.encode(thoughts.OPEN)
    if chat.prompts.thinking == 'forbid' and len(ids) != 1:
        raise ValueError(
            f"prompts.thinking='forbid' needs a token {thoughts.OPEN!r}, but the tokenizer writes "
            f"it with {len(ids)}; nearest: 'strip'"
        )


def _check_writable(chat: Chat, place: str, text: str) -> None:
    """Raises ValueError if the tokenizer loses a part of a text; spaces apart."""
    written = chat.tokenizer.decode(chat.tokenizer.encode(text))
    if ''.join(written.split()) != ''.join(text.split()):
        lost = next((c for c in text if not c.isspace() and c not in written), text[:20])
        raise ValueError(
            f'{place}={text[:40]!r} cannot be written with the tokenizer of the run, which lacks '
            f"{lost!r}: use a tokenizer of text, or ''"
        )
