"""Slots: places of the algorithms that one function fills, a built-in one or a user's own.

A field of the config that is a slot holds the name of a built-in function ('grpo') or says where
another one is: 'module:function', or 'FILE.py:function'. The field's type has the slot:

    outcome: Annotated[str, OUTCOMES]

Built-in functions and a user's are called alike. They get numbers, arrays and records, and return
numbers and arrays, so that a method needs to import nothing of ours. docs/extending.md has an
example of each slot. A run that used another version of a function is not continued: `source_hash`.
"""

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import pathlib
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """A place that a function fills."""

    signature: str  # of the functions, for errors and documents
    functions: Mapping[str, Callable]  # the built-in ones, by name

    def find(self, reference: str, field: str) -> Callable:
        """Returns the function that `reference` names.

        Raises ValueError, naming the field, the nearest built-in name and what failed.
        """
        if reference in self.functions:
            return self.functions[reference]
        if ':' not in reference:
            close = difflib.get_close_matches(reference, self.functions, n=1, cutoff=0.0)
            nearest = f'; nearest: {close[0]!r}' if close else ''
            names = ', '.join(map(repr, self.functions)) or 'no built-in one'
            raise ValueError(
                f'{field}={reference!r} must be one of {names}, or a function of yours '
                f"{self.signature} as 'module:function' or 'FILE.py:function'{nearest}"
            )
        try:
            return load(reference)
        except ValueError as error:
            raise ValueError(f'{field}={reference!r}: {error}') from None

    def __getitem__(self, reference: str) -> Callable:
        return self.find(reference, 'function')


CANNOT_IMPORT = (
    *(ImportError, SyntaxError, NameError, AttributeError),
    *(TypeError, ValueError, OSError),
)


@functools.cache
def load(reference: str) -> Callable:
    """Imports a function from 'module:function' or 'FILE.py:function'.

    Raises ValueError if there is no such file, module or function, or if importing it fails.
    """
    place, _, name = reference.rpartition(':')
    try:
        module = _load_file(place) if place.endswith('.py') else importlib.import_module(place)
    except CANNOT_IMPORT as error:
        text = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise ValueError(f'{place} cannot be imported ({text[:200]})') from error
    function = getattr(module, name, None)
    if not callable(function):
        names = [n for n, value in vars(module).items() if callable(value) and n[0] != '_']
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        nearest = f'; nearest: {close[0]!r}' if close else ''
        raise ValueError(f'{place} has no function {name!r}{nearest}')
    return function


def _load_file(place: str) -> types.ModuleType:
    """Imports a Python file under a name of its own, once for each path."""
    path = pathlib.Path(place).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f'file not found: {path}')
    name = f'{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}'
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        with contextlib.ExitStack() as stack:
            sys.modules[name] = module  # dataclasses look their module up there
            stack.callback(sys.modules.pop, name)
            spec.loader.exec_module(module)
            stack.pop_all()  # it stays
    return sys.modules[name]


def source_hash(function: Callable) -> str:
    """Returns sixteen hexadecimal digits that change with what a function of a user's says.

    That is its source, and those of the functions, classes and constants of its module that it
    reads, directly or through others. Other modules that it imports count by name alone.
    """
    parts = {}
    _collect(inspect.unwrap(function), sys.modules.get(function.__module__), parts)
    text = '\n'.join(f'{name}: {source}' for name, source in sorted(parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _collect(value: Any, module: types.ModuleType | None, parts: dict[str, str]) -> None:
    """Adds the source of a function or class, and of what it reads in its module, by name."""
    name = value.__qualname__
    if name in parts:
        return
    try:
        parts[name] = textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):  # written in C, or not in a file
        parts[name] = repr(value)
        return
    for key in sorted(set(_names_read(value))):
        read = getattr(module, key, None)
        if isinstance(read, types.FunctionType | type) and read.__module__ == value.__module__:
            _collect(read, module, parts)
        elif isinstance(read, str | int | float | bool | tuple | list | dict | set | frozenset):
            parts[key] = repr(sorted(read, key=repr) if isinstance(read, set | frozenset) else read)
    if isinstance(value, types.FunctionType):
        for key, extra in sorted(vars(value).items()):  # attributes, such as `update`
            if isinstance(extra, types.FunctionType):
                _collect(extra, module, parts)
            else:
                parts[f'{name}.{key}'] = repr(extra)


def _names_read(value: Any) -> Iterator[str]:
    """Names that a function, or the methods of a class, look up, in nested functions too."""
    if isinstance(value, type):
        for member in vars(value).values():
            if isinstance(member, types.FunctionType):
                yield from _names_read(member)
        return
    codes = [value.__code__]
    while codes:
        code = codes.pop()
        yield from code.co_names
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
