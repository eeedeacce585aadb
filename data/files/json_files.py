"""Objects of JSONL files and of JSON arrays, each with its place, and files written whole.

Paths may be on this machine or, as gs://..., in a bucket.
"""

import difflib
import errno
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from etils import epath

T = TypeVar('T')


class Found(NamedTuple):
    """An object of a file: its line (JSONL) or its number from 1 (array), and what errors say."""

    number: int
    place: str
    value: dict


def objects(path: str | os.PathLike) -> list[Found]:
    """The objects of a file that is a JSON array or JSONL, told apart by how it begins.

    Raises ValueError, which names file and place, where there is no file or something else in it;
    a file may hold none.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        there = [str(p) for p in sorted(path.parent.glob('*.json*'))]
        near = difflib.get_close_matches(str(path), there, n=1, cutoff=0.0)
        raise ValueError(f'{path} is no file' + (f'; nearest is {near[0]}' if near else ''))
    text = path.read_text(encoding='utf-8')
    return list(_array(path, text) if text.lstrip().startswith('[') else _lines(path, text))


def parse_object(text: str) -> dict:
    """The object that a text of JSON is. Raises ValueError where it is something else."""
    return _object(_parse(text))


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f'no JSON: {error}') from None


def _object(value: Any) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f'expected an object, found {str(value)[:40]!r}')
    return value


def at(place: str, make: Callable[[Any], T], value: Any) -> T:
    """make(value); a ValueError gains the place."""
    try:
        return make(value)
    except ValueError as error:
        raise ValueError(f'{place}: {error}') from None


def nearest(name: str, valid: Iterable[str]) -> str:
    """What an error adds about a name: the nearest valid one, where one is near."""
    near = difflib.get_close_matches(name, list(valid), n=1)
    return f'; is it {near[0]!r}?' if near else ''


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a whole text file; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes beside and renames, so that the file is whole or absent.

    Does nothing in a process that is not to write (`let_write`).
    """
    if not may_write():
        return
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):  # an object of a bucket is whole or absent anyway
        path.write_bytes(content)
        return
    beside = path.with_name(f'{path.name}.{os.getpid()}.writing')
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def check_there(path: str | os.PathLike) -> None:
    """Raises FileNotFoundError where a path that a run has made is gone: it is not made anew."""
    if not epath.Path(path).exists():
        raise FileNotFoundError(errno.ENOENT, 'the work directory is gone', os.fspath(path))


_writing = [True]


def let_write(allowed: bool) -> None:
    """Says whether this process writes files: of several that work as one, only the first does."""
    _writing[0] = allowed


def may_write() -> bool:
    return _writing[0]


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is in a bucket."""
    return '://' in os.fspath(epath.Path(path))


def absolute(path: str | os.PathLike) -> epath.Path:
    """The path from the root of its file system."""
    path = epath.Path(path)
    if not is_remote(path):
        return epath.Path(os.path.abspath(path))
    scheme, _, place = os.fspath(path).partition('://')
    return epath.Path(f'{scheme}://{os.path.normpath(place)}')


def _array(path: pathlib.Path, text: str) -> Iterator[Found]:
    for number, value in enumerate(at(str(path), _parse, text), start=1):
        place = f'{path}, record {number}'
        yield Found(number, place, at(place, _object, value))


def _lines(path: pathlib.Path, text: str) -> Iterator[Found]:
    for number, line in enumerate(text.split('\n'), start=1):
        if line.strip():
            place = f'{path}:{number}'
            yield Found(number, place, at(place, parse_object, line))
