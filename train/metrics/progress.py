"""Progress on stderr: a bar on a terminal, otherwise one plain line every ten seconds."""

import sys
import time
from typing import Any, Self

from rich import console as rich_console
from rich import file_proxy as rich_file_proxy
from rich import progress as rich_progress

from elenchus.data.files import atomic
from elenchus.data.text.printable import printable
from elenchus.train import output

PLAIN_INTERVAL = 10.0  # seconds between lines if stderr is not a terminal
SHOW_INTERVAL = 2.0  # seconds between calls of `show` that are worth their time

_displayed: list['Progress'] = []  # innermost last


def show(**fields: Any) -> None:
    """Shows values in the innermost display, which has not advanced; nothing if there is none.

    What samples calls it, and does not know of which display it is a part.
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
        self._bar = self._make_bar() if console.is_terminal else None
        self._start = self._printed = clock()

    def __enter__(self) -> Self:
        self._start = self._printed = self._clock()
        _displayed.append(self)
        if self._bar is not None:
            self._bar.start()
            self._guard_prints()
            self._task = self._bar.add_task(self._description, total=self._total, text='')
        return self

    def __exit__(self, *_) -> None:
        _displayed.remove(self)
        if self._bar is not None:
            self._bar.stop()
        else:
            self._print()

    def advance(self, count: int, **fields: Any) -> None:
        """Adds `count` units; the last value of each of `fields` is printed beside the rate."""
        self._done += count
        self._fields |= fields
        if self._bar is not None:
            self._bar.update(self._task, advance=count, text=self._text())
        elif self._clock() - self._printed >= PLAIN_INTERVAL:
            self._print()

    def status(self) -> dict[str, Any]:
        """Returns the figures of the display as plain JSON."""
        return {
            'description': self._description,
            'step': self._done,
            'steps': self._total,
            'unit': self._unit,
            'rate': round(self._rate(), 4),
        }

    def _make_bar(self) -> rich_progress.Progress:
        columns = (
            rich_progress.TextColumn('{task.description}', markup=False),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn('{task.fields[text]}', markup=False),
            rich_progress.TextColumn('eta'),
            rich_progress.TimeRemainingColumn(compact=True),
        )
        return rich_progress.Progress(*columns, console=self._console)

    def _guard_prints(self) -> None:
        """Makes what is printed above the bar printable: rich puts it on the console itself."""
        for name in ('stdout', 'stderr'):
            if isinstance(stream := getattr(sys, name), rich_file_proxy.FileProxy):
                setattr(sys, name, output.Printable(stream))

    def _rate(self) -> float:
        return self._done / max(self._clock() - self._start, 1e-9)

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
        if self._total is None or not 0 < self._done < self._total:
            return f', {self._clock() - self._start:.1f} s'
        return f', eta {(self._total - self._done) / self._rate():.0f} s'


def _short(value: Any) -> str:
    if isinstance(value, str):
        return printable(value)
    number = float(value)
    return f'{number:,.0f}' if abs(number) >= 1000 else f'{number:.3g}'
