"""Reads and writes safetensors files, one tensor at a time.

A model folder has one file, or several files and an index.
"""

import json
import math
import os
import pathlib
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

SINGLE_FILE, INDEX_FILE = 'model.safetensors', 'model.safetensors.index.json'
OTHER_FORMATS = (
    *('pytorch_model*.bin', '*.gguf', 'consolidated*', '*.pth', '*.pt', '*.ckpt', '*.pkl'),
    *('*.h5', '*.msgpack', '*.npz', '*.bin'),
)
"""Patterns of weight files in formats that are not supported."""
DTYPES = {
    'F32': np.dtype('float32'),
    'F16': np.dtype('float16'),
    'BF16': np.dtype(ml_dtypes.bfloat16),
}
"""dtype in a file -> NumPy dtype, for the dtypes of weights."""

_FP8 = {
    'F8_E4M3': np.dtype(ml_dtypes.float8_e4m3fn),
    'F8_E5M2': np.dtype(ml_dtypes.float8_e5m2),
}
MAX_JSON_BYTES = 256 << 20
"""Limit of config.json, of an index and of a tokenizer.json; the largest known have 40 MB."""
_LFS_POINTER = b'version https://git-lfs'


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
        for key, tensor in read_headers(folder / name).items():
            if index.get(key, name) == name:  # a second copy in another file is not read
                tensors[key] = tensor
    if missing := [key for key in index if key not in tensors]:
        raise ValueError(
            f'tensors not in the file that {folder / INDEX_FILE} names: {", ".join(missing)}'
        )
    return tensors


def read_headers(path: pathlib.Path) -> dict[str, StoredTensor]:
    """Returns the tensors of one file. Raises ValueError, naming it, if it is damaged."""
    check_content(path)
    try:
        with safetensors.safe_open(path, 'np') as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f'not a safetensors file: {path} ({error})') from error
    return {
        key: StoredTensor(key, path, tuple(part.get_shape()), part.get_dtype())
        for key, part in slices.items()
    }


def check_content(path: pathlib.Path) -> None:
    """Raises ValueError if a file is empty or a pointer that Git LFS has not replaced.

    A missing file passes. A pipe or a device, whose reading might never end, does not.
    """
    if not path.is_file():
        if path.exists():
            raise ValueError(f'{path} is no file')
        return
    with path.open('rb') as file:
        start = file.read(len(_LFS_POINTER))
    if not start:
        raise ValueError(f'{path} is empty: download it again')
    if start == _LFS_POINTER:
        raise ValueError(f'{path} is a pointer of Git LFS, not the file: run `git lfs pull`')


def read_text(path: pathlib.Path) -> str:
    """Reads a UTF-8 file, with or without byte order mark; errors name the file."""
    check_content(path)
    with path.open('rb') as file:
        content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f'{path}: it has more than {MAX_JSON_BYTES} bytes')
    try:
        return content.decode('utf-8-sig').replace('\r\n', '\n')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not UTF-8: {error}') from None


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a file with one JSON object; raises ValueError, naming the file, for anything else."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f'{path}: invalid JSON: it is nested too deeply') from None
    except ValueError as error:  # also for a number with thousands of digits
        raise ValueError(f'{path}: invalid JSON: {error}') from None
    if not isinstance(value, dict):
        raise ValueError(f'{path}: expected a JSON object, got {str(value)[:40]!r}')
    return value


def _read_index(folder: pathlib.Path) -> dict[str, str]:
    """Returns tensor name -> file name, or {} if the folder has a single file."""
    if (folder / SINGLE_FILE).exists():
        return {}
    path = folder / INDEX_FILE
    if not path.exists():
        others = sorted(p.name for kind in OTHER_FORMATS for p in folder.glob(kind))
        beside = (
            f'; {others[0]} has another format: save the model as safetensors' if others else ''
        )
        raise ValueError(
            f'no model found: {folder} has neither {SINGLE_FILE} nor {INDEX_FILE}{beside}'
        )
    index = read_json(path).get('weight_map')
    if not isinstance(index, dict) or not index:
        raise ValueError(f"{path}: no 'weight_map' from tensors to files")
    for key, name in index.items():
        if not isinstance(name, str) or pathlib.PurePath(name).name != name:
            raise ValueError(f'{path}: weight_map[{key!r}]={name!r} is no name of a file beside it')
    if absent := sorted({name for name in index.values() if not (folder / name).is_file()}):
        raise ValueError(f'file not found: {folder / absent[0]}, which {path.name} names')
    return index


def read_tensor(tensor: StoredTensor) -> np.ndarray:
    """Reads the values of one tensor and nothing else of its file."""
    if tensor.dtype in _FP8:
        return _read_fp8(tensor)
    with safetensors.safe_open(tensor.path, 'np', backend='pread') as file:
        return file.get_tensor(tensor.name)


def read_rows(tensor: StoredTensor, start: int, end: int) -> np.ndarray:
    """Reads the rows [start, end) of a tensor of floats."""
    with safetensors.safe_open(tensor.path, 'np', backend='pread') as file:
        return file.get_slice(tensor.name)[start : min(end, tensor.shape[0])]


def _read_fp8(tensor: StoredTensor) -> np.ndarray:
    """Reads an fp8 tensor, for which the library has no NumPy dtype."""
    with tensor.path.open('rb') as file:
        (length,) = struct.unpack('<Q', file.read(8))
        start, end = json.loads(file.read(length))[tensor.name]['data_offsets']
        file.seek(8 + length + start)
        values = np.frombuffer(file.read(end - start), _FP8[tensor.dtype])
    return values.reshape(tensor.shape)


def write_tensors(
    folder: str | os.PathLike,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: np.dtype,
    values: Callable[[str], np.ndarray],
    file_bytes: int,
) -> None:
    """Writes tensors of one dtype; calls values(name) just before it writes each tensor.

    A file holds at most `file_bytes` of tensors, but at least one tensor. A single file has no
    index. Source of the format: README of github.com/huggingface/safetensors.
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
