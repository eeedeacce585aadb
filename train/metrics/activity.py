"""Accounts for the wall time of a run: seconds by kind, over all its starts.

Training and sampling call `mark(kind)` when a step, a chunk of decoding, a judgement or a save has
ended: the seconds since the mark before are of that kind.
"""

import collections
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from etils import epath

from elenchus.data.files import atomic
from elenchus.data.text.run_times import check_row, describe_times, read_rows

STATUS = 'status.json'
TIMING = 'timing.jsonl'
ROW = ('started', 'heartbeat', 'state', 'seconds')
COMPILE_EVENT = '/jax/core/compile/backend_compile_duration'
_LEAST_SLOW_S = 10.0  # a shorter step is never called slow
_LEAST_STEPS = 10  # whose median is worth comparing with

Kind = Literal['steps', 'sampling', 'judging', 'saving', 'restoring', 'compiling', 'other']


class Activity:
    """What this process does: seconds by kind, the steps of its stage, and its last progress."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self.seconds: dict[Kind, float] = collections.defaultdict(float)
        self.stage, self.state = '', 'opening'
        self.marks = 0
        self._durations = collections.defaultdict(lambda: collections.deque(maxlen=50))
        self._compiling = 0.0  # since the last mark
        self._last, self._last_kind = clock(), 'other'

    def mark(self, kind: Kind) -> None:
        """Counts the seconds since the last mark as of this kind, those of compiling apart.

        Where two threads work at once, the time goes to the one that has just ended something.
        """
        with self._lock:
            self._mark(kind)

    def _mark(self, kind: Kind) -> None:
        now = self._clock()
        elapsed, compiling = now - self._last, min(self._compiling, now - self._last)
        self.seconds[kind] += elapsed - compiling
        self.seconds['compiling'] += compiling
        if not compiling:
            self._durations[kind].append(elapsed)
        self._last, self._last_kind, self._compiling = now, kind, 0.0
        self.marks += 1

    def start_stage(self, name: str) -> None:
        """Begins another stage: its steps have another median."""
        self.mark('other')
        self.stage, self.state = name, 'running'
        self._durations.clear()

    def count_compiling(self, event: str, seconds: float, **_: Any) -> None:
        """Listener of JAX's durations."""
        if event == COMPILE_EVENT:
            self._compiling += seconds

    @property
    def idle(self) -> float:
        """Seconds since the last mark."""
        return self._clock() - self._last

    def slow_limit(self, factor: float) -> float | None:
        """Seconds after which the present step is slow; None while too few are known."""
        durations = list(self._durations[self._last_kind])
        if len(durations) < _LEAST_STEPS:
            return None
        # What comes next may be of another kind: an update after many chunks of decoding.
        longest = max(max(d) for d in list(self._durations.values()) if d)
        return max(_LEAST_SLOW_S, factor * statistics.median(durations), 2 * longest)


activity = Activity()
"""That of this process."""


def mark(kind: Kind) -> None:
    """Counts the seconds since the last mark of this process as of this kind."""
    activity.mark(kind)


def keep_unfinished(folder: os.PathLike) -> None:
    """Copies the times of the last start from status.json to timing.jsonl, once.

    So a killed start counts too, up to its last sign of life. A damaged status.json is ignored: the
    next start replaces it.
    """
    path = atomic.absolute(folder) / STATUS
    if not path.exists():
        return
    try:
        status = json.loads(path.read_text())
        if status.pop('kept', False):
            return
        row = check_row({name: status[name] for name in ROW})
    except (ValueError, LookupError, TypeError, AttributeError):
        return
    timing = path.with_name(TIMING)
    text = _read_timing(timing)
    end = '\n' if text and not text.endswith('\n') else ''  # of a row that was cut short
    atomic.write_text(timing, f'{text}{end}{json.dumps(row)}\n')
    atomic.write_text(path, json.dumps(status | {'kept': True}, indent=1) + '\n')


def goodput(folder: os.PathLike) -> str:
    """Returns the shares of all wall time since the run's first start, as one line of text."""
    rows = read_rows(_read_timing(atomic.absolute(folder) / TIMING))
    return describe_times(rows) if rows else 'not known: timing.jsonl is damaged'


def _read_timing(path: epath.Path) -> str:
    return path.read_bytes().decode(errors='replace') if path.exists() else ''
