"""Progress display: a bar on a terminal, plain lines elsewhere."""

import io

from rich import console as rich_console

from elenchus.train.metrics import progress


def make_progress(clock, *, terminal):
    file = io.StringIO()
    console = rich_console.Console(file=file, force_terminal=terminal, width=120)
    bar = progress.Progress(
        40, unit='steps', description='actor', console=console, clock=lambda: clock[0]
    )
    return bar, file


def test_without_a_terminal_a_plain_line_comes_every_ten_seconds():
    clock = [0.0]
    bar, file = make_progress(clock, terminal=False)
    with bar:
        for _ in range(40):
            clock[0] += 1.0
            bar.advance(1, loss=0.5)
    lines = file.getvalue().splitlines()
    assert lines[0] == 'actor 10/40 steps, 1 steps/s, loss 0.5, eta 30 s'
    assert len(lines) == 5
    assert lines[-1] == 'actor 40/40 steps, 1 steps/s, loss 0.5, 40.0 s'


def test_a_terminal_shows_a_bar_with_rate_and_fields():
    clock = [0.0]
    bar, file = make_progress(clock, terminal=True)
    with bar:
        clock[0] += 2.0
        bar.advance(40, loss=0.25)
    assert '40/40' in file.getvalue() and '20 steps/s, loss 0.25' in file.getvalue()
