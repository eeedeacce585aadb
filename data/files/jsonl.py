"""Reads objects from JSONL files and JSON arrays, each with its place for error messages."""

import decimal
import difflib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from etils import epath

from elenchus.data.files import text_files

T = TypeVar('T')


class PlacedObject(NamedTuple):
    """A JSON object and its position in a file."""

    number: int  # line (JSONL) or index in the array, from 1
    place: str  # the position as error messages state it: 'a.jsonl:3' or 'a.json, record 3'
    value: dict


def read_objects(path: str | os.PathLike) -> list[PlacedObject]:
    """Returns the objects of a JSON array or a JSONL file; there may be none.

    The first character distinguishes the two formats. Raises ValueError that names the file and
    the place if the file does not exist or contains anything else, and as `parse_record` does.
    """
    path = epath.Path(path)
    check_file(path)
    text = text_files.read_text(path)
    is_array = text.lstrip().startswith('[')
    return list(_array_objects(path, text) if is_array else _line_objects(path, text))


def check_file(path: epath.Path) -> None:
    """Raises ValueError, with the name of a similar file, if there is no file at a path."""
    if path.is_file():
        return
    siblings = path.parent.iterdir() if path.parent.is_dir() else ()
    candidates = sorted(str(p) for p in siblings if p.suffix.startswith('.json'))
    near = difflib.get_close_matches(str(path), candidates, n=1, cutoff=0.0)
    raise ValueError(f'file not found: {path}' + (f'; did you mean {near[0]}?' if near else ''))


def read_object(path: str | os.PathLike) -> dict:
    """Returns the JSON object of a file, also of one in a bucket.

    Raises ValueError, which names the file, if it is not UTF-8 or anything else than an object.
    """
    text = text_files.decode(epath.Path(path).read_bytes(), os.fspath(path))
    return at_place(os.fspath(path), parse_object, text)


def parse_object(text: str) -> dict:
    """Parses text as one JSON object. Raises ValueError if it is anything else."""
    return _check_object(_parse(text))


def parse_record(text: str) -> dict:
    """Parses one object of somebody's data, more strictly than `parse_object`.

    Also raises ValueError for values that JSON does not define (NaN and infinities), for a number
    beyond float64, for a repeated field, of which one value would be lost, and for half a surrogate
    pair, which no tokenizer can encode.
    """
    return check_record(_parse(text, **_STRICT))


def check_record(value: Any) -> dict:
    """Returns an object without faulty values. Raises ValueError that names the field of one."""
    for name, item in _check_object(value).items():
        try:
            fault = next(_faults({name: item}), None)
        except RecursionError:
            fault = 'a value that is nested too deeply'
        if fault is not None:
            raise ValueError(f'field {ascii(name)} has {fault}')
    if isinstance(value, _Repeated):
        raise ValueError(f'the object has {value.fault}')
    return value


class _NotJson(NamedTuple):
    """A constant such as NaN that Python's parser accepts although JSON does not define it."""

    name: str


class _Repeated(dict):
    """An object of which a field occurs twice."""

    fault: str


def _faults(value: Any) -> Iterator[str]:
    """Yields descriptions of the invalid parts of a value, in order."""
    if isinstance(value, _NotJson):
        yield f'{value.name}, which is no JSON: write a number, a text or null'
    elif isinstance(value, float) and not math.isfinite(value):
        yield 'a number that is not finite (NaN, infinite or too large)'
    elif isinstance(value, str):
        if fault := text_files.half_pair(value):
            yield fault
    elif isinstance(value, dict):
        yield from (fault for pair in value.items() for part in pair for fault in _faults(part))
        if isinstance(value, _Repeated):
            yield value.fault
    elif isinstance(value, (list, tuple)):
        yield from (fault for item in value for fault in _faults(item))


def _object(pairs: list[tuple[str, Any]]) -> dict:
    """Builds an object of its fields, and remembers if one occurs twice."""
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    names = [name for name, _ in pairs]
    repeated = _Repeated(fields)
    repeated.fault = f'field {ascii(max(names, key=names.count))} twice'
    return repeated


def _exact_number(text: str) -> float | decimal.Decimal:
    """Returns a float, or a Decimal if a float would change the number, as for 1e-400."""
    value = float(text)
    is_exact = not math.isfinite(value) or decimal.Decimal(repr(value)) == decimal.Decimal(text)
    return value if is_exact else decimal.Decimal(text)


_STRICT = {
    'object_pairs_hook': _object,
    'parse_constant': _NotJson,
    'parse_float': _exact_number,
}


def _parse(text: str, **options) -> Any:
    try:
        return json.loads(text.removeprefix('\ufeff'), **options)
    except RecursionError:
        raise ValueError('invalid JSON: it is nested too deeply') from None
    except ValueError as error:
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


def _array_objects(path: epath.Path, text: str) -> Iterator[PlacedObject]:
    values = at_place(str(path), lambda whole: _parse(whole, **_STRICT), text)
    for number, value in enumerate(values, start=1):
        place = f'{path}, record {number}'
        yield PlacedObject(number, place, at_place(place, check_record, value))


def _line_objects(path: epath.Path, text: str) -> Iterator[PlacedObject]:
    # Not splitlines(): it also breaks at characters that are legal inside JSON strings. Where files
    # were joined, any line may begin with a byte order mark.
    for number, line in enumerate(text_files.LINE_ENDS.split(text), start=1):
        line = line.removeprefix('\ufeff')
        if line.strip():
            place = f'{path}:{number}'
            yield PlacedObject(number, place, at_place(place, parse_record, line))
