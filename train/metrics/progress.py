"""Progress on stderr: a bar on a terminal, otherwise one plain line every ten seconds.

Rate and time left are measured over the last minute, or the last two advances if these take longer.
They leave out the steps that an earlier start has done, and the first advance, which compiles.
"""

import collections
import math
import sys
import time
from collections.abc import Mapping
from typing import Any, Self

from rich import cells
from rich import console as rich_console
from rich import file_proxy as rich_file_proxy
from rich import progress as rich_progress

from elenchus.data.files import atomic
from elenchus.data.text.printable import printable
from elenchus.train import output

PLAIN_INTERVAL = 10.0  # seconds between lines if stderr is not a terminal
SHOW_INTERVAL = 2.0  # seconds between calls of `show` that are worth their time
WINDOW = 60.0  # seconds over which the rate is measured
BAR_COLUMNS = 100  # width of a terminal from which on there is a bar
BAR_WIDTH = 24
FIGURES = {'loss/total': 'loss', 'reward/mean': 'reward', 'reward/correct': 'right'}
"""Metric -> what progress calls it."""

_displayed: list['Progress'] = []  # innermost last


def show(**fields: Any) -> None:
    """Shows values in the innermost display, without advancing it; does nothing without one.

    The sampler calls it, because it does not know the display that it works under.
    """
    if _displayed:
        _displayed[-1].advance(0, **fields)


def status() -> dict[str, Any]:
    """Returns what the innermost display shows: what is done, of how much, and its rate."""
    displayed = list(_displayed)  # a thread asks
    return displayed[-1].status() if displayed else {}


def progress(total: int | None, *, unit: str, description: str) -> 'Progress':
    """Returns a progress display with rate and remaining time; only the first process prints.

    >>> with progress(1000, unit='steps', description='actor') as bar:
    ...     bar.advance(1, loss=0.5)
    """
    file = output.terminal(sys.stderr)
    console = rich_console.Console(file=file, quiet=not atomic.may_write())
    return Progress(total, unit=unit, description=description, console=console)


