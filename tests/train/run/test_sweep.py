"""Sweeps: points, one-line errors, and runs side by side that are killed and go on."""

import os
import pathlib
import signal
import sys
import time

import hypothesis
import numpy as np
import pytest
from etils import epath
from hypothesis import strategies as st

from elenchus.configs import lab
from elenchus.train.metrics import progress
from elenchus.train.preemption import Preempted
from elenchus.train.run import sweep, sweep_points, sweep_runner
from elenchus.train.run.sweep_runner import Task
from tests.scripts.test_terminal import ACTS
from tests.support import lock_holder

RUN = """
import json, os, pathlib, sys, time
folder, what = pathlib.Path(sys.argv[1]), sys.argv[2]
folder.mkdir(parents=True, exist_ok=True)
with open(folder / 'starts', 'a') as file: file.write('x')
if what == 'fails':
    print('Traceback', file=sys.stderr)
    print('error: no \\x1b[2J luck', file=sys.stderr)
    sys.exit(2)
if what == 'is late':
    (folder / 'summary.json').write_text('{}')
    sys.exit('error: x is in use by process 7')
if what == 'crashes': os.kill(os.getpid(), 11)
if what == 'sleeps': time.sleep(600)
if what == 'waits':
    while not (folder.parent / 'go').exists(): time.sleep(0.01)
if what != 'empty': (folder / 'summary.json').write_text('{}')
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(sweep_runner, 'POLL_S', 0.01)


# Points


@pytest.mark.parametrize(
    ('text', 'values'),
    [
        ('8,16', (8, 16)),
        ('1e-3, 0.003', (0.001, 0.003)),
        ('adamw,muon', ('adamw', 'muon')),
        ("'a,b',c", ('a,b', 'c')),
        ('(1,2),(3,)', ((1, 2), (3,))),
        ("('base','actor'),('base',)", (('base', 'actor'), ('base',))),
        ('true,False', (True, False)),
        ('-1', (-1,)),
        ('runs/a=b,汉字', ('runs/a=b', '汉字')),
        ('[1,2]', ((1, 2),)),
        ('configs/x.py', ('configs/x.py',)),
    ],
)
def test_values_of_a_field(text, values):
    assert sweep_points.parse_vary([f'train.rows={text}']) == {'train.rows': values}
    assert sweep_points.parse_vary([f'config.train.rows={text}']) == {'train.rows': values}


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        (['train.rows'], 'must be FIELD=VALUE,VALUE'),
        (['=3'], 'must be FIELD=VALUE,VALUE'),
        (['train.rows='], 'has no values; such as --vary=train.rows=1,2'),
        (['train.rows=,,'], 'has no values'),
        (['train.rows=8,8'], 'has the value 8 twice'),
        (['a=1', 'a=2'], "field 'a' is there twice"),
        (['a=3..1'], 'must go from a number to a larger one'),
        (['a=1..1'], 'must go from a number to a larger one'),
        (['a=log:0..1'], 'has no logarithm at 0; begin above 0'),
        (['a=log:x..1'], 'must go from a number to a larger one'),
        (['a=0..inf'], 'must go from a number to a larger one'),
    ],
)
def test_a_field_that_cannot_be_meant(texts, message):
    with pytest.raises(ValueError, match=message):
        sweep_points.parse_vary(texts)


def test_a_grid_has_every_combination_and_no_ranges():
    fields = sweep_points.parse_vary(['a=1,2', 'b=x,y,z'])
    points = sweep_points.grid(fields)
    assert len(points) == 6 and points[1] == {'a': 1, 'b': 'y'}
    assert len({point.name for point in sweep_points.make_points(points)}) == 6
    with pytest.raises(ValueError, match='--vary=a is a range, of which --random=N draws'):
        sweep_points.grid(sweep_points.parse_vary(['a=0.1..0.5']))
    with pytest.raises(ValueError, match='a grid of 1,000,000 points; at most 10,000'):
        sweep_points.grid({name: tuple(range(100)) for name in 'abc'})
    with pytest.raises(ValueError, match='the sweep has no points'):
        sweep_points.make_points([])


def test_random_points_are_in_their_ranges_and_begin_alike():
    fields = sweep_points.parse_vary(
        ['a=0.1..0.5', 'b=log:1e-5..1e-1', 'c=3..9', 'd=x,y', 'e=log:1..64']
    )
    points = sweep_points.random_points(fields, 200, seed=3)
    assert points[:20] == sweep_points.random_points(fields, 20, seed=3)
    assert points[:20] != sweep_points.random_points(fields, 20, seed=4)
    logs = np.log10([point['b'] for point in points])
    assert all(0.1 <= point['a'] <= 0.5 for point in points) and -5 <= logs.min() < -4.5
    assert abs(np.mean(logs) + 3) < 0.3
    assert {point['c'] for point in points} == set(range(3, 10))
    assert all(type(point['e']) is int and 1 <= point['e'] <= 64 for point in points)
    for point in points:
        assert all(float(repr(point[name])) == point[name] for name in 'ab')
    with pytest.raises(ValueError, match='only 2 different points are there; nearest: 2'):
        sweep_points.random_points(sweep_points.parse_vary(['d=x,y']), 3, seed=0)


@hypothesis.given(st.dictionaries(st.text(max_size=9), st.text() | st.integers(), max_size=4))
def test_the_name_of_a_point_is_a_plain_folder(changes):
    name = sweep_points.name_of(changes)
    assert name.isascii() and not set(name) & set('/\\ \x1b\n:*?"<>|') and 0 < len(name) <= 70
    assert not name.startswith(('.', '-')) and name == sweep_points.name_of(changes)


def test_a_list_of_points_is_read_with_its_places(tmp_path):
    path = tmp_path / 'points.jsonl'
    path.write_text('{"train.rows": 8, "mesh": [1, 1, 1]}\n{"config.train.rows": 16}\n')
    assert sweep_points.listed_points(path) == [
        {'train.rows': 8, 'mesh': (1, 1, 1)},
        {'train.rows': 16},
    ]
    path.write_text('{"train.rows": 8}\n3\n')
    with pytest.raises(ValueError, match='points.jsonl:2'):
        sweep_points.listed_points(path)
    with pytest.raises(ValueError, match='point 2 is the same as point 1'):
        sweep_points.make_points([{'a': 1}, {'a': 1}])


# Checks


def make(tmp_path, changes, *, seeds=(0,), shared=(), launcher=()):
    config = lab.get_config('smoke')
    points = tuple(sweep_points.make_points(changes))
    flags = ('--config=configs/lab.py:smoke',)
    return sweep.Sweep(config, flags, epath.Path(tmp_path), points, seeds, shared, launcher)


@pytest.mark.parametrize(
    ('changes', 'options', 'message'),
    [
        ({'train.row': 8}, {}, "unknown field 'train.row'; did you mean 'train.rows'"),
        ({'train': 8}, {}, "unknown field 'train'; did you mean"),
        ({'\x1b[2J': 8}, {}, r'unknown field .\\\\x1b\[2J'),
        ({'seed': 8}, {}, "field 'seed' is that of --seeds"),
        ({'data.seed': 8}, {}, "field 'data.seed' is that of --seeds"),
        ({'train.rows': 0}, {}, r'point rows=0-\w+: .*train.rows=0'),
        ({'train.rows': 'many'}, {}, r'point rows=many-\w+: '),
        ({'stages': ('critic', 'base')}, {}, r'point stages=.*: '),
        ({'train.rows': 16}, {'seeds': ()}, r'--seeds=\[\] must be different numbers'),
        ({'train.rows': 16}, {'seeds': (1, 1)}, r'--seeds=\[1, 1\] must be different'),
        ({'train.rows': 16}, {'shared': ('actor',)}, '--shared=actor must be the first of'),
        ({'train.rows': 16}, {'shared': ('base',)}, "stage 'base' reads field 'train.rows'"),
        ({'base.checkpoint': 'data'}, {'shared': ('base',)}, "reads field 'base.checkpoint'"),
        ({'stages': ('base',)}, {'shared': ('base', 'actor')}, 'does not begin with --shared'),
        ({'model.rope_scaling': None, 'train.rows': 16}, {}, 'rope_scaling=None cannot be said by'),
    ],
)  # fmt: skip
def test_a_wrong_sweep_is_one_line_before_anything_runs(tmp_path, changes, options, message):
    with pytest.raises(ValueError, match=message) as error:
        sweep.check(make(tmp_path, [changes], **options))
    assert not ACTS.search(str(error.value).replace('\n', ' ')) and not list(tmp_path.iterdir())


def test_a_folder_with_a_sweep_of_another_config_is_refused(tmp_path):
    one = make(tmp_path, [{'train.rows': 16}])
    sweep.check(one)
    (tmp_path / sweep.CONFIG).write_text(sweep.build.to_json(one.config))
    sweep.check(make(tmp_path, [{'train.rows': 24}], seeds=(0, 1)))  # more points and seeds
    one.config.train.log_every = 7  # changes no result
    sweep.check(one)
    one.config.train.length = 600
    with pytest.raises(ValueError, match='another config: field train.length was 568, now 600'):
        sweep.check(one)


def test_the_tasks_of_a_sweep(tmp_path):
    changes = [{'reinforce.num_problems': 2}, {'reinforce.num_problems': 3}]
    one = make(tmp_path, changes, seeds=(0, 5), shared=('base', 'actor'))
    sweep.check(one)
    tasks = sweep.tasks_of(one)
    assert [task.after for task in tasks] == ['', *['seed0/shared'] * 2, '', *['seed5/shared'] * 2]
    command = tasks[4].command
    assert command[1:3] == ('-m', 'elenchus.scripts.run')
    assert {'--config.seed=5', '--config.data.seed=5', '--config.reinforce.num_problems=2'} < set(
        command
    )
    assert f'--workdir={tmp_path}/seed5/{one.points[0].name}' in command
    assert "--config.stages=('base', 'actor')" in tasks[3].command
    for stage in ('00-base', '01-actor'):
        folder = tmp_path / 'seed5' / 'shared' / 'stages' / stage
        folder.mkdir(parents=True)
        for name in ('summary.json', 'config.json'):
            (folder / name).write_text('{}')
    tasks[4].prepare()
    linked = tmp_path / 'seed5' / one.points[0].name / 'stages'
    files = ['config.json', 'summary.json']  # a linked stage is checked by its config
    assert sorted(p.name for p in linked.glob('*/*')) == sorted(files * 2)
    assert not tasks[4].is_complete()
    tasks[4].prepare()
    (folder / 'summary.json').unlink()  # the linked file stays as it is
    (folder / 'summary.json').write_text('{"final_loss": 1.0}')
    with pytest.raises(ValueError, match='01-actor has been made again since .* delete .*seed5/'):
        tasks[4].prepare()


def test_a_point_is_complete_with_its_own_stages(tmp_path):
    one = make(tmp_path, [{'stages': ('base',)}, {'stages': 'base', 'train.log_every': 7}])
    for task in sweep.tasks_of(one):
        assert not task.is_complete()
        folder = task.folder / 'stages' / '00-base'
        folder.mkdir(parents=True)
        for path in (folder, task.folder):
            (path / sweep.SUMMARY).write_text('{}')
        assert task.is_complete()


@pytest.mark.parametrize(
    ('launcher', 'flag'),
    [
        (('bash', 'tpu.sh', 'keep', '--zone=z'), '--name=my-sweep-'),
        (('bash', 'slurm.sh', 'submit'), '--job=my-sweep-'),
        (('sky', 'launch', '-c', '{name}'), 'my-sweep-'),
    ],
)
def test_launchers_get_a_name_that_clouds_accept(launcher, flag):
    one = make(pathlib.Path('x'), [{'train.rows': 16}], launcher=launcher)
    one = sweep.dataclasses.replace(one, workdir=epath.Path('gs://bucket/My Sweep!'))
    (task,) = sweep.tasks_of(one)
    assert any(word.startswith(flag) for word in task.command)
    words = task.command[: task.command.index('--')]
    name = next(word for word in words if 'my-sweep' in word).rpartition('=')[2]
    assert name == name.lower() and len(name) <= 40 and name.replace('-', '').isalnum()
    assert f'--workdir=gs://bucket/My Sweep!/seed0/{one.points[0].name}' in task.command


# Runs


def task(workdir, name, what='works', **options):
    folder = epath.Path(workdir) / name
    command = (sys.executable, '-S', '-c', RUN, str(folder), what)
    return Task(name, folder, command, lambda: (folder / 'summary.json').exists(), **options)


def starts(workdir, name):
    path = pathlib.Path(workdir) / name / 'starts'
    return len(path.read_text()) if path.exists() else 0


def test_a_run_that_fails_is_one_line_and_the_others_go_on(tmp_path):
    kinds = ('works', 'fails', 'crashes', 'empty', 'works')
    tasks = [task(tmp_path, f'{i}', kind) for i, kind in enumerate(kinds)]
    tasks.append(task(tmp_path, 'next', after='1'))
    failures = sweep_runner.run_all(tasks, jobs=3, logs=tmp_path / 'logs')
    assert failures == {
        '1': 'no \\x1b[2J luck', '2': 'signal 11', '3': 'it ended without its last stage',
        'next': '1 failed',
    }  # fmt: skip
    assert starts(tmp_path, 'next') == 0
    again = [task(tmp_path, name) for name in '01234']
    assert sweep_runner.run_all(again, jobs=3, logs=tmp_path / 'logs') == {}
    assert [starts(tmp_path, name) for name in '01234'] == [1, 2, 2, 2, 1]


def test_a_predecessor_is_complete_before_its_successors_start(tmp_path):
    tasks = [task(tmp_path, 'a', after='b'), task(tmp_path, 'b'), task(tmp_path, 'c', after='b')]
    prepared = []
    tasks[0] = tasks[0]._replace(prepare=lambda: prepared.append(tasks[1].is_complete()))
    assert sweep_runner.run_all(tasks, jobs=3, logs=tmp_path / 'logs') == {}
    assert prepared == [True]


def test_a_request_to_stop_reaches_the_runs_and_nothing_new_starts(tmp_path):
    tasks = [task(tmp_path, 'a', 'sleeps'), task(tmp_path, 'b', 'sleeps'), task(tmp_path, 'c')]

    before = signal.getsignal(signal.SIGTERM)
    timer = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    start = time.monotonic()
    try:
        with pytest.raises(Preempted):
            sweep_runner.run_all(tasks, jobs=2, logs=tmp_path / 'logs')
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, timer)
    assert time.monotonic() - start < 30 and starts(tmp_path, 'c') == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_run_that_another_sweep_has_brought_to_its_end_has_not_failed(tmp_path):
    """Both started it; the other one's had the lock, and released it before this one looked."""
    one = task(tmp_path, 'a', 'is late')
    assert sweep_runner.run_all([one], jobs=1, logs=tmp_path / 'logs') == {}


