"""Where a loss or a gradient is no number: stop or skip, with the batch kept to look at."""

import io
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from data import json_files
from data.records import Batch

MOST_IN_A_ROW = 10
"""Skipped steps one after the other that end a run: it would not come back by itself."""


class FiniteGuard:
    """Looks at every step's `grads/finite`, one step late, so that the loop never waits."""

    def __init__(self, folder: pathlib.Path, policy: Literal['stop', 'skip']):
        self._folder, self._policy = folder, policy
        self._pending: tuple[int, Mapping[str, Any], Batch] | None = None
        self._in_a_row = 0

    def push(self, step: int, values: Mapping[str, Any], batch: Batch) -> None:
        """Takes a step's device scalars and host batch, and looks at the step before."""
        self.flush()
        self._pending = step, values, batch

    def flush(self) -> None:
        """Looks at what is pending.

        Raises FloatingPointError, naming the step and the file of its batch, where the policy is
        to stop or too many steps in a row were skipped; nothing of the step is saved then.
        """
        if self._pending is None:
            return
        (step, values, batch), self._pending = self._pending, None
        if float(np.asarray(values['grads/finite'])):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        path = self._folder / 'nonfinite' / f'step-{step:06d}.npz'
        content = io.BytesIO()
        np.savez_compressed(content, **batch._asdict())
        json_files.write_bytes(path, content.getvalue())
        loss, norm = (float(np.asarray(values[n])) for n in ('loss/total', 'grads/norm'))
        told = f'step {step}: loss {loss}, gradient norm {norm}; its batch is in {path}'
        if self._policy == 'stop':
            raise FloatingPointError(
                f"{told}; lower the learning rate in a new --workdir, or set train.nonfinite='skip'"
            )
        if self._in_a_row == MOST_IN_A_ROW:
            raise FloatingPointError(f'{told}; the {MOST_IN_A_ROW}th step in a row')
        print(f'warning: {told}; skipped', file=sys.stderr)
