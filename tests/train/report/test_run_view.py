"""What `scripts.watch` says of runs: going on, ended, killed, damaged, in a bucket, not begun."""

import contextlib
import io
import json
import os
import re
import signal
import time

import hypothesis
import pytest
from etils import epath
from hypothesis import strategies as st
from rich import cells as rich_cells

from elenchus.data.text import run_status
from elenchus.train import output, watchdog
from elenchus.train.metrics import progress, writers
from elenchus.train.report import run_files, run_screen, run_view
from elenchus.train.run import directory, lock
from tests.scripts.test_terminal import ACTS, PAYLOADS
from tests.support import lock_holder

NOW = 1000.0
STATUS = {
    'state': 'running', 'stage': 'actor', 'description': 'actor', 'step': 12, 'steps': 140,
    'unit': 'steps', 'rate': 0.8, 'eta_s': 160.0, 'figures': {'loss': 0.52},
    'started': 100.0, 'heartbeat': NOW - 4, 'idle_s': 3.0, 'where': 'train/loop.py:9 fit',
    'seconds': {'steps': 60.0, 'other': 40.0}, 'hosts': [], 'process': 7, 'host': 'h0',
    'user': 'ann', 'warnings': [],
}  # fmt: skip
STAGES = ['base', 'actor', 'critic']


def write(workdir, **changes):
    """Writes a run whose base is complete and whose actor is trained."""
    files = {'config.json': {'stages': STAGES}, 'status.json': STATUS | changes}
    stages = {
        '00-base/summary.json': {'seconds': 65.0, 'final_loss': 3.28},
        '01-actor/config.json': {},
    }
    files |= {f'stages/{name}': value for name, value in stages.items()}
    for name, value in files.items():
        path = epath.Path(workdir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    return epath.Path(workdir)


def texts(workdir, now=NOW):
    return [
        text for _, text in run_screen.describe(run_view.read_view(epath.Path(workdir), now=now))
    ]


@pytest.mark.parametrize(
    ('status', 'locked', 'complete', 'state'),
    [
        ({}, True, False, 'opening'),
        ({}, False, False, 'unknown'),
        ({}, None, False, 'unknown'),
        ({}, False, True, 'done'),
        ({'state': 'running', 'heartbeat': NOW}, True, False, 'running'),
        ({'state': 'stopping', 'heartbeat': NOW}, True, False, 'stopping'),
        ({'state': 'running', 'heartbeat': NOW}, False, False, 'killed'),
        ({'state': 'running', 'heartbeat': NOW}, None, False, 'running'),
        ({'state': 'running', 'heartbeat': NOW - 91}, None, False, 'silent'),
        ({'state': 'running', 'heartbeat': NOW - 91}, True, False, 'silent'),
        ({'state': 'running', 'heartbeat': NOW + 500}, None, False, 'running'),  # another clock
        ({'state': 'running', 'heartbeat': 'x'}, None, False, 'silent'),
        ({'state': 'done', 'heartbeat': 0.0}, False, True, 'done'),
        ({'state': 'failed', 'heartbeat': 0.0}, None, False, 'failed'),
        ({'state': 'preempted', 'heartbeat': 0.0}, True, False, 'opening'),  # started again
        ({'state': 'done', 'heartbeat': NOW - 1}, True, True, 'done'),  # about to leave
    ],
)
def test_the_state_of_a_run(status, locked, complete, state):
    assert run_view.state_of(status, locked=locked, complete=complete, now=NOW) == state


def test_a_run_that_goes_on(tmp_path):
    write(tmp_path, warnings=['warning: step 3: loss/ratio=2 is not in [0.8, 1.25]'])
    with lock.locked(tmp_path):
        lines = texts(tmp_path)
    head = f'{tmp_path}: running, process {os.getpid()} on '
    assert lines[0].startswith(head) and ' by ann since ' in lines[0]
    assert lines[0].endswith('last progress 7 s ago, last sign of life 4 s ago')
    assert lines[1:] == [
        '  done    00-base    1 min 05 s, loss 3.28',
        '  running 01-actor   actor 12/140 steps, 0.8 steps/s, eta 2 min 40 s, loss 0.52',
        '  waiting 02-critic',
        'at train/loop.py:9 fit',
        '1 warning, newest last:',
        '  warning: step 3: loss/ratio=2 is not in [0.8, 1.25]',
        'time: 896 s over 1 start, goodput 6.7%: steps 6.7%, other 4.5%',
    ]


def test_the_last_row_of_metrics_is_shown_of_a_run_that_was_killed(tmp_path):
    write(tmp_path)
    (tmp_path / lock.LOCK).write_text('{"host": "h1", "process": 8, "since": "then"}')
    rows = [{'step': i, 'loss/total': i / 8, 'reward/mean': 0.25} for i in range(3000)]
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    (tmp_path / 'stages/01-actor' / writers.METRICS).write_text(text + '{"step": 3000, "loss/to')
    head, *lines = texts(tmp_path)
    assert head == (
        f'{tmp_path}: killed, its process is gone; the same command continues it, process 8 on h1 '
        'by ann since then'
    )
    assert '  last figures: loss 374.9, reward 0.25, step 2999' in lines


def test_a_process_that_is_killed_is_seen_at_once(tmp_path):
    write(tmp_path, heartbeat=time.time())
    with lock_holder.start(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        states = [run_view.read_view(tmp_path, now=time.time()).state for _ in range(3)]
        assert states == ['running'] * 3 and lock.is_locked(tmp_path)
        process.kill()
    view = run_view.read_view(epath.Path(tmp_path), now=time.time())
    assert view.state == 'killed' and view.owner['process'] == process.pid
    with lock.locked(tmp_path):  # looking has not kept anybody out
        pass


def test_a_stage_that_failed_says_why(tmp_path):
    write(tmp_path, state='failed')
    (tmp_path / 'stages/01-actor/failure.txt').write_text('train.rows=3\nis \x1b[2J wrong\n')
    lines = texts(tmp_path)
    assert '  failed  01-actor' in lines
    assert '  error: 01-actor: train.rows=3 is \\x1b[2J wrong' in lines


@pytest.mark.parametrize('content', [b'', b'{', b'[]', b'\xff\xfe', b'null', b'{"state": 3}'])
@pytest.mark.parametrize(
    'name',
    ['status.json', 'config.json', 'lock.json', 'timing.jsonl', 'stages/00-base/summary.json',
     'stages/01-actor/metrics.jsonl'],
)  # fmt: skip
def test_a_damaged_file_hides_nothing_else(tmp_path, name, content):
    write(tmp_path)
    (tmp_path / name).write_bytes(content + b'\n')
    lines = texts(tmp_path)
    assert lines[0].startswith(str(tmp_path)) and any('01-actor' in line for line in lines)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from([*STATUS, 'stages', 'accuracy']), children, max_size=4)
    ),
    max_leaves=12,
)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(status=st.dictionaries(st.sampled_from([*STATUS]), JSON), config=JSON)
def test_no_status_is_a_traceback(tmp_path_factory, status, config):
    workdir = write(tmp_path_factory.getbasetemp() / 'any')
    (workdir / 'status.json').write_text(json.dumps(STATUS | status))
    (workdir / 'config.json').write_text(json.dumps(config))
    for line in texts(workdir):
        assert not ACTS.search(line)