def test_a_run_that_was_stopped_does_not_count_as_done(tmp_path, monkeypatch, capsys):
    tasks = [task(tmp_path, 'a'), task(tmp_path, 'b', 'sleeps')]

    def stop_when_it_sleeps(run, has_ended=sweep_runner._has_ended):
        if run.task.name == 'b' and starts(tmp_path, 'b') and not requested:
            requested.append(os.kill(os.getpid(), signal.SIGTERM))
        return has_ended(run)

    requested = []
    monkeypatch.setattr(sweep_runner, '_has_ended', stop_when_it_sleeps)
    with pytest.raises(Preempted):
        sweep_runner.run_all(tasks, jobs=1, logs=tmp_path / 'logs')
    shown = capsys.readouterr().err
    assert 'sweep 2/2 runs' not in shown and 'sweep 1/2 runs' in shown


def test_a_run_that_outlives_its_sweep_is_waited_for(tmp_path):
    """It has its lock; when it ends without being complete, it is started again."""
    one = task(tmp_path, 'a')
    with lock_holder.start(one.folder, seconds=0.7):
        assert sweep_runner.run_all([one], jobs=1, logs=tmp_path / 'logs') == {}
    assert starts(tmp_path, 'a') == 1 and one.is_complete()


def test_the_display_counts_what_was_complete_before(tmp_path, monkeypatch, capsys):
    tasks = [task(tmp_path, name) for name in 'abc']
    sweep_runner.run_all(tasks[:1], jobs=1, logs=tmp_path / 'logs')
    capsys.readouterr()
    sweep_runner.run_all(tasks, jobs=1, logs=tmp_path / 'logs')
    assert 'sweep 3/3 runs' in capsys.readouterr().err
    assert progress.status() == {}


def test_output_of_a_run_is_read_whatever_it_is(tmp_path):
    log = tmp_path / 'log'
    for content, line in ((b'', ''), (b'\xff\xfe\n', '\ufffd\ufffd'), (b'a\nerror: b\nc\n', 'b')):
        log.write_bytes(content)
        assert sweep_runner.last_line(log) == line
