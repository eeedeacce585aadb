"""Builds frozen dataclasses from a ConfigDict, strictly: every mistake names its field.

A section becomes a dataclass with exactly the section's fields. So a field that nobody reads cannot
exist: an unknown, missing or ill-typed field is an error before the run starts.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import pathlib
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import ml_collections
from ml_collections import config_dict

from elenchus.data.files import jsonl
from elenchus.data.grading.judge import AnswerSettings
from elenchus.model.ranges import Range, show
from elenchus.sampling.slots import Slot, without_folder
from elenchus.train.objective import Objective, ObjectiveSettings
from elenchus.train.preferences import PairLoss, PairLossSettings

T = TypeVar('T')
SETTINGS_OF: dict[type, type] = {Objective: ObjectiveSettings, PairLoss: PairLossSettings}
"""Type of a field -> the settings that a config has for it, whose `resolve` returns the field."""
RANGES_OF: dict[type, dict[str, Range]] = {
    AnswerSettings: {
        'workers': Range(0, 4096, note='0 is one for each core'),
        'timeout_s': Range(0.01, 86_400.0),
    }
}
"""Ranges of settings of the package `data`, which imports none of ours and so cannot say them."""
ROOT = pathlib.Path(__file__).parents[2]
PLAIN = (bool, int, float, str, types.NoneType)
LARGEST, LONGEST = sys.float_info.max, 4096  # a float; the characters of a text
Section = ml_collections.ConfigDict | Mapping


# Building


def build(cls: type[T], config: Section, path: str = 'config') -> T:
    """Builds a `cls` from a section that has exactly the fields of `cls`.

    Follows the type hints: nested dataclasses, `tuple[...]`, `X | None`, `Literal`, bool, int,
    float (an int is accepted), str; numbers may be `Annotated` with a `Range`. Defaults in `cls`
    are ignored: the config states everything.

    Raises ValueError, naming the field, for an unknown or missing field, for a value of another
    type and for a number out of its range.
    """
    if not isinstance(config, Section):
        raise ValueError(
            f'{path}={show(config)} must be a section with the fields of {cls.__name__}'
        )
    hints = hints_of(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    for name in config:
        if name not in names:
            close = nearest(name, names)
            raise ValueError(
                f'unknown field {path}.{name} of {cls.__name__}; did you mean {path}.{close}?'
            )
    for name in names:
        if name not in config:
            raise ValueError(f'missing field {path}.{name} of {cls.__name__}')
    values = {n: convert(hints[n], _value(config, n, path), f'{path}.{n}') for n in names}
    try:
        return cls(**values)
    except ValueError as error:
        section, _, name = path.removeprefix('config.').rpartition('.')
        if section and str(error).startswith(f'{name}.'):  # several sections have such settings
            raise ValueError(f'{section}.{error}') from None
        raise


def nearest(value: object, valid: Iterable[object]) -> str:
    """Returns the valid value whose text is closest to the given one; 'none' if there is none."""
    texts = [str(option) for option in valid]
    return (difflib.get_close_matches(show(value), texts, n=1, cutoff=0.0) or ['none'])[0]


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """Returns the types of the fields of a class of settings, with the ranges of numbers."""
    hints, ranges = typing.get_type_hints(cls, include_extras=True), RANGES_OF.get(cls, {})
    return {
        name: typing.Annotated[hint, ranges[name]] if name in ranges else hint
        for name, hint in hints.items()
    }


def _value(config: Section, name: str, path: str) -> Any:
    try:
        return config[name]
    except config_dict.RequiredValueError:
        raise ValueError(f'missing value: set --{path}.{name}=...') from None


def convert(hint: Any, value: Any, path: str) -> Any:
    """Returns a value as the type of its field wants it; raises ValueError as `build` does."""
    if hint in PLAIN:
        return _convert_plain(hint, value, path)
    if dataclasses.is_dataclass(hint):
        # A value may have settings of another form: a preset with overrides, for example.
        settings = SETTINGS_OF.get(hint)
        return build(settings, value, path).resolve() if settings else build(hint, value, path)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _convert_ranged(args, value, path)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, path)
    if origin is typing.Literal:
        return one_of(args, value, path)
    if origin is tuple:
        return _convert_tuple(args, value, path)
    raise TypeError(f'{path}: settings cannot hold {hint}')


def _convert_plain(hint: type, value: Any, path: str) -> Any:
    if hint is float and _is(int, value) and abs(value) < LARGEST:
        return float(value)
    if not _is(hint, value):
        raise _wrong_type(hint, value, path)
    if hint is str and ('\0' in value or len(value) > LONGEST):
        raise ValueError(f'{path}={show(value)} must have no NUL, and at most {LONGEST} characters')
    return value


def _convert_ranged(args: Sequence[Any], value: Any, path: str) -> Any:
    hint, *extras = args
    # An integer that no float holds is out of range before it is converted.
    is_number = _is(int, value) or (hint is float and _is(float, value))
    name = path.removeprefix('config.')  # as checks across sections name it: sampling.top_p
    for limits in (extra for extra in extras if isinstance(extra, Range) and is_number):
        limits.check(name, value)
    converted = convert(hint, value, path)
    for slot in (extra for extra in extras if isinstance(extra, Slot)):
        slot.find(converted, name)
    return converted


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _convert_union(kinds: Sequence[Any], value: Any, path: str) -> Any:
    others = [kind for kind in kinds if kind is not types.NoneType]
    if value is None and len(others) < len(kinds):
        return None
    if len(others) == 1:
        return convert(others[0], value, path)
    for kind in others:
        try:
            return convert(kind, value, path)
        except ValueError:
            continue
    raise _wrong_type(' | '.join(_name(kind) for kind in kinds), value, path)


def one_of(choices: Sequence[Any], value: Any, path: str) -> Any:
    """Returns a value that is one of the choices; else raises ValueError with the nearest."""
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return value
    listed = ', '.join(repr(choice) for choice in choices)
    raise ValueError(
        f'{path}={show(value)} must be one of {listed}; did you mean {nearest(value, choices)!r}?'
    )


def _convert_tuple(kinds: Sequence[Any], value: Any, path: str) -> tuple:
    if not isinstance(value, (tuple, list)):
        raise _wrong_type('tuple', value, path)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = [kinds[0]] * len(value)
    if len(kinds) != len(value):
        raise ValueError(f'{path}={show(value)} has {len(value)} values; expected {len(kinds)}')
    pairs = zip(kinds, value, strict=True)
    return tuple(convert(kind, item, f'{path}[{i}]') for i, (kind, item) in enumerate(pairs))


def _wrong_type(kind: Any, value: Any, path: str) -> ValueError:
    return ValueError(
        f'{path}={show(value)} is of type {type(value).__name__}; expected {_name(kind)}'
    )


def _name(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Annotated:
        return _name(typing.get_args(kind)[0])
    return kind.__name__ if isinstance(kind, type) else str(kind)


# Storing and comparing


def to_json(config: Section) -> str:
    """Returns the config as readable JSON, sorted. Raises ValueError for a value JSON lacks."""
    return json.dumps(_plain(config, 'config'), indent=2, sort_keys=True) + '\n'


def from_json(text: str) -> ml_collections.ConfigDict:
    """Returns the locked config that `to_json` wrote; sequences become tuples."""
    return ml_collections.ConfigDict(_tuples(jsonl.parse_object(text))).lock()


def config_hash(config: Section) -> str:
    """Returns sixteen hexadecimal digits that change when any field does."""
    return hashlib.sha256(to_json(config).encode()).hexdigest()[:16]


def diff(was: Section, now: Section) -> list[str]:
    """Returns the sorted paths of the fields that differ, such as 'train.rate'."""
    before, after = flat(_plain(was, 'config')), flat(_plain(now, 'config'))
    absent = object()
    fields = sorted(before.keys() | after.keys())
    return [f for f in fields if before.get(f, absent) != after.get(f, absent)]


def explain_diff(
    was: Section,
    now: Section,
    *,
    only: Callable[[str], bool] = lambda field: True,
    earlier: Mapping[str, Any] = types.MappingProxyType({}),
    new_sections: Iterable[str] = (),
) -> str:
    """Returns one line, 'field train.rate was 0.1, now 0.2; ...'; empty if nothing differs.

    `only` says of a field's name whether it is compared; `earlier` has the values of fields that
    one of the two lacks. Of `new_sections` that one of the two lacks, no others are compared.
    """
    before, after = flat(_plain(was, 'config')), flat(_plain(now, 'config'))
    for section in new_sections:
        if not (_has_section(before, section) and _has_section(after, section)):
            before, after = (
                {f: v for f, v in fields.items() if f in earlier or not _is_in(f, section)}
                for fields in (before, after)
            )
    for name, value in earlier.items():
        if (name in before) != (name in after):
            before.setdefault(name, _plain(value, name))
            after.setdefault(name, _plain(value, name))
    absent = object()
    fields = sorted(before.keys() | after.keys())
    same = {f: _moved(before.get(f, absent)) == _moved(after.get(f, absent)) for f in fields}
    changed = [f for f in fields if not same[f] and only(f)]
    return '; '.join(f'field {f} was {_show(before, f)}, now {_show(after, f)}' for f in changed)


def _has_section(fields: dict[str, Any], section: str) -> bool:
    return any(_is_in(field, section) for field in fields)


def _is_in(field: str, section: str) -> bool:
    return field.startswith(f'{section}.')


def _moved(value: Any) -> Any:
    """The value with functions' files without their folders, which are compared by content."""
    if isinstance(value, list):
        return [_moved(item) for item in value]
    return without_folder(value) if isinstance(value, str) else value


def _show(fields: dict[str, Any], name: str) -> str:
    return repr(fields[name]) if name in fields else 'absent'


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, Section):
        return {name: _plain(_value(value, name, path), f'{path}.{name}') for name in value}
    if isinstance(value, (tuple, list)):
        return [_plain(item, f'{path}[{i}]') for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise _wrong_type('a plain value', value, path)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """Returns nested sections as one dict, such as {'train.rate': 0.1}."""
    fields = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            fields |= flat(value, f'{prefix}{name}.')
        else:
            fields[prefix + name] = value
    return fields
