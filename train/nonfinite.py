"""Where a loss or a gradient is no number: stop or skip, with the batch kept to look at."""

import io
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from elenchus.data.files import atomic
from elenchus.data.records import Batch

MOST_IN_A_ROW = 10
"""Skipped updates one after the other that end a run: it would not come back by itself."""


class FiniteGuard:
    """Looks at every update's `grads/finite`, one step late, so that the loop never waits."""

    def __init__(self, folder: pathlib.Path, policy: Literal['stop', 'skip']):
        self._folder, self._policy = folder, policy
        self._pending: tuple[int, Sequence[tuple[Mapping[str, Any], Batch]]] = (0, ())
        self._in_a_row = 0

    def push(self, step: int, updates: Sequence[tuple[Mapping[str, Any], Batch]]) -> None:
        """Takes the device scalars and host batches of a step, and looks at the step before."""
        self.flush()
        self._pending = step, updates

    def flush(self) -> None:
        """Looks at what is pending.

        Raises FloatingPointError, naming the step and the file of its batch, where the policy is
        to stop or too many updates in a row were skipped; nothing of the step is saved then.
        """
        (step, updates), self._pending = self._pending, (0, ())
        for number, (values, batch) in enumerate(updates):
            self._look(step, number, values, batch)

    def _look(self, step: int, number: int, values: Mapping[str, Any], batch: Batch) -> None:
        if float(np.asarray(values['grads/finite'])):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        path = self._folder / 'nonfinite' / f'step-{step:06d}-{number}.npz'
        content = io.BytesIO()
        np.savez_compressed(content, **batch._asdict())
        atomic.write_bytes(path, content.getvalue())
        loss, norm = (float(np.asarray(values[n])) for n in ('loss/total', 'grads/norm'))
        told = f'step {step}: loss {loss}, gradient norm {norm}; its batch is in {path}'
        if self._policy == 'stop':
            raise FloatingPointError(
                f"{told}; lower the learning rate in a new --workdir, or set train.nonfinite='skip'"
            )
        if self._in_a_row == MOST_IN_A_ROW:
            raise FloatingPointError(f'{told}; the {MOST_IN_A_ROW}th update in a row')
        print(f'warning: {told}; skipped', file=sys.stderr)
