"""Calls user functions; an error in one becomes one line with field, function, file and line."""

import functools
import inspect
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from elenchus.model.ranges import show

SHOWN = 8
"""Elements up to which an array is shown with its values."""


class UserFunction:
    """Wraps a function that a config field names; calls and attributes pass through.

    Raises ValueError, naming field, function and place, for whatever is raised inside. An attribute
    that is a function, such as `update` of an advantage function, is wrapped too.
    """

    def __init__(self, function: Callable, *, field: str, signature: str):
        self.function, self.field, self.signature = function, field, signature

    def __call__(self, *args, **kwargs):
        with NamedErrors(self._message):
            returned = self.function(*args, **kwargs)
            # What a generator raises belongs to the function, too.
            return list(returned) if isinstance(returned, Iterator) else returned

    def _message(self, error: Exception) -> str:
        path, line = location(self.function)
        frames = traceback.walk_tb(error.__traceback__)
        lines = [number for frame, number in frames if frame.f_code.co_filename == path]
        place = f'{path}:{lines[-1] if lines else line}'
        called = '' if lines else f'; it is called as {self.signature}'
        return f'{self.field}: {name_of(self.function)} ({place}) raised {summary(error)}{called}'

    def __getattr__(self, name: str) -> Any:
        function = self.__dict__['function']
        while not hasattr(function, name) and isinstance(function, functools.partial):
            function = function.func
        value = getattr(function, name)
        if name.startswith('_') or not isinstance(value, Callable):
            return value
        return UserFunction(value, field=self.field, signature=f'`{name}` of {self.signature}')


class NamedErrors:
    """Context manager that makes any exception of its body a ValueError: message(exception)."""

    def __init__(self, message: Callable[[Exception], str]):
        self._message = message

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace) -> None:
        # Not a request to stop (KeyboardInterrupt); but a function must not end the run.
        if isinstance(error, Exception | SystemExit):
            raise ValueError(self._message(error)) from error


def refuse(function: Callable, returned: Any, wanted: str, *, field: str) -> NoReturn:
    """Raises ValueError: a function of `field` returned what it may not. `wanted` ends the line."""
    inner = getattr(function, 'function', function)
    path, line = location(inner)
    raise ValueError(
        f'{getattr(function, "field", field)}: {name_of(inner)} ({path}:{line}) returned '
        f'{describe(returned)}; it must return {wanted}'
    )


def as_floats(returned: Any, dtype: type = np.float32) -> np.ndarray:
    """Returns numbers as an array, None as NaN. Raises TypeError or ValueError for anything else.

    NumPy alone would also read numbers out of texts, and drop imaginary parts.
    """
    array = np.asarray(returned)
    texts = array.dtype == object and any(isinstance(x, str | bytes) for x in array.ravel())
    if array.dtype.kind not in 'fiubO' and array.dtype.name != 'bfloat16' or texts:
        raise TypeError(f'{describe(returned)} has no numbers')
    return np.asarray(returned, dtype)


def as_float(returned: Any) -> float:
    """Returns one number. Raises TypeError or ValueError for anything else."""
    value = as_floats(returned, np.float64)
    if value.shape:
        raise TypeError(f'{describe(returned)} is no single number')
    return value.item()


def name_of(function: Callable) -> str:
    """Returns the name of a function, of what a partial calls, or of an instance's class."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, '__name__', type(function).__name__)


def location(function: Callable) -> tuple[str, int]:
    """Returns file and first line of a function; ('built in', 0) for one that is not in Python."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    code = getattr(function, '__code__', None)
    if not isinstance(code, types.CodeType):  # an instance with a method of this name
        code = getattr(vars(type(function)).get('__call__'), '__code__', None)
    if not isinstance(code, types.CodeType):
        return 'built in', 0
    return code.co_filename, code.co_firstlineno


def summary(error: Exception) -> str:
    """Returns type and text of an exception as one short line."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text[:200]}' if text else type(error).__name__


def describe(value: Any) -> str:
    """Returns a value as one short line: of arrays the type and shape, and what is not finite."""
    if not hasattr(value, 'shape') or not hasattr(value, 'dtype'):
        return show(value)
    text = f'an array {value.dtype}{list(value.shape)}'
    if not isinstance(value, np.ndarray) or value.dtype.kind not in 'fiub':
        return text
    if value.size <= SHOWN:
        return f'{text} {value.tolist()}'
    bad = np.argwhere(~np.isfinite(value))
    return f'{text}, {value[tuple(bad[0])]} at {bad[0].tolist()}' if len(bad) else text
