"""Calls of programs: run at once, or only compiled for a machine that need not be present.

`Engine.warm_up` runs its programs through a Call. With `execute` they run, so that nothing compiles
later; the dry run passes one that compiles the same calls (train/planning/compiled.py).
"""

from typing import Any, Protocol


class Call(Protocol):
    """Runs, or compiles, a program: a function with a method `lower`, such as `jax.jit` makes."""

    def __call__(self, name: str, function, /, *args, **kwargs) -> Any:
        """Returns function(*args, **kwargs), or the shapes and shardings of that."""


def execute(name: str, function, /, *args, **kwargs) -> Any:
    """Runs a program; the name is for other kinds of `Call`."""
    return function(*args, **kwargs)
