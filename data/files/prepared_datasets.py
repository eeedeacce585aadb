"""Reads folders of prepared TFDS datasets without importing anything that a folder names.

TFDS itself (`tfds.builder_from_directory`) imports the modules that a folder's features.json names,
so an untrusted folder would run code. Here the types of the fields come from our own dataclass, and
the folder's metadata is only compared with it. Rows are protocol buffers (tf.train.Example) in
array_record files.
"""

import bisect
import contextlib
import itertools
import os
import pathlib
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from array_record.python import array_record_module
from google.protobuf import message
from tensorflow_datasets.proto import tf_example_pb2

from elenchus.data.files import atomic, jsonl

R = TypeVar('R')

INFO, FEATURES = 'dataset_info.json', 'features.json'
FEATURE_CLASSES = frozenset(
    f'tensorflow_datasets.core.features.{name}'
    for name in (
        'features_dict.FeaturesDict',
        'scalar.Scalar',
        'sequence_feature.Sequence',
        'tensor_feature.Tensor',
        'text_feature.Text',
    )
)
"""Classes that features.json may name; full names, because no prefix is safe."""
MAX_METADATA_BYTES = 4 << 20
REMEDY = 'prepare the dataset again, or use a JSONL file'
_SHARD = re.compile(r'(?P<stem>.+\.array_record)-(?P<number>\d{5})-of-(?P<total>\d{5})')
_INT32 = 2**31


def find_dataset(folder: str | os.PathLike) -> pathlib.Path:
    """Returns the folder of the only dataset in or below a local folder.

    Raises ValueError for a bucket, or if there is not exactly one dataset.
    """
    if atomic.is_remote(folder):
        raise ValueError(
            f'{folder}: a prepared dataset is read from a disk only: copy it to one, or use JSONL'
        )
    infos = sorted(pathlib.Path(folder).rglob(INFO))
    if len(infos) != 1:
        raise ValueError(f'{folder} contains {len(infos)} datasets; name the folder of one')
    return infos[0].parent


def read_records(
    record: type[R],
    folder: str | os.PathLike,
    *,
    split: str,
    build: Callable[[Mapping[str, Any]], R] | None = None,
) -> 'Records[R]':
    """Opens a split of a dataset for random access to its records.

    Args:
        record: dataclass of the records; its fields have types that tfds_records stores.
        build: makes a record from its fields, and raises ValueError that names an invalid one;
            default: the dataclass.

    Raises ValueError that names the file if the folder has other features, missing or damaged
    files, or links to files outside it.
    """
    folder = pathlib.Path(folder)
    _check_features(folder, typing.get_type_hints(record))
    shards = _shards(folder, split)
    return Records(record, shards, build=build or (lambda fields: record(**fields)))


class Records(Sequence, Generic[R]):
    """Random-access sequence of the records of a split, in the order of its files."""

    def __init__(self, record: type[R], shards: Sequence['_Shard'], *, build: Callable):
        self._build, self._shards = build, shards
        self._hints = typing.get_type_hints(record)
        self._ends = list(itertools.accumulate(len(shard) for shard in shards))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index = int(index) % len(self)
        number = bisect.bisect_right(self._ends, index)
        shard = self._shards[number]
        position = index - self._ends[number] + len(shard)
        place = f'{shard.path}, record {position + 1}'
        return jsonl.at_place(place, self._record, shard.read(position))

    def _record(self, row: bytes) -> R:
        try:
            features = tf_example_pb2.Example.FromString(row).features.feature
        except message.DecodeError:
            raise ValueError(f'not a row of a dataset; {REMEDY}') from None
        return self._build({n: _value(n, hint, features) for n, hint in self._hints.items()})


class _Shard:
    """One array_record file. Raises ValueError if it is damaged or has another number of records.

    The number is checked on opening: callers allocate by it, and the metadata is not trusted.
    """

    def __init__(self, path: pathlib.Path, num_records: int):
        self.path, self._num_records, self._reader = path, num_records, None
        with _named_damage(path):
            reader = array_record_module.ArrayRecordReader(str(path))
            count = reader.num_records()
            reader.close()
            if count != num_records:
                raise ValueError(f'{count} records, but {INFO} says {num_records}')

    def __len__(self) -> int:
        return self._num_records

    def read(self, position: int) -> bytes:
        """Returns one row. Raises ValueError if the file is damaged."""
        with _named_damage(self.path):
            if self._reader is None:
                self._reader = array_record_module.ArrayRecordReader(str(self.path))
            (row,) = self._reader.read([position])
        return row


@contextlib.contextmanager
def _named_damage(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, IndexError) as error:
        reason = ' '.join(str(error).split())[:100] or 'cut short'
        raise ValueError(f'{path} is damaged ({reason}): {REMEDY}') from None


# Metadata


def read_metadata(path: pathlib.Path, root: pathlib.Path) -> dict:
    """Returns the JSON object of a file in an untrusted folder. Raises ValueError that names it."""
    check_inside(path, root)
    if not path.is_file():
        raise ValueError(f'{path}: file not found; {REMEDY}')
    if path.stat().st_size > MAX_METADATA_BYTES:
        raise ValueError(f'{path}: {path.stat().st_size} bytes are too many for metadata; {REMEDY}')
    return jsonl.read_object(path)


