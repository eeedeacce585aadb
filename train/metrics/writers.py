"""Metrics writer: flat dicts with slash-separated names to JSONL and TensorBoard.

`metrics.jsonl` contains no times, so that a resumed run writes the same bytes as an uninterrupted
one; names under `time/` and the wall time go to `timing.jsonl` beside it.
"""

import json
import os
import sys
import time
import zlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from elenchus.data.files import atomic, jsonl
from elenchus.train.metrics import tracking
from elenchus.train.metrics.event_files import EventFile
from elenchus.train.metrics.growing_files import GrowingFile, exists, read_lines

METRICS = 'metrics.jsonl'
TIMING = 'timing.jsonl'


class Writer:
    """Appends the metrics of one stage to its folder and to TensorBoard.

    After a restart call `truncate` first, with the restored step or with -1 to start over, so that
    no row is lost or written twice. Only the first process writes (`atomic.allow_writing`).
    """

    def __init__(
        self, folder: str | os.PathLike, *, tensorboard: str | os.PathLike, stage: str = ''
    ):
        """Prepares the files; `stage` is the name under which other trackers show the rows."""
        self._folder = atomic.absolute(folder)
        self._tensorboard = atomic.absolute(tensorboard)
        self._files = {name: GrowingFile(self._folder / name) for name in (METRICS, TIMING)}
        if atomic.may_write():
            self._folder.mkdir(parents=True, exist_ok=True)
        self._purge_step, self._written = None, [0, 0]
        self._stage, self._boards = stage, []

    @property
    def name(self) -> str:
        """Name of the stage's folder."""
        return self._folder.name

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one row of scalars; raises ValueError for a value that is not a scalar."""
        floats = {name: _scalar(name, values[name]) for name in sorted(values)}
        times = {n: v for n, v in floats.items() if n.startswith('time/')}
        others = {n: v for n, v in floats.items() if n not in times}
        if not atomic.may_write():
            return
        if others:
            line = _line({'step': int(step), **others})
            self._files[METRICS].append(line)
            self._count(line)
        self._files[TIMING].append(_line({'step': int(step), 'wall': time.time(), **times}))
        if not self._boards:
            board = EventFile(self._tensorboard, purge_step=self._purge_step)
            self._boards = [board, *tracking.of_stage(self._stage)]
        for tracker in self._boards:
            tracker.write(int(step), floats)

    def truncate(self, step: int) -> None:
        """Removes all rows after `step`, and an incomplete last line (of a killed process)."""
        if atomic.may_write():
            for name, file in self._files.items():
                if exists(self._folder / name):
                    rows = [row for row in read_rows(self._folder / name) if row['step'] <= step]
                    lines = [_line(row) for row in rows]
                    file.rewrite(lines)
                    if name == METRICS:
                        self._written = [0, 0]
                        self._count(*lines)
        self._purge_step = step + 1

    def written(self) -> list[int]:
        """Returns the number of rows of metrics.jsonl and their checksum, of a checkpoint here."""
        return list(self._written)

    def check(self, step: int, written: list[int]) -> None:
        """Warns if the rows that `truncate` has kept are not those `written` at a checkpoint."""
        if atomic.may_write() and self._written != written:
            print(
                f'warning: {self._folder / METRICS} has {self._written[0]} rows up to step {step}, '
                f'not the {written[0]} that the run wrote: its plots are incomplete, its weights '
                'are not concerned',
                file=sys.stderr,
            )

    def _count(self, *lines: str) -> None:
        for line in lines:
            rows, checksum = self._written
            self._written = [rows + 1, zlib.crc32(line.encode(), checksum)]

    def sync(self) -> None:
        """Makes the rows durable; called before a checkpoint that relies on them."""
        if atomic.may_write():
            for file in self._files.values():
                file.flush()

    def close(self) -> None:
        """Closes the files."""
        for tracker in self._boards:
            tracker.close()
        self._boards = []
        if atomic.may_write():
            for file in self._files.values():
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def append_timing(folder: str | os.PathLike, values: Mapping[str, float]) -> None:
    """Appends speeds of a whole stage to the timing.jsonl in its folder, as of step 0."""
    if atomic.may_write():
        file = GrowingFile(atomic.absolute(folder) / TIMING)
        file.append(_line({'step': 0, 'wall': time.time(), **values}))
        file.close()


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the rows of a JSONL file; skips a last line without newline (of a killed process)."""
    return [
        jsonl.at_place(f'{path}:{i}', jsonl.parse_object, line)
        for i, line in enumerate(read_lines(path), start=1)
    ]


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, separators=(',', ':')) + '\n'


def _scalar(name: str, value: Any) -> float:
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError(f'metric {name!r} has shape {array.shape}; a metric is one number')
    return float(array.reshape(()))


class Delayed:
    """Writes each step's metrics when the next step is pushed, so that the loop never waits.

    Flush before a checkpoint and at the end: a run restored from it then has every row.
    """

    def __init__(self, writer: Writer):
        self._writer = writer
        self._pending = None

    def push(self, step: int, values: Mapping[str, Any]) -> tuple[int, dict[str, float]] | None:
        """Takes device scalars of `step`; returns (step, floats) of the step before, or None."""
        for value in values.values():
            if hasattr(value, 'copy_to_host_async'):
                value.copy_to_host_async()
        written = self._write_pending()
        self._pending = int(step), dict(values)
        return written

    def flush(self) -> tuple[int, dict[str, float]] | None:
        """Writes the pending step; returns (step, floats), or None if nothing is pending.

        The rows are durable after it, so a checkpoint may follow.
        """
        written = self._write_pending()
        self._writer.sync()
        return written

    def written(self) -> list[int]:
        """Returns `Writer.written`; flush before."""
        return self._writer.written()

    def _write_pending(self) -> tuple[int, dict[str, float]] | None:
        if self._pending is None:
            return None
        step, values = self._pending
        self._pending = None
        floats = {name: _scalar(name, value) for name, value in values.items()}
        self._writer.write(step, floats)
        return step, floats
