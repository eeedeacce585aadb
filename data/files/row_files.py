"""Finds and reads the files of a data set's split: JSONL, JSON arrays and Parquet."""

import io
import os
import re
from collections.abc import Sequence

from etils import epath

from elenchus.data.files import atomic, jsonl
from elenchus.data.files.jsonl import PlacedObject

ENDINGS = ('.jsonl', '.json', '.parquet')
_SHARD = re.compile(r'-(\d{5})-of-(\d{5})\.parquet$')


def read_rows(path: str | os.PathLike) -> list[PlacedObject]:
    """Returns the rows of a file as objects with their places; the ending `.parquet` is Parquet.

    Raises ValueError, which names the file and the row, if there is no such file or a row is
    faulty.
    """
    path = epath.Path(path)
    if path.suffix != '.parquet':
        return jsonl.read_objects(path)
    jsonl.check_file(path)
    return [
        PlacedObject(number, place, jsonl.at_place(place, jsonl.check_record, row))
        for number, row in enumerate(_parquet_rows(path), start=1)
        for place in [f'{path}, row {number}']
    ]


def find_split(folder: str | os.PathLike, name: str) -> list[epath.Path]:
    """Returns the files of a split in a folder, in order: one, or the shards of the Hub.

    The first that exists is taken: `NAME.jsonl`, `NAME.json`, `NAME.parquet`, then
    `NAME-00000-of-00002.parquet` and so on, all these also in the subfolder `data`. Raises
    ValueError if there is none, or if a shard is missing.
    """
    for place in (epath.Path(folder), epath.Path(folder, 'data')):
        for ending in ENDINGS:
            if (place / f'{name}{ending}').is_file():
                return [place / f'{name}{ending}']
        if shards := sorted(p for p in place.glob(f'{name}-*.parquet') if _SHARD.search(p.name)):
            _check_shards(shards, name)
            return shards
    raise ValueError(
        f'path={os.fspath(folder)!r} does not contain {name}.jsonl (nor {name}.json, '
        f'{name}.parquet or {name}-00000-of-00001.parquet)'
    )


def _check_shards(shards: Sequence[epath.Path], name: str) -> None:
    numbers = [_SHARD.search(path.name).groups() for path in shards]
    total = int(numbers[0][1])
    if [(int(number), int(of)) for number, of in numbers] != [(i, total) for i in range(total)]:
        raise ValueError(
            f'{shards[0].parent}: split {name!r} needs the {total} files '
            f'{name}-*-of-{total:05d}.parquet, but there are {len(shards)}: '
            f'{", ".join(path.name for path in shards)[:200]}'
        )


def _parquet_rows(path: epath.Path) -> list[dict]:
    """Reads the rows of a Parquet file. Raises ValueError if it is none."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f'{path}: Parquet files need the package pyarrow ({error}): '
            'pip install pyarrow, or use JSONL'
        ) from None
    try:
        source = io.BytesIO(path.read_bytes()) if atomic.is_remote(path) else path
        table = parquet.ParquetFile(source).read()
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ValueError(f'{path}: not a Parquet file that can be read: {error}') from None
    names = table.column_names
    if len(set(names)) < len(names):  # of which a row would keep one
        raise ValueError(f'{path}: column {ascii(max(names, key=names.count))} twice')
    return rows
