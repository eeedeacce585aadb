"""Ids of the content at the paths of a config, so that a run may continue after files were moved.

Two folders, or files, with the same content have the same id wherever they are. A saved model is
known by the fingerprint of its arrays, which is compared with them when the model is loaded;
without one, and for files of critiques, names, sizes and bytes are hashed.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from etils import epath

from elenchus.data.files import failures
from elenchus.train.checkpoints import saved_models
from elenchus.train.run.directory import read_json
from elenchus.train.run.paths import resolve

WHOLE_BYTES = 256 << 20
"""Of a larger file only blocks are hashed, besides its size."""
BLOCK_BYTES = 1 << 20
NUM_BLOCKS = 64


def content_id(path: str) -> str | None:
    """Returns the id of what is at a path of the config; '' without a path, None if missing."""
    if not path:
        return ''
    place = resolve(path)
    with failures.named_errors(place):
        if not place.exists():
            return None
        if (place / saved_models.DESCRIPTION).exists():
            return _model_id(place)
        return f'files {_files_hash(place)}'


def _model_id(folder: epath.Path) -> str:
    """Returns the id of a saved model; that of adapters has their base's fingerprint, not path."""
    description = read_json(folder / saved_models.DESCRIPTION)
    fingerprint = description.get('fingerprint')
    if fingerprint is None:
        return f'model {_files_hash(folder)}'
    model = description.get('model', {})
    known: dict[str, Any] = {
        'model': {n: v for n, v in model.items() if n not in saved_models.NUMERICS},
        'tokenizer': description.get('tokenizer'),
        'fingerprint': fingerprint,
    }
    if 'lora' in description:
        base = description.get('base', {})
        known['lora'] = description['lora']
        known['base'] = {name: base.get(name) for name in ('fingerprint', 'quantize')}
    text = json.dumps(known, sort_keys=True)
    return f'model {hashlib.sha256(text.encode()).hexdigest()[:16]}'


def _files_hash(path: epath.Path) -> str:
    """Returns a hash of a file, or of all files of a folder with their names."""
    digest = hashlib.sha256()
    for name, file in _files(path):
        stat = file.stat()
        digest.update(f'{name} {stat.length} '.encode())
        hashed = _file_hash if stat.length < BLOCK_BYTES else _large_file_hash
        digest.update(hashed(os.fspath(file), stat.length, stat.mtime).encode())
    return digest.hexdigest()[:16]


def _files(path: epath.Path, prefix: str = '') -> Iterator[tuple[str, epath.Path]]:
    if not path.is_dir():
        yield prefix, path
        return
    for child in sorted(path.iterdir(), key=lambda p: p.name):
        yield from _files(child, f'{prefix}/{child.name}')


def _file_hash(path: str, size: int, changed: float) -> str:
    """Returns a hash of a file's bytes, or of evenly spaced blocks of a large one."""
    digest = hashlib.sha256()
    with epath.Path(path).open('rb') as file:
        if size <= WHOLE_BYTES:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
        else:
            for number in range(NUM_BLOCKS):
                file.seek(number * (size - BLOCK_BYTES) // (NUM_BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


# A start of a run asks several times; `changed` is the time of the file's last change.
_large_file_hash = functools.lru_cache(maxsize=64)(_file_hash)
