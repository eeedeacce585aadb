"""Reads and writes safetensors files, one tensor at a time.

A model folder has one file, or several files and an index.
"""

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

SINGLE_FILE, INDEX_FILE = 'model.safetensors', 'model.safetensors.index.json'
DTYPES = {
    'F32': np.dtype('float32'),
    'F16': np.dtype('float16'),
    'BF16': np.dtype(ml_dtypes.bfloat16),
}
"""dtype in a file -> NumPy dtype, for the dtypes that weights are stored in."""


class StoredTensor(NamedTuple):
    """Header entry of a tensor in a file; its values are not read yet."""

    name: str
    path: pathlib.Path
    shape: tuple[int, ...]
    dtype: str  # a key of DTYPES, or another dtype of safetensors


def list_tensors(folder: str | os.PathLike) -> dict[str, StoredTensor]:
    """Returns all tensors of the safetensors files in a model folder, by name.

    Raises ValueError if there are no files, if a file of the index is missing or damaged, or if a
    tensor is not in the file that the index names.
    """
    folder, tensors = pathlib.Path(folder), {}
    index = _read_index(folder)
    for name in sorted(set(index.values())) if index else [SINGLE_FILE]:
        try:
            with safetensors.safe_open(folder / name, 'np') as file:
                slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, safetensors.SafetensorError) as error:
            raise ValueError(f'not a safetensors file: {folder / name} ({error})') from error
        for key, part in slices.items():
            tensors[key] = StoredTensor(
                key, folder / name, tuple(part.get_shape()), part.get_dtype()
            )
    missing = [k for k, name in index.items() if k not in tensors or tensors[k].path.name != name]
    if missing:
        raise ValueError(
            f'tensors not in the file that {folder / INDEX_FILE} names: {", ".join(missing)}'
        )
    return tensors


def _read_index(folder: pathlib.Path) -> dict[str, str]:
    """Returns tensor name -> file name, or {} if the folder has a single file."""
    if (folder / SINGLE_FILE).exists():
        return {}
    if not (folder / INDEX_FILE).exists():
        raise ValueError(f'no model found: {folder} has neither {SINGLE_FILE} nor {INDEX_FILE}')
    return json.loads((folder / INDEX_FILE).read_text(encoding='utf-8'))['weight_map']


def read_tensor(tensor: StoredTensor) -> np.ndarray:
    """Reads the values of one tensor and nothing else of its file."""
    with safetensors.safe_open(tensor.path, 'np', backend='pread') as file:
        return file.get_tensor(tensor.name)


def write_tensors(
    folder: str | os.PathLike,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: np.dtype,
    values: Callable[[str], np.ndarray],
    file_bytes: int,
) -> None:
    """Writes tensors of one dtype; calls values(name) just before it writes each tensor.

    A file has at most `file_bytes` of tensors, or one tensor. A single file has no index. Source of
    the format: README of github.com/huggingface/safetensors.
    """
    # The library's writer needs all tensors of a file in memory at once, so this writes the format
    # itself: 8 bytes of header length, the JSON header, the values.
    folder = pathlib.Path(folder)
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
    parts = _split_into_files(sizes, file_bytes)
    files = {
        SINGLE_FILE if len(parts) == 1 else f'model-{i:05d}-of-{len(parts):05d}.safetensors': names
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
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + '\n', encoding='utf-8')


def _split_into_files(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Splits names in order into groups of at most `limit` bytes, or of one name."""
    parts, total = [[]], 0
    for name, size in sizes.items():
        if parts[-1] and total + size > limit:
            parts.append([])
            total = 0
        parts[-1].append(name)
        total += size
    return parts


def _header(shapes: Mapping[str, Sequence[int]], sizes: Mapping[str, int], dtype) -> bytes:
    """JSON header of a file, padded so that the values start at a multiple of 8 bytes."""
    code = next(code for code, known in DTYPES.items() if known == dtype)
    header, start = {'__metadata__': {'format': 'pt'}}, 0
    for name, shape in shapes.items():
        end = start + sizes[name]
        header[name] = {'dtype': code, 'shape': list(shape), 'data_offsets': [start, end]}
        start = end
    text = json.dumps(header, separators=(',', ':')).encode()
    return text + b' ' * (-len(text) % 8)
