"""Valid ranges of numeric settings, declared once, in the type of the field.

`train/config/build.py` checks a range, under the field's full name, before anything is written, and
`checked` checks it whenever the dataclass is constructed:

    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True)
    ... @checked('beam')
    ... class Beam:
    ...     width: Annotated[int, Range(1, 100, off=0)]
    >>> Beam(width=0)
    Beam(width=0)
    >>> Beam(width=101)
    Traceback (most recent call last):
    ValueError: beam.width=101 must be at most 100, or 0 for off; nearest: 100

Ranges are closed, so that the nearest valid value exists. Above the upper end a value cannot be
intended, or would overflow the int32 or float32 of the computation that reads it.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Range:
    """Closed interval of a number, or of every number of a tuple."""

    least: float
    most: float
    off: float | None = None  # a value outside of the interval that turns the setting off
    note: str = ''  # advice at the end of the error message

    def check(self, name: str, value: float) -> None:
        """Raises ValueError, naming the field and the nearest valid value, if out of range."""
        if value == self.off or self.least <= value <= self.most:  # NaN is neither
            return
        off = '' if self.off is None else f', or {self.off:g} for off'
        note = f' ({self.note})' if self.note else ''
        if value != value:  # math.isnan fails for an integer that no float holds
            limits = f'must be a number from {show(self.least)} to {show(self.most)}'
            raise ValueError(f'{name}=nan {limits}{off}{note}; nearest: {self.nearest(value)}')
        limit = (
            f'at least {show(self.least)}' if value < self.least else f'at most {show(self.most)}'
        )
        raise ValueError(
            f'{name}={show(value)} must be {limit}{off}{note}; nearest: {self.nearest(value)}'
        )

    def nearest(self, value: float) -> str:
        """Returns the nearest valid value as text; for NaN it is the least one."""
        if value > self.most:
            return show(self.most)
        if self.off is not None and value < (self.off + self.least) / 2:
            return show(self.off)
        return show(self.least)


MOST = 1_000_000_000
"""Largest count of a config: sums of two of them are still int32."""

PositiveInt = Annotated[int, Range(1, MOST)]
NonNegativeInt = Annotated[int, Range(0, MOST)]
SampleCount = Annotated[int, Range(1, 10_000)]  # of one question, or of one attempt
Length = Annotated[int, Range(1, 1 << 22)]  # tokens of a sequence
Seed = Annotated[int, Range(0, 2_000_000_000)]  # NumPy takes no negative seed, JAX 32 bits
Share = Annotated[float, Range(0.0, 1.0)]
PositiveShare = Annotated[float, Range(1e-6, 1.0)]
Coefficient = Annotated[float, Range(0.0, 1e6)]
SignedCoefficient = Annotated[float, Range(-1e6, 1e6)]  # below 0, a reward becomes a penalty


def show(value: Any) -> str:
    """Returns a value as one short line for an error."""
    try:
        text = ' '.join(repr(value).split())
    except ValueError:  # an integer of more digits than Python prints
        return f'a number of {value.bit_length()} bits'
    return text if len(text) <= 80 else f'{text[:60]}...({len(text)} characters)'


def ranges_of(hint: Any) -> Iterator[Range]:
    """Yields the ranges of the numbers in a field of this type, a tuple's and X | None's too."""
    if typing.get_origin(hint) is Annotated:
        yield from (extra for extra in hint.__metadata__ if isinstance(extra, Range))
    elif typing.get_origin(hint) in (tuple, typing.Union, types.UnionType):
        for argument in typing.get_args(hint):
            yield from ranges_of(argument)


def check_fields(settings: object, section: str) -> None:
    """Raises ValueError, naming `section` and field, if a number is out of its field's range."""
    for name, (limits, others) in _ranged_fields(type(settings)).items():
        value = getattr(settings, name)
        if isinstance(value, others):
            continue
        for i, item in enumerate(value if isinstance(value, tuple) else [value]):
            place = f'{section}.{name}' + (f'[{i}]' if isinstance(value, tuple) else '')
            if isinstance(item, bool) or not isinstance(item, int | float):
                raise ValueError(f'{place}={show(item)} must be a number')
            limits.check(place, item)


def checked(section: str) -> Callable[[type[T]], type[T]]:
    """Decorates the class below `@dataclass`: construction checks the ranges of its fields.

    `section` is how errors name it; a config's own errors have the full name of the field.
    """

    def decorate(cls: type[T]) -> type[T]:
        check_more = getattr(cls, '__post_init__', None)

        def __post_init__(self) -> None:
            check_fields(self, section)
            if check_more is not None:
                check_more(self)

        cls.__post_init__ = __post_init__
        return cls

    return decorate


@functools.cache
def _ranged_fields(cls: type) -> dict[str, tuple[Range, tuple[type, ...]]]:
    """Range of each field that has one, and the other types it may have, such as None or str."""
    hints = typing.get_type_hints(cls, include_extras=True)
    # `build` checks tuples in a tuple.
    flat = {name: hint for name, hint in hints.items() if not _is_nested(hint)}
    fields = {name: next(ranges_of(hint), None) for name, hint in flat.items()}
    return {
        name: (limits, tuple({types.NoneType, str}.intersection(typing.get_args(hints[name]))))
        for name, limits in fields.items()
        if limits is not None
    }


def _is_nested(hint: Any) -> bool:
    """Returns whether a type is of tuples in a tuple."""
    is_tuple = typing.get_origin(hint) is tuple
    return is_tuple and any(typing.get_origin(kind) is tuple for kind in typing.get_args(hint))
