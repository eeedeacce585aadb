"""Changes of single fields of settings by their paths, checked as the config is."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from elenchus.model.ranges import show
from elenchus.sampling.slots import Slot
from elenchus.train.config import build


class Leaf(NamedTuple):
    """A field that holds a value and no section."""

    hint: Any
    value: Any


def leaves(settings: object, prefix: str) -> Iterator[tuple[str, Leaf]]:
    """Yields path and leaf of every field of a dataclass of settings and of its sections."""
    for name, hint in build.hints_of(type(settings)).items():
        value, path = getattr(settings, name), f'{prefix}.{name}'
        if dataclasses.is_dataclass(value):
            yield from leaves(value, path)
        else:
            yield path, Leaf(hint, value)


def changed(sections: Mapping[str, Any], changes: Mapping[str, Any], fields) -> dict[str, Any]:
    """Returns sections of settings, by name, with the values of `changes`, {path: value}.

    `fields` are the paths that may change. Raises ValueError, naming the field and the nearest
    valid one, for another path, and for a value that the config could not have either.
    """
    known = dict(item for name, s in sections.items() for item in leaves(s, name))
    values: dict[str, Any] = {}
    for path, value in changes.items():
        if path not in fields:
            raise ValueError(
                f'{show(path)} is no field that may change; nearest: '
                f'{build.nearest(path, sorted(fields))!r}'
            )
        _check_built_in(known[path].hint, value, path)
        values[path] = build.convert(known[path].hint, value, path)
    return {name: _replaced(section, values, name) for name, section in sections.items()}


def _replaced(settings: Any, values: Mapping[str, Any], prefix: str) -> Any:
    """Returns a dataclass with the values whose paths begin with `prefix`."""
    new = {}
    for field in dataclasses.fields(settings):
        path = f'{prefix}.{field.name}'
        if path in values:
            new[field.name] = values[path]
        elif any(name.startswith(f'{path}.') for name in values):
            new[field.name] = _replaced(getattr(settings, field.name), values, path)
    return dataclasses.replace(settings, **new) if new else settings


def _check_built_in(hint: Any, value: Any, path: str) -> None:
    """Refuses a user's function: a run could not say whether it is still the same."""
    slots = [extra for extra in getattr(hint, '__metadata__', ()) if isinstance(extra, Slot)]
    if any(isinstance(value, str) and value not in slot.functions for slot in slots):
        names = ', '.join(map(repr, slots[0].functions))
        raise ValueError(f'{path}={show(value)} must be built in here, one of {names}')
