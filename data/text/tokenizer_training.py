"""Training of a SentencePiece tokenizer on text files."""

import os
import pathlib
from collections.abc import Iterable, Iterator

from etils import epath

from elenchus.data.files import jsonl, row_files, text_files
from elenchus.data.problems import fields
from elenchus.data.text import tokenizer as tokenizers

FIELDS = ('question', 'answer', 'solution')
"""Fields of a row whose texts are used: those of a problem."""


def train_from_files(
    paths: Iterable[str | os.PathLike],
    output: str | os.PathLike,
    *,
    vocab_size: int,
    model_type: str,
) -> str:
    """Trains a tokenizer on files of text or of rows and saves it; returns a one-line summary."""
    texts = [text for path in paths for text in read_texts(epath.Path(path))]
    if not texts:
        raise ValueError(f'{", ".join(map(str, paths))}: there is no text to train on')
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
    """Yields the texts of a .txt file, one a line, or of the rows of problems in another file.

    Raises ValueError that names a wrong line.
    """
    if path.suffix not in ('.txt', *row_files.ENDINGS):
        raise ValueError(
            f'{path}: unknown file type; use .txt, {", ".join(row_files.ENDINGS[:-1])} or '
            f'{row_files.ENDINGS[-1]}'
        )
    if path.suffix == '.txt':
        jsonl.check_file(path)
        lines = text_files.LINE_ENDS.split(text_files.read_text(path))
        yield from (line for line in lines if line.strip())
        return
    for _, place, row in row_files.read_rows(path):
        yield from jsonl.at_place(place, _texts, row)


def _texts(row: dict) -> list[str]:
    """Returns the texts of a row, numbers as text; null and a blank text are missing fields."""
    values = {name: row.get(name) for name in FIELDS}
    present = [name for name, x in values.items() if x is not None and str(x).strip()]
    texts = [fields.text_or_number(row, name) for name in present]
    if not texts:
        raise ValueError(f'a row needs text in one of the fields {", ".join(FIELDS)}')
    return texts
