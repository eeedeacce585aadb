"""Shows a run in the terminal, once or until it ends; without a terminal, line by line."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from etils import epath
from rich import console as rich_console
from rich import live as rich_live
from rich import text as rich_text

from elenchus.data.files import atomic, failures
from elenchus.data.text.printable import printable
from elenchus.train import output
from elenchus.train.metrics.progress import show_seconds
from elenchus.train.report import run_view
from elenchus.train.report.run_view import RunView, StageView

LOCAL_S, REMOTE_S = 2.0, 15.0  # between two looks at a disk, and at a bucket
LINE_S = 10.0  # between two lines without a terminal
MAX_WARNINGS = 5
COLOURS = {
    'done': 'green',
    'running': 'cyan',
    'opening': 'cyan',
    'stopping': 'yellow',
    'begun': 'cyan',
    'silent': 'red',
    'killed': 'red',
    'failed': 'red',
    'preempted': 'yellow',
}
NOTES = {
    'not begun': 'there is nothing of a run here yet',
    'opening': 'it reads its inputs and compiles',
    'killed': 'its process is gone; the same command continues it',
    'silent': 'it was probably killed, or its host hangs',
    'preempted': 'it was asked to stop; the same command continues it',
    'unknown': 'no sign of its process; the same command continues it',
}
EXIT_CODES = {'done': 0, 'preempted': 75}
"""State in which a run ended -> exit code of who watches it to its end; 1 for others."""

Line = tuple[str, str]
"""Style and text."""


def describe(view: RunView) -> list[Line]:
    """Returns the lines about a run; the first one alone says how it is."""
    lines = [(f'bold {COLOURS.get(view.state, "")}'.strip(), head_line(view))]
    width = max([len(stage.name) for stage in view.stages], default=0)
    for stage in view.stages:
        own = progress_text(view.progress) if stage.state == 'running' else ''
        text = f'  {stage.state:8}{stage.name:{width}}  {own or _stage_text(stage)}'
        lines.append((COLOURS.get(stage.state, 'dim'), text.rstrip()))
    if not view.has_ended and not any(stage.state == 'running' for stage in view.stages):
        lines += [('', f'  {text}') for text in [progress_text(view.progress)] if text]
    figures = view.progress.get('figures') or {}
    if view.has_ended and figures:
        lines.append(('', f'  last figures: {_figures(figures)}'))
    lines += [('yellow', text) for text in view.hosts]
    if view.where and not view.has_ended:
        lines.append(('dim', f'at {view.where}'))
    if view.warnings:
        lines.append(('yellow', f'{_count_warnings(view)}, newest last:'))
        lines += [('yellow', f'  {text}') for text in view.warnings[-MAX_WARNINGS:]]
    if view.times:
        lines.append(('dim', f'time: {view.times}'))
    return [(style, _one_line(text)) for style, text in lines]


def head_line(view: RunView) -> str:
    """Returns folder, state, owner and last sign of life of a run."""
    parts = [f'{view.workdir}: {view.state}']
    if note := NOTES.get(view.state):
        parts.append(note)
    owner = view.owner
    if owner:
        by = f' by {owner["user"]}' if 'user' in owner else ''
        since = f' since {owner["since"]}' if 'since' in owner else ''
        parts.append(f'process {owner.get("process", "?")} on {owner.get("host", "?")}{by}{since}')
    if not view.has_ended and view.age is not None:
        if view.idle is not None:
            parts.append(f'last progress {show_seconds(view.idle + view.age)} ago')
        parts.append(f'last sign of life {show_seconds(view.age)} ago')
    return ', '.join(parts)


def compact_line(view: RunView) -> str:
    """Returns a run in one line: how far it is, what it is at, and whether it has warnings."""
    done = sum(stage.state == 'done' for stage in view.stages)
    parts = [f'{view.workdir}: {view.state}']
    if view.stages:
        parts.append(f'{done} of {len(view.stages)} stages')
    current = next((s for s in view.stages if s.state in ('running', 'begun', 'failed')), None)
    if current:
        parts.append(current.name)
    text = progress_text(view.progress)
    if not view.has_ended and text:
        parts.append(text)
    elif view.stages and view.stages[-1].state == 'done':
        parts.append(_stage_text(view.stages[-1]))
    parts.append(_count_warnings(view) if view.warnings else '')
    return _one_line(', '.join(part for part in parts if part))


def progress_text(progress: Mapping[str, Any]) -> str:
    """Returns what is done, of how much, the rate, the time left and the last figures."""
    parts = []
    if progress.get('unit'):
        total = f'/{progress["steps"]}' if progress.get('steps') else ''
        parts.append(f'{progress.get("description", "")} {progress.get("step", "?")}{total} '
                     f'{progress["unit"]}'.strip())  # fmt: skip
        if progress.get('rate'):
            parts.append(f'{progress["rate"]:.3g} {progress["unit"]}/s')
        if isinstance(progress.get('eta_s'), (int, float)):
            parts.append(f'eta {show_seconds(progress["eta_s"])}')
    if figures := progress.get('figures'):
        parts.append(_figures(figures))
    return ', '.join(parts)


def _count_warnings(view: RunView) -> str:
    count = len(view.warnings)
    return f'{count} warning{"s" * (count != 1)}'


def _one_line(text: str) -> str:
    return printable(text).replace('\n', ' ').replace('\t', ' ')


def _stage_text(stage: StageView) -> str:
    parts = [] if stage.seconds is None else [show_seconds(stage.seconds)]
    shares = {n: v for n, v in stage.figures.items() if n != 'loss'}
    parts += [f'{name} {100 * value:.1f} %' for name, value in shares.items()]
    if 'loss' in stage.figures:
        parts.append(f'loss {stage.figures["loss"]:.3g}')
    return ', '.join(parts)


def _figures(figures: Mapping[str, Any]) -> str:
    shown = {n: v for n, v in figures.items() if isinstance(v, (int, float, str))}
    return ', '.join(
        f'{name} {value:.4g}' if not isinstance(value, str) else f'{name} {value}'
        for name, value in shown.items()
    )


def print_once(workdir: epath.Path, stream: TextIO) -> None:
    """Prints a run, or a line for each run in a folder of runs."""
    console = _console(stream)
    for style, text in lines_of(workdir):
        console.print(rich_text.Text(text, style), soft_wrap=not console.is_terminal)


def lines_of(workdir: epath.Path) -> list[Line]:
    """Returns what there is to say of a run, or of the runs in a folder."""
    view = run_view.read_view(workdir, now=time.time())
    below = run_view.runs_below(workdir) if view.state == 'not begun' else []
    if not below:
        return describe(view)
    views = [run_view.read_view(path, now=time.time()) for path in below]
    return [(COLOURS.get(view.state, ''), compact_line(view)) for view in views]


def follow(
    workdir: epath.Path, stream: TextIO, *, wait: Callable[[float], None] = time.sleep
) -> int:
    """Shows a run until it ends; returns the exit code that says how (`EXIT_CODES`)."""
    console = _console(stream)
    show = _show_live if console.is_terminal else _show_lines
    return show(console, _looks(workdir, wait))


def _looks(workdir: epath.Path, wait: Callable[[float], None]) -> Iterator[RunView | OSError]:
    """Yields the run at every look, and failures to read it; the last one is its end."""
    every = REMOTE_S if atomic.is_remote(workdir) else LOCAL_S
    while True:
        try:
            view = run_view.read_view(workdir, now=time.time())
        except OSError as error:
            if error.errno not in failures.OUTSIDE:
                raise
            yield error
        else:
            yield view
            if view.has_ended:
                return
        wait(every)


def _show_live(console: rich_console.Console, looks: Iterator[RunView | OSError]) -> int:
    last, text = None, rich_text.Text()
    with rich_live.Live(console=console, auto_refresh=False) as live:
        for look in looks:
            if isinstance(look, OSError):
                lines = [('red', f'cannot be read now: {printable(failures.describe(look))}')]
                lines += describe(last) if last else []
            else:
                last, lines = look, describe(look)
            text = rich_text.Text('\n').join(rich_text.Text(line, style) for style, line in lines)
            live.update(text, refresh=True)
    return EXIT_CODES.get(last.state, 1)


def _show_lines(console: rich_console.Console, looks: Iterator[RunView | OSError]) -> int:
    last, shown, printed = None, '', -LINE_S
    for look in looks:
        failed = isinstance(look, OSError)
        line = printable(failures.describe(look)) if failed else compact_line(look)
        last = last if failed else look
        is_due = time.monotonic() - printed >= LINE_S or (not failed and look.has_ended)
        if line != shown and is_due:
            console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)
            shown, printed = line, time.monotonic()
    return EXIT_CODES.get(last.state, 1)


def _console(stream: TextIO) -> rich_console.Console:
    return rich_console.Console(file=output.terminal(stream), highlight=False, markup=False)
