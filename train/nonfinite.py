"""Handling of NaN and infinite losses or gradients: stop or skip, and keep the batch on disk."""

import collections
import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from elenchus.data.files import atomic
from elenchus.data.records import Batch
from elenchus.train import watchdog

MAX_CONSECUTIVE_SKIPS = 10
"""Consecutive skipped updates of a state that end a run, which then does not recover by itself."""


class Update(NamedTuple):
    """An update of a trained state, such as a player or a value model."""

    metrics: Mapping[str, Any]  # device scalars
    batch: Batch  # on the host
    state: str = ''  # which one, where a step trains several


class FiniteGuard:
    """Checks `grads/finite` of every update, one step late, so that the loop never waits."""

    def __init__(self, folder: str | os.PathLike, policy: Literal['stop', 'skip']):
        self._folder, self._policy = atomic.absolute(folder), policy
        self._pending: tuple[int, Sequence[Update]] = (0, ())
        self._consecutive_skips = collections.Counter()  # by state

    def push(self, step: int, updates: Sequence[Update]) -> None:
        """Takes a step's updates; checks the step before."""
        self.flush()
        self._pending = step, updates

    def flush(self) -> None:
        """Checks the pending step.

        Raises FloatingPointError that names the step and the file of its batch if the policy is
        'stop', or if too many consecutive updates of one state were skipped. The step is not
        saved then.
        """
        (step, updates), self._pending = self._pending, (0, ())
        for number, (metrics, batch, state) in enumerate(updates):
            if float(np.asarray(metrics['grads/finite'])):
                self._consecutive_skips[state] = 0
            else:
                path = self._folder / 'nonfinite' / f'step-{step:06d}-{number}.npz'
                _write_batch(path, batch)
                loss, norm = (float(np.asarray(metrics[n])) for n in ('loss/total', 'grads/norm'))
                text = f'step {step}: loss {loss}, gradient norm {norm}; its batch is in {path}'
                if not np.isfinite(np.asarray(metrics.get('loss/weight', 0.0))):
                    text += (
                        '; weights of its tokens are not finite: check the function of `reweigh`'
                    )
                self._react(text, state)

    def _react(self, text: str, state: str) -> None:
        """Stops or warns, as the policy says."""
        self._consecutive_skips[state] += 1
        if self._consecutive_skips[state] == 1:
            watchdog.tell('nonfinite', text)
        if self._policy == 'stop':
            raise FloatingPointError(
                f"{text}; lower the learning rate in a new --workdir, or set train.nonfinite='skip'"
            )
        if self._consecutive_skips[state] == MAX_CONSECUTIVE_SKIPS:
            raise FloatingPointError(f'{text}; the {MAX_CONSECUTIVE_SKIPS}th update in a row')
        print(f'warning: {text}; skipped', file=sys.stderr)


def _write_batch(path: os.PathLike, batch: Batch) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, **batch._asdict())
    atomic.write_bytes(path, content.getvalue())
