"""Points of a sweep: changes of a config's fields, as a grid, from a list, or at random."""

import ast
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from elenchus.data.files import jsonl
from elenchus.data.text.printable import printable
from elenchus.model.ranges import show
from elenchus.train.config import build

SEEDS = ('seed', 'data.seed')
"""Fields that --seeds sets."""
MAX_POINTS = 10_000
MAX_NAME = 60  # characters of a folder's name
_RANGE = re.compile(r'(log:)?([^.,]+(?:\.\d+)?(?:e[+-]?\d+)?)\.\.([^,]+)', re.IGNORECASE)
_PAIRS = {'(': ')', '[': ']'}


class Range(NamedTuple):
    """Numbers from `low` to `high`; whole ones if both are, evenly by logarithm with `is_log`."""

    low: float
    high: float
    is_log: bool

    def draw(self, rng: np.random.Generator) -> int | float:
        """Returns a number with at most six digits, which a command line can carry."""
        low, high = (math.log(self.low), math.log(self.high)) if self.is_log else self[:2]
        if isinstance(self.low, int) and isinstance(self.high, int):
            if not self.is_log:
                return int(rng.integers(self.low, self.high, endpoint=True))
            return round(math.exp(rng.uniform(low, high)))
        value = rng.uniform(low, high)
        return float(f'{math.exp(value) if self.is_log else value:.6g}')


Values = tuple[Any, ...] | Range


class Point(NamedTuple):
    """One setting of the fields of a sweep."""

    name: str  # of its folder
    changes: dict[str, Any]  # field -> value


def parse_vary(texts: Sequence[str]) -> dict[str, Values]:
    """Reads FIELD=VALUE,VALUE,..., FIELD=LOW..HIGH and FIELD=log:LOW..HIGH, even in the logarithm.

    Values are Python's numbers, texts, True, False and tuples; words need no quotes. Raises
    ValueError for a field that is there twice, and for one without values or with equal ones.
    """
    fields: dict[str, Values] = {}
    for text in texts:
        field, equals, values = text.partition('=')
        field = field.strip().removeprefix('config.')
        if not equals or not field:
            raise ValueError(f'--vary={text!r} must be FIELD=VALUE,VALUE, such as train.rows=8,16')
        if field in fields:
            raise ValueError(f'--vary: field {field!r} is there twice; put all values behind one')
        fields[field] = parse_range(field, values) or parse_values(field, values)
    return fields


def parse_range(field: str, text: str) -> Range | None:
    """Reads LOW..HIGH or log:LOW..HIGH; None of another text."""
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        return None
    bounds = [_literal(bound) for bound in match.groups()[1:]]
    is_log = bool(match[1])
    known = all(isinstance(b, (int, float)) and not isinstance(b, bool) for b in bounds)
    if not known or not all(map(math.isfinite, bounds)) or bounds[0] >= bounds[1]:
        raise ValueError(f'--vary={field}={text} must go from a number to a larger one')
    if is_log and bounds[0] <= 0:
        raise ValueError(f'--vary={field}={text} has no logarithm at {bounds[0]}; begin above 0')
    return Range(*bounds, is_log)


def parse_values(field: str, text: str) -> tuple[Any, ...]:
    """Reads values between commas; commas within brackets or quotes do not separate."""
    values = tuple(_literal(part) for part in _split(text) if part.strip())
    if not values:
        raise ValueError(f'--vary={field}= has no values; such as --vary={field}=1,2')
    texts = [repr(value) for value in values]
    if twice := next((t for t in texts if texts.count(t) > 1), ''):
        raise ValueError(f'--vary={field} has the value {twice} twice')
    return values


def grid(fields: Mapping[str, Values]) -> list[dict[str, Any]]:
    """Returns every combination of the values; the last field changes fastest."""
    for field, values in fields.items():
        if isinstance(values, Range):
            raise ValueError(
                f'--vary={field} is a range, of which --random=N draws; a grid needs values'
            )
    size = math.prod(map(len, fields.values()))
    if size > MAX_POINTS:
        raise ValueError(f'a grid of {size:,} points; at most {MAX_POINTS:,}: use --random=N')
    return [
        dict(zip(fields, values, strict=True)) for values in itertools.product(*fields.values())
    ]


