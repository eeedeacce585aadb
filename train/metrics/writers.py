"""Metrics writer: flat dicts with slash-separated names to JSONL and TensorBoard.

`metrics.jsonl` contains no times, so that a resumed run writes the same bytes as an uninterrupted
one; names under `time/` and the wall time go to `timing.jsonl` beside it.
"""

import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import tensorboardX

from elenchus.data.files import atomic, jsonl

METRICS = 'metrics.jsonl'
TIMING = 'timing.jsonl'


class Writer:
    """Appends the metrics of one stage to its folder and to TensorBoard.

    After a restart call `truncate` first, with the restored step or with -1 to start over, so that
    no row is lost or written twice. Only the first process writes (`json_files.let_write`).
    """

    def __init__(self, folder: str | os.PathLike, *, tensorboard: str | os.PathLike):
        self._folder = atomic.absolute(folder)
        self._tensorboard = atomic.absolute(tensorboard)
        if atomic.may_write():
            self._folder.mkdir(parents=True, exist_ok=True)
        self._purge_step = None
        self._board = None

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
            _append(self._folder / METRICS, {'step': int(step), **others})
        _append(self._folder / TIMING, {'step': int(step), 'wall': time.time(), **times})
        for name, value in floats.items():
            self._open_board().add_scalar(name, value, int(step))

    def truncate(self, step: int) -> None:
        """Removes all rows after `step`, and an incomplete last line (of a killed process)."""
        for name in (METRICS, TIMING):
            path = self._folder / name
            if path.exists():
                rows = [row for row in read_rows(path) if row['step'] <= step]
                atomic.write_text(path, ''.join(_line(row) for row in rows))
        self._purge_step = step + 1

    def close(self) -> None:
        """Closes the TensorBoard file."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _open_board(self) -> tensorboardX.SummaryWriter:
        if self._board is None:
            self._board = tensorboardX.SummaryWriter(
                str(self._tensorboard), purge_step=self._purge_step
            )
        return self._board


def append_timing(folder: str | os.PathLike, values: Mapping[str, float]) -> None:
    """Appends speeds of a whole stage to the timing.jsonl in its folder, as of step 0."""
    if atomic.may_write():
        _append(atomic.absolute(folder) / TIMING, {'step': 0, 'wall': time.time(), **values})


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the rows of a JSONL file; skips a last line without newline (of a killed process)."""
    lines = atomic.absolute(path).read_text(encoding='utf-8').splitlines(keepends=True)
    return [
        jsonl.at_place(f'{path}:{i}', jsonl.parse_object, line)
        for i, line in enumerate(lines, start=1)
        if line.endswith('\n')
    ]


def _append(path: pathlib.Path, row: dict[str, Any]) -> None:
    if atomic.is_remote(path):  # objects in a bucket cannot be appended to
        content = path.read_text() if path.exists() else ''
        atomic.write_text(path, content + _line(row))
        return
    with open(path, 'a', encoding='utf-8') as file:
        file.write(_line(row))


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
        written = self.flush()
        self._pending = int(step), dict(values)
        return written

    def flush(self) -> tuple[int, dict[str, float]] | None:
        """Writes the pending step; returns (step, floats), or None if nothing is pending."""
        if self._pending is None:
            return None
        step, values = self._pending
        self._pending = None
        floats = {name: _scalar(name, value) for name, value in values.items()}
        self._writer.write(step, floats)
        return step, floats
