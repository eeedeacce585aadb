"""A trace of a few steps of every stage, by jax.profiler, for TensorBoard or Perfetto.

    python -m scripts.run --config C --workdir W --profile
    xprof W/profile/03-critic          # or: tensorboard --logdir W/profile

A stage that trains is traced for a few training steps, one that samples for a few chunks of
decoding. The first ones are left out, because they compile.
"""

import os
import pathlib

import jax

FIRST, COUNT = 3, 3
"""Steps before the trace, and steps in it."""

_folder: pathlib.Path | None = None
_active = False


def turn_on(folder: str | os.PathLike) -> None:
    """Traces the stages that start from now on into subfolders of `folder`."""
    global _folder
    _folder = pathlib.Path(folder)


class StepTrace:
    """Traces steps FIRST + 1 to FIRST + COUNT of a loop; a context manager.

    Does nothing unless `turn_on` was called, or while another loop is being traced: JAX writes one
    trace at a time.
    """

    def __init__(self, name: str):
        self._name, self._steps, self._tracing = name, 0, False

    def __enter__(self) -> 'StepTrace':
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def tick(self) -> None:
        """Counts a step that has ended."""
        global _active
        self._steps += 1
        if self._steps == FIRST and _folder is not None and not _active:
            self._tracing = _active = True
            jax.profiler.start_trace(os.fspath(_folder / self._name))
        elif self._steps == FIRST + COUNT:
            self._stop()

    def _stop(self) -> None:
        global _active
        if self._tracing:
            self._tracing = _active = False
            jax.profiler.stop_trace()
