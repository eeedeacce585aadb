"""Strict settings: a ConfigDict becomes frozen dataclasses, and every mistake names its field.

Because each section is turned into a dataclass with exactly its fields, a field that nobody reads
cannot exist: an unknown, missing or ill-typed one is an error at the border.
"""

import dataclasses
import difflib
import errno
import hashlib
import json
import pathlib
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import ml_collections
from absl import app, flags, logging
from ml_collections import config_dict
from ml_collections.config_flags import config_flags

from elenchus.data.files import json_files

T = TypeVar('T')
ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ('model', 'data', 'sampling', 'train', 'configs', 'scripts')
Section = ml_collections.ConfigDict | Mapping


# Building


def build(cls: type[T], config: Section, path: str = 'config') -> T:
    """A `cls` made from a section whose fields are exactly those of `cls`.

    Follows the type hints: nested dataclasses, `tuple[...]`, `X | None`, `Literal`, bool, int,
    float (an int is taken), str. Defaults in `cls` are not used: the config says everything.

    Raises ValueError, naming the field, for an unknown or missing field or a value of another type.
    """
    if not isinstance(config, Section):
        raise ValueError(f'{path}={config!r} must be a section with the fields of {cls.__name__}')
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    for name in config:
        if name not in names:
            close = nearest(name, names)
            raise ValueError(
                f'{path}.{name} is no field of {cls.__name__}; nearest: {path}.{close}'
            )
    for name in names:
        if name not in config:
            raise ValueError(f'{path}.{name} is missing; {cls.__name__} needs it')
    values = {n: _convert(hints[n], _value(config, n, path), f'{path}.{n}') for n in names}
    return cls(**values)


def nearest(given: object, valid: Iterable[object]) -> str:
    """The valid value whose text is closest to the given one."""
    texts = [str(value) for value in valid]
    return (difflib.get_close_matches(str(given), texts, n=1, cutoff=0.0) or ['none'])[0]


def _value(config: Section, name: str, path: str) -> Any:
    try:
        return config[name]
    except config_dict.RequiredValueError:
        raise ValueError(f'{path}.{name} must be given: --{path}.{name}=...') from None


def _convert(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(hint, value, path)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, path)
    if origin is typing.Literal:
        return _convert_literal(args, value, path)
    if origin is tuple:
        return _convert_tuple(args, value, path)
    if hint is float and _is(int, value):
        return float(value)
    if hint in (bool, int, float, str, types.NoneType):
        if not _is(hint, value):
            raise _wrong_type(hint, value, path)
        return value
    raise TypeError(f'{path}: settings cannot hold {hint}')


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _convert_union(kinds: Sequence[Any], value: Any, path: str) -> Any:
    others = [kind for kind in kinds if kind is not types.NoneType]
    if value is None and len(others) < len(kinds):
        return None
    if len(others) == 1:
        return _convert(others[0], value, path)
    for kind in others:
        try:
            return _convert(kind, value, path)
        except ValueError:
            continue
    raise _wrong_type(' | '.join(_name(kind) for kind in kinds), value, path)


def _convert_literal(choices: Sequence[Any], value: Any, path: str) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return value
    listed = ', '.join(repr(choice) for choice in choices)
    raise ValueError(f'{path}={value!r} is none of {listed}; nearest: {nearest(value, choices)}')


def _convert_tuple(kinds: Sequence[Any], value: Any, path: str) -> tuple:
    if not isinstance(value, (tuple, list)):
        raise _wrong_type('tuple', value, path)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = [kinds[0]] * len(value)
    if len(kinds) != len(value):
        raise ValueError(f'{path}={value!r} has {len(value)} values; expected {len(kinds)}')
    pairs = zip(kinds, value, strict=True)
    return tuple(_convert(kind, item, f'{path}[{i}]') for i, (kind, item) in enumerate(pairs))


def _wrong_type(kind: Any, value: Any, path: str) -> ValueError:
    return ValueError(f'{path}={value!r} is of type {type(value).__name__}; expected {_name(kind)}')


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


# Storing and comparing


def to_json(config: Section) -> str:
    """The config as readable JSON in a fixed order. Raises ValueError for a value JSON has not."""
    return json.dumps(_plain(config, 'config'), indent=2, sort_keys=True) + '\n'


def from_json(text: str) -> ml_collections.ConfigDict:
    """The locked config that `to_json` wrote; sequences come back as tuples."""
    return ml_collections.ConfigDict(_tuples(json_files.parse_object(text))).lock()


def config_hash(config: Section) -> str:
    """Sixteen hexadecimal digits that change when any field does."""
    return hashlib.sha256(to_json(config).encode()).hexdigest()[:16]


def diff(was: Section, now: Section) -> list[str]:
    """Paths of the fields that differ, such as 'train.rate', in order."""
    before, after = _flat(_plain(was, 'config')), _flat(_plain(now, 'config'))
    absent = object()
    fields = sorted(before.keys() | after.keys())
    return [f for f in fields if before.get(f, absent) != after.get(f, absent)]