def random_points(fields: Mapping[str, Values], count: int, *, seed: int) -> list[dict[str, Any]]:
    """Draws `count` different points; a larger count begins with the same points.

    Raises ValueError if 1000 draws in a row give no new point: there are hardly more.
    """
    rng, points, seen = np.random.default_rng(seed), [], set()
    while len(points) < count:
        for _ in range(1000):
            point = {field: _draw(values, rng) for field, values in fields.items()}
            if (key := json.dumps(point)) not in seen:
                break
        else:
            raise ValueError(f'--random={count}: only {len(points)} different points are there; '
                             f'nearest: {len(points)}')  # fmt: skip
        seen.add(key)
        points.append(point)
    return points


def listed_points(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads points from a JSONL file (or a JSON array): {"train.rows": 8, ...} each.

    Raises ValueError, naming file and line, if it holds anything else.
    """
    return [
        {name.removeprefix('config.'): _tuples(value) for name, value in item.value.items()}
        for item in jsonl.read_objects(path)
    ]


def make_points(changes: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Names the points. Raises ValueError if there is none, or if two are the same."""
    if not changes:
        raise ValueError('the sweep has no points; give --vary=FIELD=VALUE,VALUE or --points=FILE')
    points = [Point(name_of(change), dict(change)) for change in changes]
    names = [point.name for point in points]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValueError(f'point {number + 1} is the same as point {names.index(name) + 1}: '
                             f'{printable(show(dict(changes[number])))}')  # fmt: skip
    return points


def name_of(changes: Mapping[str, Any]) -> str:
    """Returns the folder's name of a point: what it changes, and six digits that tell it apart.

    It depends on the changes alone, so that a sweep may get more points later.
    """
    ordered = json.dumps(changes, sort_keys=True)
    digest = hashlib.sha256(ordered.encode()).hexdigest()[:6]
    text = ','.join(f'{field.rpartition(".")[2]}={value}' for field, value in changes.items())
    plain = re.sub(r'[^A-Za-z0-9_.,=+-]+', '-', text).strip('-.')[:MAX_NAME]
    return f'{plain or "base"}-{digest}'


def check_fields(config: ml_collections.ConfigDict, points: Sequence[Point]) -> None:
    """Raises ValueError, naming the nearest one, for a field that the config does not have."""
    known = build.flat(config.to_dict())
    for field in dict.fromkeys(name for point in points for name in point.changes):
        if field in SEEDS:
            raise ValueError(f'field {field!r} is that of --seeds=0,1,2')
        if field not in known:
            close = build.nearest(field, sorted(known))
            raise ValueError(f'unknown field {printable(field)!r}; did you mean {close!r}?')


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {'train.rows': 8} as {'train': {'rows': 8}}."""
    tree: dict[str, Any] = {}
    for field, value in changes.items():
        *sections, name = field.split('.')
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return tree


def override(field: str, value: Any) -> str:
    """Returns the flag that changes a field. Raises ValueError if a flag cannot say the value."""
    if value is None:
        raise ValueError(f'{field}=None cannot be said by a flag; leave the field out')
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f'--config.{field}={text}'


def _draw(values: Values, rng: np.random.Generator) -> Any:
    return values.draw(rng) if isinstance(values, Range) else values[rng.integers(len(values))]


def _split(text: str) -> list[str]:
    parts, closing, quote = [''], [], ''
    for char in text:
        if quote:
            quote = '' if char == quote else quote
        elif char in '\'"':
            quote = char
        elif char in _PAIRS:
            closing.append(_PAIRS[char])
        elif closing and char == closing[-1]:
            closing.pop()
        elif char == ',' and not closing:
            parts.append('')
            continue
        parts[-1] += char
    return parts


def _literal(text: str) -> Any:
    text = text.strip()
    if text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    try:
        return _tuples(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
