"""Progress display: a bar on a terminal, plain lines elsewhere."""

import io
import math
import re

import hypothesis
import pytest
from hypothesis import strategies as st
from rich import cells as rich_cells
from rich import console as rich_console

from elenchus.train.metrics import progress

CONTROLS = re.compile('\x1b\\[[0-9;?]*[A-Za-z]')


def make_progress(clock, *, terminal, total=40, width=120, description='actor'):
    file = io.StringIO()
    console = rich_console.Console(file=file, force_terminal=terminal, width=width)
    options = {'unit': 'steps', 'description': description, 'console': console}
    return progress.Progress(total, clock=lambda: clock[0], **options), file


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


def test_what_an_earlier_start_has_done_is_no_speed():
    clock = [0.0]
    bar, _ = make_progress(clock, terminal=False, total=1000)
    with bar:
        bar.skip(900)
        assert bar.status()['eta_s'] is None and bar.status()['rate'] == 0
        for _ in range(4):
            clock[0] += 2.0
            bar.advance(1)
        status = bar.status()
    assert (status['step'], status['rate'], status['eta_s']) == (904, 0.5, 192.0)


def test_the_first_unit_compiles_and_does_not_count_once_others_are_known():
    clock = [0.0]
    bar, _ = make_progress(clock, terminal=False, total=1000)
    with bar:
        for seconds in (100.0, 1.0, 1.0, 1.0):
            clock[0] += seconds
            bar.advance(1)
        assert bar.status()['rate'] == 1.0 and bar.status()['eta_s'] == 996.0


def test_the_rate_is_that_of_the_last_minute_and_a_pause_does_not_lengthen_the_rest():
    clock = [0.0]
    bar, _ = make_progress(clock, terminal=False, total=10_000)
    with bar:
        for seconds in [0.5] * 400 + [2.0] * 60:
            clock[0] += seconds
            bar.advance(1)
        assert bar.status()['rate'] == 0.5
        before = bar.status()['eta_s']
        clock[0] += 7.0
        assert bar.status()['eta_s'] == before - 7.0
        clock[0] += 1e9
        assert bar.status()['eta_s'] == 0.0


def test_parts_that_take_longer_than_the_window_have_a_rate():
    clock = [0.0]
    bar, _ = make_progress(clock, terminal=False, total=400)
    with bar:
        for _ in range(3):
            clock[0] += 500.0
            bar.advance(100)
        assert bar.status()['rate'] == 0.2 and bar.status()['eta_s'] == 500.0


def test_the_status_is_json_whatever_the_figures_are():
    clock = [0.0]
    bar, _ = make_progress(clock, terminal=False, total=None)
    with bar:
        bar.advance(1, loss=math.nan, reward=math.inf, right=0.5, name='a\x1b[2J')
        figures = bar.status()['figures']
    assert figures == {'loss': None, 'reward': None, 'right': 0.5, 'name': 'a\\x1b[2J'}


@pytest.mark.parametrize('width', [20, 40, 59, 60, 80, 99, 100, 200])
@pytest.mark.parametrize(
    'description', ['actor', 'ein sehr langer Name ' * 4, '汉字' * 30, '👩‍🔬é']
)
def test_no_line_is_wider_than_the_terminal(width, description):
    clock = [0.0]
    bar, file = make_progress(clock, terminal=True, width=width, description=description)
    with bar:
        for _ in range(7):
            clock[0] += 100.0
            bar.advance(1, loss=0.123456, reward=-7.5, **{'tokens/s': 123456.0})
    lines = re.split('[\r\n]', CONTROLS.sub('', file.getvalue()))
    assert max(map(rich_cells.cell_len, lines)) <= width
    if width >= 40 and description == 'actor':
        assert any('7/40' in line and 'eta 55 min 00 s' in line for line in lines)


def test_a_row_of_metrics_is_shown_by_loss_and_reward_of_each_player():
    row = {'loss/total': 1.5, 'reward/mean': 0.25, 'reward/correct': 0.5, 'loss/nll': 9, 'x': 1}
    assert progress.figures_of(row) == {'loss': 1.5, 'reward': 0.25, 'right': 0.5}
    both = {f'{group}/{player}/{name}': i for i, (group, player, name) in enumerate(
        [('loss', 'actor', 'total'), ('loss', 'critic', 'total'), ('reward', 'critic', 'mean')])
    }  # fmt: skip
    assert progress.figures_of(both) == {'actor loss': 0, 'critic loss': 1, 'critic reward': 2}


@hypothesis.given(st.floats(0, 1e7))
def test_durations_have_at_most_two_units(seconds):
    text = progress.show_seconds(seconds)
    parts = text.split()
    sizes = {'d': 86400, 'h': 3600, 'min': 60, 's': 1}
    shown = sum(int(n) * sizes[unit] for n, unit in zip(parts[::2], parts[1::2], strict=True))
    smallest = sizes[parts[-1]]
    assert len(parts) <= 4 and abs(shown - seconds) <= smallest
