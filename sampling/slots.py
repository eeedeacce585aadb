"""Slots: fields of the config that name a function of an algorithm, built in or a user's own.

A field of the config that is a slot holds the name of a built-in function ('grpo') or says where
another one is: 'module:function', or 'FILE.py:function'. The field's type has the slot:

    outcome: Annotated[str, OUTCOMES]

Built-in functions and a user's are called in the same way. They get numbers, arrays and records,
and return numbers and arrays, so that a method need not import anything of ours. docs/extending.md
lists the slots. A run is not continued after the file of one of its functions has changed.
"""

import ast
import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
import pathlib
import sys
import types
from collections.abc import Callable, Mapping
from typing import NamedTuple

from elenchus.sampling.user_functions import NamedErrors, UserFunction, summary


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """A place that a function fills."""

    signature: str  # of the functions, for errors and documents
    functions: Mapping[str, Callable]  # the built-in ones, by name

    def find(self, reference: str, field: str) -> Callable:
        """Returns the function that `reference` names.

        One that is not built in is a UserFunction, the same for each call. Raises ValueError,
        naming the field, the nearest built-in name and what failed.
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
            function = load(reference).function
        except ValueError as error:
            raise ValueError(f'{field}={reference!r}: {error}') from None
        return _user_function(function, field, self.signature)

    def __getitem__(self, reference: str) -> Callable:
        return self.find(reference, 'function')


@functools.cache
def _user_function(function: Callable, field: str, signature: str) -> UserFunction:
    return UserFunction(function, field=field, signature=signature)


def without_folder(reference: str) -> str:
    """Returns 'FILE.py:function' without the folders of the file, and any other text as it is.

    A run whose files have moved is compared by their contents.
    """
    place, _, name = reference.rpartition(':')
    return f'{pathlib.PurePath(place).name}:{name}' if place.endswith('.py') else reference


class Loaded(NamedTuple):
    """A function of a user's, and what says whether it is still the same."""

    function: Callable
    source_hash: str  # sixteen hexadecimal digits; of its whole file but `get_config`


@functools.cache
def load(reference: str) -> Loaded:
    """Imports a function from 'module:function' or 'FILE.py:function'.

    The hash changes with anything in the file but comments, docstrings and the function
    `get_config`, whose config is compared by itself; other files that it imports count by name
    alone. Raises ValueError if there is no such file, module or function, or if importing it fails.
    """
    place, _, name = reference.rpartition(':')
    with NamedErrors(lambda error: f'{place} cannot be imported ({summary(error)})'):
        module = _load_file(place) if place.endswith('.py') else importlib.import_module(place)
    function = getattr(module, name, None)
    if not callable(function):
        names = [n for n, value in vars(module).items() if callable(value) and n[0] != '_']
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        nearest = f'; nearest: {close[0]!r}' if close else ''
        raise ValueError(f'{place} has no function {name!r}{nearest}')
    return Loaded(function, _source_hash(module))


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


def _source_hash(module: types.ModuleType) -> str:
    path = getattr(module, '__file__', None)
    is_source = path is not None and path.endswith('.py')
    tree = ast.parse(pathlib.Path(path).read_text(encoding='utf-8') if is_source else '')
    for node in ast.walk(tree):
        if isinstance(getattr(node, 'body', None), list):
            node.body = [child for child in node.body if not _says_nothing(child)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _says_nothing(node: ast.stmt) -> bool:
    """Returns whether a statement is a docstring or `get_config`."""
    if isinstance(node, ast.FunctionDef):
        return node.name == 'get_config'
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
