r"""Trains a SentencePiece tokenizer on your own text.

    python -m scripts.tools.train_tokenizer --input train.jsonl --vocab_size 2048 --output tok.model

Inputs are .txt files, one text a line, or .jsonl files, of whose records the fields `question` and
`answer` are read. Name several with commas. The model knows the headers that open the turns of a
conversation (<question>, <attempt>, ...), holds the line break as one token, because steps are
lines, and spells whatever the texts lack in bytes.
"""

import json
import pathlib
from collections.abc import Iterator

from absl import app, flags

from elenchus.data.text import tokenizer as tokenizers

FIELDS = ('question', 'answer')

_INPUT = flags.DEFINE_list('input', None, 'The .txt and .jsonl files to learn from.')
_OUTPUT = flags.DEFINE_string('output', None, 'Where the model goes; ends in .model.')
_VOCAB_SIZE = flags.DEFINE_integer(
    'vocab_size',
    None,
    'At most so many tokens: 10 of them are special, 256 are bytes, and each character of the '
    'texts is one. A few thousand suit grade-school problems.',
    lower_bound=1,
)
_MODEL_TYPE = flags.DEFINE_enum(
    'model_type',
    'bpe',
    tokenizers.MODEL_TYPES,
    'How pieces are found: bpe merges frequent pairs, unigram prunes a large list, char takes '
    'characters alone.',
)


def read_texts(path: pathlib.Path) -> Iterator[str]:
    """The texts of a .txt or .jsonl file. Raises ValueError on anything else, naming the line."""
    if path.suffix not in ('.txt', '.jsonl'):
        raise ValueError(f'--input {path}: a file of texts ends in .txt or .jsonl')
    with path.open(encoding='utf-8') as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f'{path}, line {number}'
            yield from (line.rstrip('\n'),) if path.suffix == '.txt' else _fields(line, where)


def _fields(line: str, where: str) -> list[str]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f'{where}: no JSON ({error})') from error
    texts = [record[field] for field in FIELDS if isinstance(record, dict) and field in record]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'{where}: a record needs text in one of the fields {FIELDS}')
    return texts


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f'unexpected {argv[1:]}: inputs are named with --input')
    if pathlib.Path(_OUTPUT.value).suffix != '.model':
        raise app.UsageError(f'--output {_OUTPUT.value}: a tokenizer file ends in .model')
    texts = [text for path in _INPUT.value for text in read_texts(pathlib.Path(path))]
    model = tokenizers.train_tokenizer(
        texts, vocab_size=_VOCAB_SIZE.value, model_type=_MODEL_TYPE.value
    )
    tokenizer = tokenizers.SentencePieceTokenizer.from_bytes(model)
    tokenizer.save(_OUTPUT.value)
    tokens = sum(len(tokenizer.encode(text)) for text in texts)
    chars = sum(len(text) for text in texts)
    print(
        f'{_OUTPUT.value}: {tokenizer.vocab_size} tokens ({_MODEL_TYPE.value}), fingerprint '
        f'{tokenizer.fingerprint}, {chars / max(tokens, 1):.2f} characters a token '
        f'on {len(texts)} texts'
    )


if __name__ == '__main__':
    flags.mark_flags_as_required(['input', 'output', 'vocab_size'])
    app.run(main)