class Progress:
    """Progress display of `total` units; a context manager. Create it with `progress`."""

    def __init__(
        self,
        total: int | None,
        *,
        unit: str,
        description: str,
        console: rich_console.Console,
        clock=time.monotonic,
    ):
        self._total, self._unit, self._description = total, unit, printable(description)
        self._console, self._clock = console, clock
        self._done, self._fields = 0, {}
        self._marks: collections.deque[tuple[float, int]] = collections.deque()  # (time, done)
        self._bar = self._make_bar() if console.is_terminal else None
        self._start_clock()

    def __enter__(self) -> Self:
        self._start_clock()
        _displayed.append(self)
        if self._bar is not None:
            self._bar.start()
            self._guard_prints()
            self._task = self._bar.add_task(self._description, total=self._total, **self._texts())
        return self

    def __exit__(self, *_) -> None:
        _displayed.remove(self)
        if self._bar is not None:
            self._bar.stop()
        else:
            self._print()

    def skip(self, count: int) -> None:
        """Adds `count` units that an earlier start has done: they say nothing of the rate."""
        self._done += count
        self._marks = collections.deque((when, done + count) for when, done in self._marks)
        if self._bar is not None:
            self._bar.update(self._task, advance=count, **self._texts())

    def advance(self, count: int, **fields: Any) -> None:
        """Adds `count` units; the last value of each of `fields` is printed beside the rate."""
        self._done += count
        self._fields |= fields
        if count:
            self._mark()
        if self._bar is not None:
            self._bar.update(self._task, advance=count, **self._texts())
        elif self._clock() - self._printed >= PLAIN_INTERVAL:
            self._print()

    def status(self) -> dict[str, Any]:
        """Returns the figures of the display as plain JSON."""
        eta, fields = self._eta(), dict(self._fields)
        return {
            'description': self._description,
            'step': self._done,
            'steps': self._total,
            'unit': self._unit,
            'rate': round(self._rate(), 4),
            'eta_s': None if eta is None else round(eta, 1),
            'figures': {printable(n): _json(value) for n, value in fields.items()},
        }

    def _start_clock(self) -> None:
        self._start = self._printed = self._clock()
        self._marks.clear()
        self._marks.append((self._start, self._done))

    def _mark(self) -> None:
        now, marks = self._clock(), self._marks
        marks.append((now, self._done))
        if len(marks) == 4 and marks[0][0] == self._start:
            marks.popleft()
        while len(marks) > 3 and marks[1][0] <= now - WINDOW:
            marks.popleft()

    def _make_bar(self) -> rich_progress.Progress:
        columns = [
            rich_progress.TextColumn('{task.fields[title]}', markup=False),
            rich_progress.TextColumn('{task.fields[text]}', markup=False),
        ]
        if self._console.width >= BAR_COLUMNS:
            columns.insert(1, rich_progress.BarColumn(bar_width=BAR_WIDTH))
        return rich_progress.Progress(*columns, console=self._console)

    def _guard_prints(self) -> None:
        """Makes what is printed above the bar printable: rich puts it on the console itself."""
        for name in ('stdout', 'stderr'):
            if isinstance(stream := getattr(sys, name), rich_file_proxy.FileProxy):
                setattr(sys, name, output.Printable(stream))

    def _rate(self) -> float:
        (start, before), (end, done) = self._marks[0], self._marks[-1]
        if end == start:  # no unit is done yet
            return 0.0
        return (done - before) / max(end - start, 1e-9)

    def _eta(self) -> float | None:
        """Seconds that the rest takes; None if that is not known."""
        rate = self._rate()
        if self._total is None or rate <= 0:
            return None
        since = self._clock() - self._marks[-1][0]
        return max(0.0, (self._total - self._done) / rate - since)

    def _texts(self) -> dict[str, str]:
        """Returns what stands beside a bar, the most important first, cut to the terminal."""
        eta, width = self._eta(), self._console.width
        of_total = '' if self._total is None else f'/{self._total}'
        rest = [] if eta is None else [f'eta {show_seconds(eta)}']
        title = _cut(' '.join(self._description.split()), max(1, width // 3))
        bar = BAR_WIDTH + 1 if width >= BAR_COLUMNS else 0
        text = ', '.join([f'{self._done}{of_total}', *rest, self._text()])
        return {'title': title, 'text': _cut(text, max(1, width - bar - cells.cell_len(title) - 1))}

    def _text(self) -> str:
        fields = (f'{name} {_short(value)}' for name, value in self._fields.items())
        return ', '.join([f'{_short(self._rate())} {self._unit}/s', *fields])

    def _print(self) -> None:
        self._printed = self._clock()
        of_total = '' if self._total is None else f'/{self._total}'
        line = f'{self._description} {self._done}{of_total} {self._unit}, {self._text()}'
        style = {'highlight': False, 'markup': False, 'emoji': False}
        self._console.print(line + self._time(), soft_wrap=True, **style)

    def _time(self) -> str:
        eta = self._eta()
        if eta is None or self._done >= self._total:
            return f', {self._clock() - self._start:.1f} s'
        return f', eta {eta:.0f} s'


def figures_of(row: Mapping[str, float]) -> dict[str, float]:
    """Returns what progress shows of a row of metrics: loss, reward, share of right answers.

    With two players their names stand in the names, as in `reward/actor/mean`.
    """
    shown = {}
    for name, value in row.items():
        group, _, rest = name.partition('/')
        player, _, last = rest.rpartition('/')
        if title := FIGURES.get(f'{group}/{last}'):
            shown[f'{player} {title}'.strip()] = value
    return shown


def show_seconds(seconds: float) -> str:
    """Returns a duration in the two largest of its units, such as 1 h 03 min, 2 min 05 s or 8 s."""
    whole = round(seconds)
    for unit, size, smaller, part in (('d', 86400, 'h', 3600), ('h', 3600, 'min', 60)):
        if whole >= size:
            return f'{whole // size} {unit} {whole % size // part:02d} {smaller}'
    return f'{whole // 60} min {whole % 60:02d} s' if whole >= 60 else f'{whole} s'


def _cut(text: str, width: int) -> str:
    """Cuts a text to the columns of a terminal that it may take."""
    return text if cells.cell_len(text) <= width else cells.set_cell_size(text, width - 1) + '…'


def _short(value: Any) -> str:
    if isinstance(value, str):
        return printable(value)
    number = float(value)
    return f'{number:,.0f}' if abs(number) >= 1000 else f'{number:.3g}'


def _json(value: Any) -> float | str | None:
    """Returns a figure as JSON has it: NaN and infinite numbers are unknown there."""
    if isinstance(value, str):
        return printable(value)
    return float(f'{float(value):.6g}') if math.isfinite(value) else None
