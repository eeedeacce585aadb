"""Resumable training checkpoints: state and cursor in one atomic Orbax step, checked on restore."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from elenchus.data.files import atomic
from elenchus.data.text.printable import printable
from elenchus.train import distributed

DAMAGE_ERRORS = (ValueError, OSError, KeyError, TypeError, AttributeError, RecursionError)
"""Errors that Orbax and TensorStore raise if files are missing, truncated or changed."""


class Checkpointer:
    """Training checkpoints of one folder; each holds the state and a cursor (data position).

    Orbax writes a step into a temporary folder and renames it, so the folder holds complete steps
    only. Every step stores a fingerprint of the state, which `restore` compares: file formats
    detect missing bytes, but not every flipped bit.
    """

    def __init__(self, folder: str | os.PathLike, *, keep: int):
        policy = ocp.training.preservation_policies.LatestN(keep)
        self._folder = atomic.absolute(folder)
        self._checkpointer = ocp.training.Checkpointer(
            self._folder, preservation_policy=policy, cleanup_tmp_directories=True
        )

    def save(self, step: int, state: Any, cursor: dict[str, Any]) -> None:
        """Starts writing in the background; `cursor` is plain JSON."""
        content = {'cursor': cursor, 'fingerprint': distributed.fingerprint(state)}
        with system_errors(self._folder):
            self._checkpointer.save_checkpointables_async(
                step, {'state': state, 'cursor': content}, force=True, overwrite=True
            )

    def restore(self, state: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """Returns (step, state, cursor) of the newest intact checkpoint, or None.

        `state` gives shapes and shardings, of arrays or of ShapeDtypeStructs; the shardings may
        differ from the saved ones. A damaged checkpoint is reported on stderr and skipped.
        """
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        for checkpoint in reversed(self._checkpointer.checkpoints):
            loaded = self._load(checkpoint.step, abstract)
            if loaded is not None:
                return checkpoint.step, *loaded
        return None

    def _load(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]] | None:
        try:
            loaded = self._checkpointer.load_checkpointables(
                step, {'state': abstract, 'cursor': None}
            )
        except DAMAGE_ERRORS as error:
            fault = root_cause(error)
        else:
            content = loaded['cursor']
            if distributed.fingerprint(loaded['state']) == content['fingerprint']:
                return loaded['state'], content['cursor']
            fault = 'the arrays are not those saved'
        print(
            f'warning: checkpoint {step} in {self._folder} is damaged ({printable(fault)}); '
            'using the one before',
            file=sys.stderr,
        )
        return None

    def close(self) -> None:
        """Waits until everything is written."""
        with system_errors(self._folder):
            self._checkpointer.close()


@contextlib.contextmanager
def system_errors(folder: os.PathLike) -> Iterator[None]:
    """Converts TensorStore's ValueError of a failed system call to an OSError with its errno."""
    try:
        yield
    except ValueError as error:
        match = re.search(r"os_error_code='(\d+)'", str(error))
        if match is None:
            raise
        number = int(match[1])
        raise OSError(number, os.strerror(number), os.fspath(folder)) from None


def root_cause(error: BaseException) -> str:
    """Returns the message of an error's first cause, at most 160 characters in one line."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__
    return ' '.join(str(error).split())[:160]