def explain_diff(was: Section, now: Section, *, ignoring: Sequence[str] = ()) -> str:
    """One line for people: 'field train.rate was 0.1, now 0.2; ...'; empty where all is equal."""
    before, after = _flat(_plain(was, 'config')), _flat(_plain(now, 'config'))
    fields = [field for field in diff(was, now) if field not in ignoring]
    return '; '.join(f'field {f} was {_show(before, f)}, now {_show(after, f)}' for f in fields)


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


def _flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    fields = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            fields |= _flat(value, f'{prefix}{name}.')
        else:
            fields[prefix + name] = value
    return fields


# The command line


def run_main(main: Callable[[list[str]], Any]) -> NoReturn:
    """Runs an absl main; a mistake of the user is one line and exit code 2, not a traceback.

    Such mistakes are bad flags and overrides, a config file that is not there, and any ValueError
    raised in our own packages. A ValueError from elsewhere is a fault and keeps its traceback;
    What befalls a run from outside or in its numbers (a full disk, a folder that is gone, processes
    apart, a loss that is no number) is one line too, and exit code 1.
    `--verbosity=1` shows every traceback. Define config flags without a default, so that they are
    parsed here: `config_flags.DEFINE_config_file('config', lock_config=True)`.
    """

    def guarded(argv):
        if not flags.FLAGS['verbosity'].present:
            logging.set_verbosity(logging.FATAL)  # libraries' notes are not the user's
        try:
            return main(argv)
        except ValueError as error:
            if not _is_ours(error):
                raise
            _fail(str(error), error)
        except (FloatingPointError, RuntimeError) as error:
            if not _is_ours(error):
                raise
            _fail(str(error), error, code=1)
        except OSError as error:
            if error.errno not in OUTSIDE:
                raise
            _fail(f'{error}: {CONTINUES}', error, code=1)

    app.run(guarded, flags_parser=_parse_flags)


OUTSIDE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ESTALE,
    errno.EIO,
}
"""What file systems say that is not our fault."""

CONTINUES = 'what is in the work directory is whole; once put right, the same command continues'


def _fail(message: str, error: BaseException | None = None, *, code: int = 2) -> NoReturn:
    if error is not None:
        logging.debug('The error below, with its traceback:', exc_info=error)
    print('error:', ' '.join(message.split()), file=sys.stderr)
    sys.exit(code)


def _is_ours(error: BaseException) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    path = pathlib.Path(frame.f_code.co_filename)
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        for name in _config_names():
            _check_present(name, argv)
        return rest
    except flags.IllegalFlagValueError as error:
        _fail(_last_line(str(error)))
    except flags.Error as error:
        _fail(str(error))
    except (AttributeError, KeyError):  # what ml_collections raises for an unknown override
        for name in _config_names():
            _check_overrides(name, argv)
        raise


def _config_names() -> list[str]:
    parsers = {name: flags.FLAGS[name].parser for name in flags.FLAGS}
    return [n for n, p in parsers.items() if isinstance(p, config_flags.ConfigFileFlagParser)]


def _last_line(message: str) -> str:
    """The flag and the cause, where ml_collections put a whole traceback into the message."""
    head, mark, trace = message.partition('Error whilst parsing config file:')
    return head + trace.strip().splitlines()[-1] if mark else message


def _given(name: str, argv: list[str]) -> str | None:
    for i, argument in enumerate(argv):
        flag, equals, value = argument.lstrip('-').partition('=')
        if argument.startswith('-') and flag == name:
            return value if equals else ''.join(argv[i + 1 : i + 2])
    return None


def _check_present(name: str, argv: list[str]) -> None:
    try:
        getattr(flags.FLAGS[name].value, 'is_locked', None)  # raises what kept it from being read
    except OSError as error:
        path = pathlib.Path((_given(name, argv) or '').partition(':')[0])
        there = [str(p) for p in sorted(path.parent.glob('*.py')) if p.stem != '__init__']
        reason = error.strerror or error
        _fail(f'--{name}={path} cannot be read ({reason}); nearest: {nearest(path, there)}')


def _check_overrides(name: str, argv: list[str]) -> None:
    """Fails with one line where an override names a field that the config has not."""
    given = _given(name, argv)
    config = flags.FLAGS[name].parser.parse(given) if given else None
    for argument in argv:
        flag = argument.lstrip('-').partition('=')[0]
        if config is not None and argument.startswith('-') and flag.startswith(f'{name}.'):
            _check_path(config, flag.split('.'))


def _check_path(config: Any, parts: list[str]) -> None:
    path = parts[0]
    for part in parts[1:]:
        if '[' in part or not isinstance(config, ml_collections.ConfigDict):
            return
        if part not in config:
            _fail(f'--{path}.{part} is no field; nearest: --{path}.{nearest(part, config)}')
        config, path = config[part], f'{path}.{part}'
