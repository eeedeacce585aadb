"""Finds the user functions that a config names, and their fields."""

import dataclasses
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from elenchus.sampling.slots import Slot
from elenchus.train.config import build


class NamedFunction(NamedTuple):
    """A function that is not built in."""

    field: str  # of the config, such as 'reinforce.advantage.outcome'
    reference: str  # 'module:function' or 'FILE.py:function'
    function: Callable
    slot: Slot


def functions_of(settings: object) -> list[NamedFunction]:
    """Returns the functions that the fields of a dataclass of settings name, and of its sections.

    Raises ValueError for one that cannot be imported.
    """
    return [
        NamedFunction(field, reference, slot.find(reference, field), slot)
        for field, reference, slot in _references(settings, '')
        if reference not in slot.functions
    ]


def _references(settings: object, prefix: str) -> Iterator[tuple[str, str, Slot]]:
    for name, hint in build.hints_of(type(settings)).items():
        value, path = getattr(settings, name, None), prefix + name
        if dataclasses.is_dataclass(value):
            yield from _references(value, f'{path}.')
        else:
            for reference, slot in _in_value(hint, value):
                yield path, reference, slot


def _in_value(hint: Any, value: Any) -> Iterator[tuple[str, Slot]]:
    """References in a field's value: the value itself, or items of a tuple at any depth."""
    origin, kinds = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        yield from ((value, extra) for extra in hint.__metadata__ if isinstance(extra, Slot))
    elif origin is tuple and isinstance(value, tuple):
        repeated = len(kinds) == 2 and kinds[1] is Ellipsis
        for kind, item in zip(kinds[:1] * len(value) if repeated else kinds, value, strict=True):
            yield from _in_value(kind, item)
