"""Reads objects from JSONL files and JSON arrays, with the place of each for error messages."""

import difflib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

T = TypeVar('T')


class PlacedObject(NamedTuple):
    """A JSON object and its position in a file."""

    number: int  # line (JSONL) or index in the array, from 1
    place: str  # the position as error messages state it: 'a.jsonl:3' or 'a.json, record 3'
    value: dict


def read_objects(path: str | os.PathLike) -> list[PlacedObject]:
    """Returns the objects of a JSON array or a JSONL file, which may have none.

    The first character tells the two forms apart. Raises ValueError, which names the file and the
    place, if the file does not exist or contains anything else.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        candidates = [str(p) for p in sorted(path.parent.glob('*.json*'))]
        near = difflib.get_close_matches(str(path), candidates, n=1, cutoff=0.0)
        raise ValueError(f'file not found: {path}' + (f'; did you mean {near[0]}?' if near else ''))
    text = path.read_text(encoding='utf-8')
    is_array = text.lstrip().startswith('[')
    return list(_array_objects(path, text) if is_array else _line_objects(path, text))


def parse_object(text: str) -> dict:
    """Parses text as one JSON object. Raises ValueError if it is anything else."""
    return _check_object(_parse(text))


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f'invalid JSON: {error}') from None


def _check_object(value: Any) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f'expected a JSON object, got {str(value)[:40]!r}')
    return value


def at_place(place: str, parse: Callable[[Any], T], value: Any) -> T:
    """Returns parse(value); the message of a ValueError is prefixed with the place."""
    try:
        return parse(value)
    except ValueError as error:
        raise ValueError(f'{place}: {error}') from None


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Returns '; did you mean ...?' for the most similar valid name, '' if none is similar."""
    near = difflib.get_close_matches(name, list(valid), n=1)
    return f'; did you mean {near[0]!r}?' if near else ''


def _array_objects(path: pathlib.Path, text: str) -> Iterator[PlacedObject]:
    for number, value in enumerate(at_place(str(path), _parse, text), start=1):
        place = f'{path}, record {number}'
        yield PlacedObject(number, place, at_place(place, _check_object, value))


def _line_objects(path: pathlib.Path, text: str) -> Iterator[PlacedObject]:
    # Not splitlines(): it also breaks at characters that are legal inside JSON strings.
    for number, line in enumerate(text.split('\n'), start=1):
        if line.strip():
            place = f'{path}:{number}'
            yield PlacedObject(number, place, at_place(place, parse_object, line))