def check_inside(path: pathlib.Path, root: pathlib.Path) -> None:
    """Raises ValueError if a path resolves to a place outside a folder, for example by a link."""
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        target = None
    if target is None or not target.is_relative_to(root.resolve()):
        raise ValueError(f'{path} leads out of {root}; copy the file into the folder')


def _check_features(folder: pathlib.Path, hints: Mapping[str, Any]) -> None:
    path = folder / FEATURES
    features = read_metadata(path, folder)
    try:
        names = list(_class_names(features))
    except RecursionError:
        raise ValueError(f'{path}: it is nested too deeply; {REMEDY}') from None
    for name in names:
        if not isinstance(name, str) or name not in FEATURE_CLASSES:
            raise ValueError(
                f'{path}: feature class {str(name)[:80]!r} is not one of '
                f'{", ".join(sorted(n.rpartition(".")[2] for n in FEATURE_CLASSES))} of '
                f'tensorflow_datasets.core.features; nothing else is read; {REMEDY}'
            )
    fields = features.get('featuresDict')
    fields = fields.get('features') if isinstance(fields, dict) else None
    fields = fields if isinstance(fields, dict) else {}
    for name in hints:
        if name not in fields:
            hint = jsonl.suggestion(name, fields)
            raise ValueError(f'{path}: missing field {name!r}{hint}; {REMEDY}')


def _class_names(value: Any) -> Iterator[Any]:
    """Yields all class names in the JSON of features, in TFDS's current and older forms."""
    if isinstance(value, dict):
        for name, item in value.items():
            is_earlier = name == 'type' and isinstance(item, str)
            if is_earlier or name in ('pythonClassName', 'python_class_name'):
                yield item
            else:
                yield from _class_names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _class_names(item)


def _shards(folder: pathlib.Path, split: str) -> list[_Shard]:
    """Returns the files of a split. Raises ValueError if one is missing or there is no split."""
    path = folder / INFO
    info = read_metadata(path, folder)
    if info.get('fileFormat') != 'array_record':
        form = str(info.get('fileFormat'))[:40]
        raise ValueError(f'{path}: fileFormat={form!r} must be array_record; {REMEDY}')
    lengths = jsonl.at_place(str(path), _shard_lengths, (info, split))
    pattern = f'-{split}.array_record'
    files = {}
    for file in sorted(folder.iterdir()):
        parts = _SHARD.fullmatch(file.name)
        if parts and parts['stem'].endswith(pattern) and int(parts['total']) == len(lengths):
            check_inside(file, folder)
            files.setdefault(int(parts['number']), []).append(file)
    shards = []
    for number, length in enumerate(lengths):
        name = f'*{pattern}-{number:05d}-of-{len(lengths):05d}'
        match files.get(number, []):
            case [file] if file.is_file():
                shards.append(_Shard(file, length))
            case several:
                raise ValueError(f'{folder}: {len(several)} files {name}, expected one; {REMEDY}')
    return shards


def _shard_lengths(info_and_split: tuple[dict, str]) -> list[int]:
    """Returns the number of records of every file of a split, as dataset_info.json has them."""
    info, name = info_and_split
    splits = info.get('splits')
    if not isinstance(splits, list) or not all(isinstance(item, dict) for item in splits):
        raise ValueError('splits must be a list of objects')
    for item in splits:
        if item.get('name') == name:
            lengths = item.get('shardLengths')
            if not isinstance(lengths, list) or not lengths or len(lengths) > 99_999:
                raise ValueError(f'shardLengths of split {name!r} must be a list of numbers')
            return [_length(value) for value in lengths]
    known = [str(item.get('name')) for item in splits]
    raise ValueError(f'there is no split {name!r}, only {", ".join(known)[:100] or "none"}')


def _length(value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r'[0-9]{1,18}', text):
        raise ValueError(f'shardLengths has {text[:40]!r}, which is no number of records')
    return int(text)


# Rows


def _value(name: str, hint: Any, features: Mapping[str, Any]) -> Any:
    """Returns the value of a field whose type is `T`, `T | None` or `tuple[T, ...]`.

    Raises ValueError that names the field if the row has another type.
    """
    optional, sequence = (
        isinstance(hint, types.UnionType),
        typing.get_origin(hint) is tuple,
    )
    scalar = typing.get_args(hint)[0] if optional or sequence else hint
    if name not in features:
        raise ValueError(f'missing field {name!r}; {REMEDY}')
    kind = 'bytes_list' if scalar is str else 'int64_list'
    actual = features[name].WhichOneof('kind')
    if actual not in (kind, None):
        raise ValueError(f'{name} is a {actual}, but must be a {kind}; {REMEDY}')
    values = [_scalar(name, scalar, value) for value in getattr(features[name], kind).value]
    if sequence:
        return tuple(values)
    if len(values) > 1 or (not values and not optional):
        raise ValueError(f'{name} has {len(values)} values, but must have one; {REMEDY}')
    return values[0] if values else None


def _scalar(name: str, kind: type, value: Any) -> Any:
    if kind is str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError(f'{name} is not UTF-8') from None
    if kind is bool and value not in (0, 1):
        raise ValueError(f'{name}={value} must be 0 or 1')
    if kind is int and not -_INT32 <= value < _INT32:
        raise ValueError(f'{name}={value} does not fit into 32 bits')
    return kind(value)
