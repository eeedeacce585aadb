"""Files that a model has beside its weights: tokenizer, chat template, generation config."""

import hashlib
import os
import pathlib

from etils import epath

from elenchus.data.files import atomic

TOKENIZERS = ('tokenizer.json', 'tokenizer.model')
"""Files of tokenizers, in the order in which they are preferred."""

PATTERNS = (
    'tokenizer*',
    'chat_template*',
    'special_tokens_map.json',
    'added_tokens.json',
    'vocab.json',
    'merges.txt',
    'generation_config.json',
)
"""Patterns of the files that imports and exports copy, beside config.json."""

PARENTS = 4  # folders above a model in which its tokenizer may be: WORKDIR/stages/01-actor/model


def list_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files that are copied with a model."""
    found = {path for pattern in PATTERNS for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file())


def copy_files(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies the files of a folder into another one."""
    for path in list_files(source):
        atomic.write_bytes(target / path.name, path.read_bytes())


def file_hash(path: pathlib.Path) -> str:
    """Returns the fingerprint of a tokenizer's file, as data/text computes it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def fingerprint(folder: pathlib.Path) -> str:
    """Returns the fingerprint of the folder's tokenizer; '' without a tokenizer."""
    files = tokenizers(folder)
    return file_hash(files[0]) if files else ''


def tokenizers(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the tokenizers of a folder; the one in JSON comes first."""
    return [path for name in TOKENIZERS if (path := folder / name).is_file()]


def tokenizers_above(folder: str | os.PathLike) -> dict[epath.Path, str]:
    """Returns tokenizers and their fingerprints, of a model's folder and of those above it.

    A run has its tokenizer in its work directory; the nearest comes first. A bucket is the last
    folder above.
    """
    folder = epath.Path(folder)
    parents = list(folder.parents)
    if atomic.is_remote(folder):
        parents = [place for place in parents if os.fspath(place).partition('://')[2]]
    places = [folder, *parents[:PARENTS]]
    return {path: file_hash(path) for place in places for path in tokenizers(place)}
