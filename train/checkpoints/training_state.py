"""Resumable training checkpoints: state and cursor in one atomic Orbax step, checked on restore."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, Self

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from elenchus.data.files import atomic
from elenchus.data.files.failures import is_bucket_failure, named_errors
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
        self._folder, self._is_closed = atomic.absolute(folder), False
        self._checkpointer = ocp.training.Checkpointer(
            self._folder, preservation_policy=policy, cleanup_tmp_directories=True
        )
        self._saving = None  # Orbax's response to the newest save
        self._newest = None

    @property
    def newest(self) -> int | None:
        """Step that was saved or restored last; None before that."""
        return self._newest

    def save(self, step: int, state: Any, cursor: dict[str, Any]) -> None:
        """Starts writing in the background; `cursor` is plain JSON.

        Waits for the save before: an Orbax response whose result is never read keeps an event loop
        open, which is three file descriptors.
        """
        content = {'cursor': cursor, 'fingerprint': distributed.fingerprint(state)}
        self._finish()
        self._newest = step
        with named_errors(self._folder):
            self._saving = self._checkpointer.save_checkpointables_async(
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
                self._newest = checkpoint.step
                return checkpoint.step, *loaded
        return None

    def _load(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]] | None:
        try:
            loaded = self._checkpointer.load_checkpointables(
                step, {'state': abstract, 'cursor': None}
            )
        except DAMAGE_ERRORS as error:
            fault = root_cause(error)
            if any(is_bucket_failure(str(cause)) for cause in causes(error)):
                # Nobody knows what is there; it is no damage.
                raise OSError(errno.EIO, fault, os.fspath(self._folder)) from error
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
        if not self._is_closed:
            self._is_closed = True
            self._finish()
            with named_errors(self._folder):
                self._checkpointer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace) -> None:
        """After an exception waits for a save in progress, or the next start would meet it."""
        if error is not None:
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # the first one counts
                self.close()

    def _finish(self) -> None:
        saving, self._saving = self._saving, None
        if saving is not None:
            with named_errors(self._folder):
                saving.result()


def delete_oldest(folder: epath.Path, *, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints of a folder; with 0 the folder too.

    Call it only when nothing writes to the folder any more.
    """
    if not keep:
        atomic.delete_tree(folder)
    elif folder.exists():
        steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        for step in steps[:-keep]:
            atomic.delete_tree(folder / str(step))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error, and what caused it; the first cause comes last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def root_cause(error: BaseException) -> str:
    """Returns the message of an error's first cause, at most 160 characters in one line."""
    *_, first = causes(error)
    return ' '.join(str(first).split())[:160]
