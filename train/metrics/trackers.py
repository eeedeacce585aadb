"""Trackers: where the metrics and episodes of a run are shown beside its own files.

TensorBoard's files are written by this process (`event_files.py`). The library of any other tracker
runs in a process of its own: rows go through a queue and a pipe, and are dropped with one warning
where it fails, hangs or is too slow. metrics.jsonl has all of them.
"""

import collections
import contextlib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from elenchus.data.text.printable import printable
from elenchus.train.metrics.event_files import CLOSE_S, PENDING_BYTES, in_bins

Library = Literal['wandb', 'trackio']
EXTRAS = {'wandb': 'elenchus[wandb]', 'trackio': 'elenchus[trackio]'}
"""Library -> how it is installed."""
PROGRAM = pathlib.Path(__file__).with_name('tracker_process.py')
NUM_BINS = 30


class Tracker(Protocol):
    """Shows one stage of a run. No method raises if that fails; only `close` waits for it."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the scalars of a step."""

    def histogram(self, step: int, name: str, values: Sequence[float]) -> None:
        """Shows how values are distributed; those that are not finite are left out."""

    def text(self, step: int, name: str, text: str) -> None:
        """Shows a text as it is, without markup."""

    def close(self) -> None:
        """Ends the stage."""


class TrackerProcess:
    """A library in a process of its own, and the thread that feeds it."""

    def __init__(self, first: Mapping[str, Any]):
        """Starts the process; `first` says what to open (`tracker_process.serve`)."""
        self.library = first['library']
        self._pending: collections.deque[bytes] = collections.deque()
        self._size, self._warned = 0, False
        self._changed, self._closed = threading.Condition(), False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = self._start()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        if self._process is not None:
            self._thread.start()
            self.send(first)

    def send(self, message: Mapping[str, Any]) -> None:
        """Hands a message to the thread, or drops it if too many are waiting."""
        line = json.dumps(message).encode() + b'\n'
        with self._changed:
            if self._closed or self._warned:
                return
            if self._size + len(line) <= PENDING_BYTES:
                self._pending.append(line)
                self._size += len(line)
                self._changed.notify()
                return
        self._warn('too many rows are waiting')

    def stage(self, name: str) -> 'StageBoard':
        """Returns the tracker of a stage."""
        return StageBoard(self, name)

    def close(self, *, failed: bool) -> None:
        """Says how the run ended and waits `CLOSE_S` seconds for the process, then kills it."""
        if self._process is None:
            self._errors.close()
            return
        end = time.monotonic() + CLOSE_S
        self.send({'failed': failed})
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(CLOSE_S)
        try:
            code = self._process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._warn(f'it did not end within {CLOSE_S:g} s')
        else:
            if code:
                self._warn(self._last_error(code))
        self._thread.join(CLOSE_S)
        self._errors.close()

    def _start(self) -> subprocess.Popen | None:
        # The child finds the library where this process does.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        try:
            return subprocess.Popen(
                [sys.executable, '-P', os.fspath(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=self._errors,
                stderr=self._errors,
                env=os.environ | {'PYTHONPATH': paths},
                start_new_session=True,  # the signals of a terminal are for the run
            )
        except OSError as error:
            self._warn(str(error))
            return None

    def _feed(self) -> None:
        """The thread: writes what is pending into the pipe, which may take as long as it wants."""
        pipe = self._process.stdin
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                lines, self._size = b''.join(self._pending), 0
                self._pending.clear()
                is_last = self._closed
            try:
                pipe.write(lines)
                pipe.flush()
                if is_last:
                    pipe.close()
                    return
            except OSError:
                with contextlib.suppress(OSError):
                    pipe.close()
                self._warn(self._last_error(self._process.wait()))
                return

    def _last_error(self, code: int) -> str:
        """Returns the last line that the process printed, such as the end of a traceback."""
        with contextlib.suppress(OSError, ValueError):
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - 4096))
            lines = self._errors.read().decode(errors='replace').split('\n')
            if text := next((line.strip() for line in reversed(lines) if line.strip()), ''):
                return text
        return f'its process ended with exit code {code}'

    def _warn(self, text: str) -> None:
        with self._changed:
            warned, self._warned = self._warned, True
            self._pending.clear()
        if not warned:
            text = printable(' '.join(text.split())[:200])
            print(f'warning: {self.library} lacks rows ({text}); metrics.jsonl has them',
                  file=sys.stderr)  # fmt: skip


class StageBoard:
    """A stage in the process of a library."""

    def __init__(self, process: TrackerProcess, stage: str):
        self._process, self._stage = process, stage

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the scalars of a step; those that are not finite are left out."""
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        self._send(step, scalars=known)

    def histogram(self, step: int, name: str, values: Sequence[float]) -> None:
        """Shows how values are distributed."""
        known = in_bins(values)
        if known.size:
            counts, edges = np.histogram(known, NUM_BINS)
            self._send(step, name=name, histogram=[counts.tolist(), edges.tolist()])

    def text(self, step: int, name: str, text: str) -> None:
        """Shows a text as it is."""
        self._send(step, name=name, text=printable(text))

    def close(self) -> None:
        """Does nothing: the process is that of the whole run."""

    def _send(self, step: int, **content: Any) -> None:
        self._process.send({'stage': self._stage, 'step': int(step), **content})
