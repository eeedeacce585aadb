r"""Prints training sequences token by token: what each player reads, and what of it is trained.

    python -m scripts.tools.show_tokens --tokenizer=models/mine/tokenizer.json --template=qwen2.5 \
        --source=gsm8k --path=shared/data/gsm8k
    python -m scripts.tools.show_tokens --tokenizer=models/mine/tokenizer.json --template=qwen2.5 \
        --records=shared/data/mathcritique/gsm8k.json --role=critique

Tokens are parted by |. A line that begins with + is trained, one that begins with - is not; a line
of output ends after a token that holds a line break, shown as \n, or where the mask changes.
Of a problem the solution is trained, as the attempt; of a critique record what --role names.
"""

from collections.abc import Iterator, Sequence

from absl import flags

from elenchus.data import records
from elenchus.data.critiques import record_files
from elenchus.data.critiques.record_files import CritiqueRecord
from elenchus.data.problems import loading
from elenchus.data.records import ROLES, Example, Problem, Turn
from elenchus.data.text import chat_templates
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat import Chat
from elenchus.train.config import cli

PLAYED = tuple(records.PLAYER_OF_ROLE)


def turns_of(chat: Chat, given: Problem | CritiqueRecord, role: str) -> tuple[Turn, ...]:
    """The conversation up to the turn of `role`. Raises ValueError where there is no such turn."""
    texts = (
        {'attempt': given.solution}
        if isinstance(given, Problem)
        else {
            'attempt': given.response,
            'critique': given.critique,
            'refinement': given.refinement,
        }
    )
    if not texts.get(role):
        near = [name for name in texts if texts[name]]
        raise ValueError(f'role={role!r}: {given.question[:40]!r} has only {", ".join(near)}')
    spoken = PLAYED[: PLAYED.index(role) + 1]
    return (
        *chat.question_turns(given.question),
        *(chat.text_turn(name, texts[name]) for name in spoken),
    )


def shown(chat: Chat, example: Example) -> Iterator[str]:
    """The lines that show an example's tokens and mask."""
    line, sign = [], '-'
    for piece, mask in zip(pieces(chat, example.tokens), example.loss_mask, strict=True):
        now = '+' if mask else '-'
        if line and (now != sign or line[-1].endswith('\\n')):
            yield f'{sign} {"|".join(line)}'
            line = []
        line.append(piece)
        sign = now
    yield f'{sign} {"|".join(line)}'


def pieces(chat: Chat, ids: Sequence[int]) -> list[str]:
    """Each token as the text that it adds to those before it; of a cut character, nothing yet."""
    names = chat.template.specials()
    if chat.template.user is None:
        names |= {f'<{role}>' for role in ROLES[1:]}
    specials = {chat.tokenizer.special(name): name for name in names}
    made, run, before = [], [], ''
    for token in map(int, ids):
        if token in specials:
            made.append(specials[token])
            run, before = [], ''
            continue
        run.append(token)
        text = chat.tokenizer.decode(run).rstrip('\ufffd')
        made.append(text[len(before) :].replace('\n', '\\n'))
        before = text
    return made


def told(chat: Chat, given: Problem | CritiqueRecord, role: str) -> str:
    """One example under a heading that counts its tokens."""
    turns = turns_of(chat, given, role)
    example = chat.example(turns, trained=(role,), weights=None, last_only=True)
    trained = int(example.loss_mask.sum())
    head = (
        f'{role} under {chat.template.name}: {trained} of {len(example.tokens)} tokens are trained'
    )
    return '\n'.join([head, *shown(chat, example)])


def main(_) -> None:
    values = flags.FLAGS
    if (values.source is None) == (values.records is None):
        raise ValueError('give --source, a problem set, or --records, a file of critiques')
    chat = Chat(
        tokenizers.load_tokenizer(values.tokenizer), chat_templates.TEMPLATES[values.template]
    )
    if values.records:
        given = record_files.read(values.records)
    else:
        options = loading.load_options(values.source, data_dir=values.data_dir, path=values.path)
        given = loading.load(values.source, split=values.split, **options)
    for one in given[values.first : values.first + values.count]:
        print(told(chat, one, values.role), end='\n\n')


if __name__ == '__main__':
    sets = [source for source in loading.SOURCES if source != 'lab']
    flags.DEFINE_string('tokenizer', None, 'A tokenizer.json or tokenizer.model.', required=True)
    flags.DEFINE_enum(
        'template', 'elenchus', list(chat_templates.TEMPLATES), 'Which chat template.'
    )
    flags.DEFINE_enum('source', None, sets, 'A problem set ...')
    flags.DEFINE_string('path', '', '... in this folder or file; downloaded without it.')
    flags.DEFINE_string('split', 'train', '... and which split of it.')
    flags.DEFINE_string('data_dir', '.cache/data', 'Where prepared data sets are kept.')
    flags.DEFINE_string('records', None, 'A file of critique records, in either form.')
    flags.DEFINE_enum('role', 'attempt', PLAYED, 'Whose turn is trained.')
    flags.DEFINE_integer('first', 0, 'The index of the first one shown.', lower_bound=0)
    flags.DEFINE_integer('count', 2, 'How many are shown.', lower_bound=1)
    cli.run_main(main)
