"""The hours of a run that several starts share, kept in its work directory; for `supervise.py`.

A cluster starts a workload again without the machine that submitted it, so the hours are counted
where the run is: a small object beside the work directory has the seconds of all starts so far.
"""

from __future__ import annotations

import contextlib
import math
import pathlib
import time
import typing


def _open(path: str) -> typing.Any:
    if not path.startswith('gs://'):
        return pathlib.Path(path)
    from etils import epath  # in the environment of the hosts, where supervise.py runs

    return epath.Path(path)


class Budget:
    """Seconds that a run may still take.

    Attributes:
        seconds: Of all starts together, infinity for no limit.
        before: Seconds of former starts.
    """

    def __init__(
        self,
        seconds: float = math.inf,
        path: str = '',
        *,
        clock: typing.Callable[[], float] = time.monotonic,
    ):
        self.seconds = seconds
        self.before = 0.0
        self._path = path
        self._clock = clock
        self._began = clock()
        if path:
            # No object yet, or a bucket that does not answer: it counts from this start.
            with contextlib.suppress(Exception):
                self.before = float(_open(path).read_text())

    def remaining(self) -> float:
        """Returns the seconds that remain, below 0 when it is spent."""
        return self.seconds - self.before - (self._clock() - self._began)

    def write(self) -> None:
        """Stores the seconds of all starts; a bucket that does not answer ends no run."""
        if self._path:
            with contextlib.suppress(Exception):
                path = _open(self._path)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f'{self.before + self._clock() - self._began:.0f}\n')
