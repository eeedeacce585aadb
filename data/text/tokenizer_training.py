"""Training of a SentencePiece tokenizer on text files."""

import json
import os
import pathlib
from collections.abc import Iterable, Iterator

from elenchus.data.text import tokenizer as tokenizers

FIELDS = ('question', 'answer')
"""Fields of a JSONL record whose texts are used."""


def train_from_files(
    paths: Iterable[str | os.PathLike],
    output: str | os.PathLike,
    *,
    vocab_size: int,
    model_type: str,
) -> str:
    """Trains a tokenizer on .txt and .jsonl files and saves it; returns a one-line summary."""
    texts = [text for path in paths for text in read_texts(pathlib.Path(path))]
    model = tokenizers.train_tokenizer(texts, vocab_size=vocab_size, model_type=model_type)
    tokenizer = tokenizers.SentencePieceTokenizer.from_bytes(model)
    tokenizer.save(output)
    tokens = sum(len(tokenizer.encode(text)) for text in texts)
    chars = sum(len(text) for text in texts)
    return (
        f'{output}: {tokenizer.vocab_size} tokens ({model_type}), fingerprint '
        f'{tokenizer.fingerprint}, {chars / max(tokens, 1):.2f} characters a token '
        f'on {len(texts)} texts'
    )


def read_texts(path: pathlib.Path) -> Iterator[str]:
    """Yields the texts of a .txt or .jsonl file. Raises ValueError that names a wrong line."""
    if path.suffix not in ('.txt', '.jsonl'):
        raise ValueError(f'{path}: unknown file type; use .txt or .jsonl')
    with path.open(encoding='utf-8') as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f'{path}, line {number}'
            yield from (line.rstrip('\n'),) if path.suffix == '.txt' else _fields(line, place)


def _fields(line: str, place: str) -> list[str]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f'{place}: invalid JSON: {error}') from error
    texts = [record[field] for field in FIELDS if isinstance(record, dict) and field in record]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'{place}: a record needs text in one of the fields {FIELDS}')
    return texts
