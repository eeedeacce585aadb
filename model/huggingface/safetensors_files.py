"""Tensors in safetensors files, one file or several with an index: read and written one by one."""

import json
import math
import os
import pathlib
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import ml_dtypes
import numpy as np
import safetensors

WHOLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
DTYPES = {
    'F32': np.dtype('float32'),
    'F16': np.dtype('float16'),
    'BF16': np.dtype(ml_dtypes.bfloat16),
}
"""The kinds of numbers that weights are stored in."""


class Found(NamedTuple):
    """A tensor of a file."""

    name: str  # that it has there
    path: pathlib.Path
    shape: tuple[int, ...]
    dtype: str  # a key of DTYPES, or another kind that safetensors has


def find(folder: str | os.PathLike) -> dict[str, Found]:
    """All tensors, by name, of the safetensors files that a model folder has.

    Raises ValueError where there are none, where a file that the index names is not there or is
    none, or where a tensor is not in the file that the index says.
    """
    folder, found = pathlib.Path(folder), {}
    index = _index(folder)
    for name in sorted(set(index.values())) if index else [WHOLE]:
        try:
            with safetensors.safe_open(folder / name, 'np') as file:
                slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, safetensors.SafetensorError) as error:
            raise ValueError(f'{folder / name} is no safetensors file: {error}') from error
        for key, part in slices.items():
            found[key] = Found(key, folder / name, tuple(part.get_shape()), part.get_dtype())
    elsewhere = [k for k, name in index.items() if k not in found or found[k].path.name != name]
    if elsewhere:
        raise ValueError(f'{folder / INDEX} names a file without it for: {", ".join(elsewhere)}')
    return found


def _index(folder: pathlib.Path) -> dict[str, str]:
    """The file of every tensor where there are several files, else nothing."""
    if (folder / WHOLE).exists():
        return {}
    if not (folder / INDEX).exists():
        raise ValueError(f'{folder} has neither {WHOLE} nor {INDEX}: no model is there')
    return json.loads((folder / INDEX).read_text(encoding='utf-8'))['weight_map']


def read(found: Found) -> np.ndarray:
    """The values of a tensor; nothing else of its file is read."""
    with safetensors.safe_open(found.path, 'np', backend='pread') as file:
        return file.get_tensor(found.name)


def write(
    folder: str | os.PathLike,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: np.dtype,
    values: Callable[[str], np.ndarray],
    file_bytes: int,
) -> None:
    """Writes tensors of one dtype, each asked of `values` when its turn comes.

    A file gets at most `file_bytes` of tensors, or one tensor; a single file has no index. The
    library would want all of a file's tensors at once. Source of the format: the README of
    github.com/huggingface/safetensors.
    """
    folder = pathlib.Path(folder)
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
    parts = _parts(sizes, file_bytes)
    files = {
        WHOLE if len(parts) == 1 else f'model-{i:05d}-of-{len(parts):05d}.safetensors': names
        for i, names in enumerate(parts, start=1)
    }
    for file, names in files.items():
        header = _header({name: shapes[name] for name in names}, sizes, dtype)
        with (folder / file).open('wb') as out:
            out.write(struct.pack('<Q', len(header)) + header)
            for name in names:
                array = values(name)
                assert (array.shape, array.dtype) == (shapes[name], dtype), name
                out.write(np.ascontiguousarray(array).reshape(-1).view('uint8'))
    if len(parts) > 1:
        index = {
            'metadata': {'total_size': sum(sizes.values())},
            'weight_map': {name: file for file, names in files.items() for name in names},
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + '\n', encoding='utf-8')


def _parts(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in order, cut where the next one would not fit."""
    parts, held = [[]], 0
    for name, size in sizes.items():
        if parts[-1] and held + size > limit:
            parts.append([])
            held = 0
        parts[-1].append(name)
        held += size
    return parts


def _header(shapes: Mapping[str, Sequence[int]], sizes: Mapping[str, int], dtype) -> bytes:
    """The JSON that a file begins with, padded so that the tensors begin at a multiple of 8."""
    code = next(code for code, known in DTYPES.items() if known == dtype)
    header, start = {'__metadata__': {'format': 'pt'}}, 0
    for name, shape in shapes.items():
        end = start + sizes[name]
        header[name] = {'dtype': code, 'shape': list(shape), 'data_offsets': [start, end]}
        start = end
    text = json.dumps(header, separators=(',', ':')).encode()
    return text + b' ' * (-len(text) % 8)