def test_the_names_of_files_are_those_of_the_run():
    for name in ('CONFIG', 'SUMMARY', 'FAILURE'):
        assert getattr(run_view, name) == getattr(directory, name)


def test_folders_without_a_run(tmp_path):
    assert texts(tmp_path) == [f'{tmp_path}: not begun, there is nothing of a run here yet']
    (tmp_path / 'runs').mkdir()
    with pytest.raises(ValueError, match=f'folder not found; nearest: {tmp_path}/runs'):
        run_files.check_workdir(epath.Path(tmp_path / 'runz'))
    with lock.locked(tmp_path / 'runs'):
        assert texts(tmp_path / 'runs')[0].startswith(f'{tmp_path}/runs: opening, ')


def test_a_folder_of_runs_has_a_line_for_each(tmp_path):
    write(tmp_path / 'seed0' / 'x1', state='done')
    write(tmp_path / 'seed0' / 'x4')
    write(tmp_path / 'seed0' / 'x5', state='done')
    (tmp_path / 'seed0/x5/stages/00-base/summary.json').write_text('{')
    stream = io.StringIO()
    run_screen.print_once(epath.Path(tmp_path), stream)
    first, second, damaged = stream.getvalue().splitlines()
    assert first == f'{tmp_path}/seed0/x1: done, 1 of 3 stages, 01-actor'
    assert second.startswith(f'{tmp_path}/seed0/x4: killed, 1 of 3 stages')
    assert damaged == f'{tmp_path}/seed0/x5: done, 0 of 3 stages, 00-base, 1 warning'


@pytest.mark.parametrize('width', [20, 40, 80])
@pytest.mark.parametrize('payload', PAYLOADS)
def test_texts_of_strangers_neither_act_nor_leave_a_narrow_terminal(
    tmp_path, monkeypatch, payload, width
):
    name = payload.encode('utf-8', 'ignore').decode()
    figures = {name: name, 'loss': 0.5}
    write(
        tmp_path, stage=name, description=name, where=name, user=name, warnings=[name],
        figures=figures, hosts=[{'process': 1, 'host': name, 'silent': 99.0}],
    )  # fmt: skip
    (tmp_path / 'config.json').write_text(json.dumps({'stages': [*STAGES, name]}))
    monkeypatch.setenv('COLUMNS', str(width))
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setenv('TERM', 'xterm')
    run_screen.print_once(epath.Path(tmp_path), stream)
    plain = re.sub('\x1b\\[[0-9;]*m', '', stream.getvalue())  # rich's own colours
    assert not ACTS.search(plain) and '00-base' in plain
    assert max(map(rich_cells.cell_len, plain.split('\n'))) <= width


