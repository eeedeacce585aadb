"""Metrics: a flat dict of slash names, written one step late, and progress on the terminal.

`metrics.jsonl` holds nothing of the clock, so that a resumed run writes it bit for bit the same;
names under `time/` and the wall time go to `timing.jsonl` beside it.
"""

import json
import os
import time
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import tensorboardX
from rich import console as rich_console
from rich import progress as rich_progress

from elenchus.data.files import atomic, jsonl

METRICS = 'metrics.jsonl'
TIMING = 'timing.jsonl'
PLAIN_INTERVAL = 10.0  # seconds between lines where no terminal shows a bar


class Writer:
    """Appends one stage's metrics to its folder and to TensorBoard.

    After a restart call `truncate` with the restored step first, or with -1 to start over: rows
    are then neither doubled nor lost. Nothing is written by a process that is not to write
    (`json_files.let_write`).
    """

    def __init__(self, folder: str | os.PathLike, *, tensorboard: str | os.PathLike):
        self._folder = atomic.absolute(folder)
        self._tensorboard = atomic.absolute(tensorboard)
        if atomic.may_write():
            self._folder.mkdir(parents=True, exist_ok=True)
        self._purge_step = None
        self._board = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one row of scalars by slash name. Raises ValueError for anything else."""
        floats = {name: _scalar(name, values[name]) for name in sorted(values)}
        times = {n: v for n, v in floats.items() if n.startswith('time/')}
        others = {n: v for n, v in floats.items() if n not in times}
        if not atomic.may_write():
            return
        if others:
            self._append(METRICS, {'step': int(step), **others})
        self._append(TIMING, {'step': int(step), 'wall': time.time(), **times})
        for name, value in floats.items():
            self._open_board().add_scalar(name, value, int(step))

    def truncate(self, step: int) -> None:
        """Drops every row after `step`, and a last line that a kill cut short."""
        for name in (METRICS, TIMING):
            path = self._folder / name
            if path.exists():
                kept = [row for row in read_rows(path) if row['step'] <= step]
                atomic.write_text(path, ''.join(_line(row) for row in kept))
        self._purge_step = step + 1

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _append(self, name: str, row: dict[str, Any]) -> None:
        path = self._folder / name
        if atomic.is_remote(path):  # where nothing can be appended to an object
            told = path.read_text() if path.exists() else ''
            atomic.write_text(path, told + _line(row))
            return
        with open(path, 'a', encoding='utf-8') as file:
            file.write(_line(row))

    def _open_board(self) -> tensorboardX.SummaryWriter:
        if self._board is None:
            self._board = tensorboardX.SummaryWriter(
                str(self._tensorboard), purge_step=self._purge_step
            )
        return self._board


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The whole rows of a JSONL file; a last line without its end is left out."""
    lines = atomic.absolute(path).read_text(encoding='utf-8').splitlines(keepends=True)
    return [
        jsonl.at_place(f'{path}:{i}', jsonl.parse_object, line)
        for i, line in enumerate(lines, start=1)
        if line.endswith('\n')
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

    Flush before a checkpoint and at the end: a run restored there then has every row.
    """

    def __init__(self, writer: Writer):
        self._writer = writer
        self._pending = None

    def push(self, step: int, values: Mapping[str, Any]) -> tuple[int, dict[str, float]] | None:
        """Takes device scalars of `step`; returns the step before with its floats, or None."""
        for value in values.values():
            if hasattr(value, 'copy_to_host_async'):
                value.copy_to_host_async()
        written = self.flush()
        self._pending = int(step), dict(values)
        return written

    def flush(self) -> tuple[int, dict[str, float]] | None:
        """Writes what is pending; returns its step and floats, or None."""
        if self._pending is None:
            return None
        step, values = self._pending
        self._pending = None
        floats = {name: _scalar(name, value) for name, value in values.items()}
        self._writer.write(step, floats)
        return step, floats


def progress(total: int | None, *, unit: str, description: str) -> 'Progress':
    """A bar with rate and time left; on anything but a terminal one plain line every ten seconds.

    `with progress(1000, unit='steps', description='actor') as bar: bar.advance(1, loss=0.5)`
    """
    console = rich_console.Console(stderr=True, quiet=not atomic.may_write())
    return Progress(total, unit=unit, description=description, console=console)


class Progress:
    """What `progress` returns; a context manager."""

    def __init__(
        self,
        total: int | None,
        *,
        unit: str,
        description: str,
        console: rich_console.Console,
        clock=time.monotonic,
    ):
        self._total, self._unit, self._description = total, unit, description
        self._console, self._clock = console, clock
        self._done, self._fields = 0, {}
        self._bar = self._make_bar() if console.is_terminal else None
        self._start = self._printed = clock()

    def __enter__(self) -> Self:
        self._start = self._printed = self._clock()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._description, total=self._total, text='')
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._print()

    def advance(self, count: int, **fields: Any) -> None:
        """Counts `count` units done; `fields` are shown beside the rate, the last value of each."""
        self._done += count
        self._fields |= fields
        if self._bar is not None:
            self._bar.update(self._task, advance=count, text=self._text())
        elif self._clock() - self._printed >= PLAIN_INTERVAL:
            self._print()

    def _make_bar(self) -> rich_progress.Progress:
        columns = (
            rich_progress.TextColumn('{task.description}'),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn('{task.fields[text]}'),
            rich_progress.TextColumn('eta'),
            rich_progress.TimeRemainingColumn(compact=True),
        )
        return rich_progress.Progress(*columns, console=self._console)

    def _rate(self) -> float:
        return self._done / max(self._clock() - self._start, 1e-9)

    def _text(self) -> str:
        fields = ' '.join(f'{name} {_short(value)}' for name, value in self._fields.items())
        return f'{_short(self._rate())} {self._unit}/s {fields}'.rstrip()

    def _print(self) -> None:
        self._printed = self._clock()
        of_total = '' if self._total is None else f'/{self._total}'
        line = f'{self._description} {self._done}{of_total} {self._unit}, {self._text()}'
        self._console.print(line + self._time(), highlight=False, markup=False, soft_wrap=True)

    def _time(self) -> str:
        if self._total is None or not 0 < self._done < self._total:
            return f', {self._clock() - self._start:.1f} s'
        return f', eta {(self._total - self._done) / self._rate():.0f} s'


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    number = float(value)
    return f'{number:,.0f}' if abs(number) >= 1000 else f'{number:.3g}'
