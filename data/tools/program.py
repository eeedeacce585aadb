"""A stranger's program, run in this process for good: the process is confined first, then ends.

Standard library only. This is the one file that runs a text as Python; see docs/security.md.
"""

import ast
import builtins
import importlib.machinery
import io
import os
import random
import resource
import sys
import types
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from elenchus.data.tools import seccomp

RAISED = 3
"""Exit code of a program that ends with an exception."""

NOT_CONFINED = 70
"""Exit code of a process that could not be confined, so that no program ran in it."""

HAS_NOT = 'the sandbox has no files, network, other processes, threads or waiting'
_SHOWN = 500  # characters of an exception's message


class _Modules:
    """Finder behind those of built-in modules: what is not imported yet cannot be imported."""

    def __init__(self, names: Collection[str]):
        self._names = ', '.join(
            sorted(name for name in names if name[0] != '_' and '.' not in name)
        )

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Raises ModuleNotFoundError, with the names of modules that there are."""
        raise ModuleNotFoundError(f'no module {name!r} in the sandbox; it has {self._names}')


class _Errors:
    """Context manager that prints any exception of its body, for the model to read."""

    def __init__(self):
        self.has_raised = False

    def __enter__(self) -> '_Errors':
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> bool:
        if isinstance(error, SystemExit):
            if error.code is not None and not isinstance(error.code, int):  # a last word
                self.has_raised = True
                with _Ignored():
                    print(error.code)
        elif error is not None:
            self.has_raised = True
            _print_error(error, trace)
        return True


class _Ignored:
    """Context manager that ends its body at any exception."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_) -> bool:
        return True


def run(code: str, modules: Collection[str], *, limits: Mapping[int, int], parent: int) -> NoReturn:
    """Confines this process, runs a program and ends the process.

    What it prints goes to descriptor 1, as does the value of a last line that is an expression, and
    the line and the message of an exception. Descriptors 0 to 2 are set by the caller, and no other
    may be open. `limits` are the kernel's, by resource.
    """
    library = seccomp.libc()
    seccomp.die_with_parent(library, parent)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, 'r', closefd=False))
    raw = io.FileIO(1, 'w', closefd=False)
    sys.stdout = sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(raw), 'utf-8', 'backslashreplace', line_buffering=True
    )
    # What other finders would look for is on the disk.
    finders = (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter)
    sys.meta_path[:] = [*finders, _Modules(modules)]
    sys.path[:], sys.argv[:] = [], ['program']
    random.seed(0)
    builtins.exit = builtins.quit = sys.exit  # which `site` adds elsewhere
    with _Errors() as confining:
        for kind, most in limits.items():
            resource.setrlimit(kind, (most, most))
        seccomp.drop_capabilities(library)
        seccomp.install(library)
    if confining.has_raised:
        os._exit(NOT_CONFINED)
    with _Errors() as errors:
        _run_text(code)
    with _Errors() as closing:  # it may have closed its output
        sys.stdout.flush()
    os._exit(RAISED if errors.has_raised or closing.has_raised else 0)


def _run_text(code: str) -> None:
    names = {'__name__': '__main__', '__builtins__': builtins}
    tree = ast.parse(code, '<program>')
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, '<program>', 'exec'), names)  # noqa: S102
    if last is not None:
        tree = ast.Expression(last.value)
        value = eval(compile(tree, '<program>', 'eval'), names)  # noqa: S307
        if value is not None:
            print(repr(value))


def _print_error(error: BaseException, trace: types.TracebackType | None) -> None:
    """Prints line, kind and message of an exception."""
    line = getattr(error, 'lineno', None)
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == '<program>':
            line = trace.tb_lineno
        trace = trace.tb_next
    place, message = f'line {line}: ' if line else '', ''
    with _Ignored():  # its text is a function of the program's
        message = str(getattr(error, 'msg', None) or error)[:_SHOWN]
    print(f'{place}{type(error).__name__}: {message}' if message else place + type(error).__name__)
    is_thread = isinstance(error, RuntimeError) and 'start new thread' in message
    if is_thread or isinstance(error, PermissionError):
        print(f'refused: {HAS_NOT}')