def looks(workdir, changes):
    """Yields the run after each change of its status; a change may be an error of the disk."""
    for change in changes:
        if isinstance(change, OSError):
            yield change
            continue
        write(workdir, **change)
        yield run_view.read_view(epath.Path(workdir), now=NOW)


@pytest.mark.parametrize(('end', 'code'), [('done', 0), ('preempted', 75), ('failed', 1)])
@pytest.mark.parametrize('is_terminal', [True, False])
def test_a_run_is_shown_until_it_ends(tmp_path, monkeypatch, end, code, is_terminal):
    monkeypatch.setattr(run_screen, 'LINE_S', 0.0)
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    console = run_screen._console(stream)
    changes = [{'step': 1}, {'step': 1}, OSError(5, 'Input/output error', 'x'), {'state': end}]
    with lock.locked(tmp_path):
        show = run_screen._show_live if is_terminal else run_screen._show_lines
        run = looks(tmp_path, changes[:3])
        seen = list(run)
    result = show(console, iter([*seen, *looks(tmp_path, changes[3:])]))
    assert result == code and 'Input/output error' in stream.getvalue()
    if not is_terminal:
        lines = stream.getvalue().splitlines()
        assert len(lines) == 3 and lines[-1].startswith(f'{tmp_path}: {end}')
        assert 'running, 1 of 3 stages, 01-actor, actor 1/140 steps' in lines[0]


def test_following_waits_for_a_run_and_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(run_screen, 'LINE_S', 0.0)
    stream, run = io.StringIO(), contextlib.ExitStack()

    def live():
        """The life of a run, between two looks at it."""
        run.enter_context(lock.locked(tmp_path))
        write(tmp_path, heartbeat=time.time())
        yield
        write(tmp_path, heartbeat=time.time(), step=13)
        yield
        write(tmp_path, heartbeat=time.time(), state='done')
        yield

    life = live()
    code = run_screen.follow(epath.Path(tmp_path), stream, wait=lambda _: next(life))
    run.close()
    assert code == 0 and next(life, 'over') == 'over'
    states = [line.split(': ')[1].partition(',')[0] for line in stream.getvalue().splitlines()]
    assert states == ['not begun', 'running', 'running', 'done']


def test_a_run_in_a_bucket_is_seen_by_its_status_alone():
    fake_gcs = pytest.importorskip('tests.support.fake_gcs', exc_type=ImportError)
    with fake_gcs.in_this_process():
        empty = texts('gs://bucket/run')
        write(epath.Path('gs://bucket/run'), heartbeat=NOW - 80)
        lines, later = texts('gs://bucket/run'), texts('gs://bucket/run', now=NOW + 60)
    assert empty == ['gs://bucket/run: not begun, there is nothing of a run here yet']
    assert lines[0].startswith('gs://bucket/run: running, process 7 on h0 by ann')
    assert (
        '  running 01-actor   actor 12/140 steps, 0.8 steps/s, eta 2 min 40 s, loss 0.52' in lines
    )
    assert later[0].startswith('gs://bucket/run: silent, it was probably killed')


def test_the_status_of_a_run_has_its_figures_and_newest_warnings(tmp_path, monkeypatch):
    log = output.Log()
    monkeypatch.setattr(output, 'log', log)
    stream = output.Output(io.StringIO(), log)
    for i in range(30):
        print('warning:', f'number {i} \x1b[2J', file=stream)
        print('no warning: of this', file=stream)
    dog = watchdog.Watchdog(tmp_path, watchdog.WatchdogSettings(20.0, 600.0, 0.0, alert=''))
    with progress.progress(10, unit='steps', description='actor') as bar:
        bar.advance(2, loss=0.5)
        dog._write_status([])
    status = json.loads((tmp_path / 'status.json').read_text())
    assert status['figures'] == {'loss': 0.5} and status['step'] == 2
    assert len(status['warnings']) == 20 and status['warnings'][-1] == 'warning: number 29 \\x1b[2J'
    assert run_status.describe(json.dumps(status), '', now=time.time())


def test_a_user_without_a_name_is_no_error(monkeypatch):
    with contextlib.suppress(ImportError):
        monkeypatch.setattr(watchdog.getpass, 'getuser', lambda: {}['uid 1000'])
        assert watchdog._user() == ''
