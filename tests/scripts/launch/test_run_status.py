"""What `status` says of a run, and `stacks` of one that hangs."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from elenchus.scripts.launch import actions, gke, run_status, ssh
from elenchus.scripts.launch.commands import Commands, Result
from elenchus.train.early_signals import dump_stacks_at
from tests.scripts.launch.test_hosts import RUNS, Machine, machine  # noqa: F401 - a fixture
from tests.scripts.launch.test_ssh import machines, wait_for  # noqa: F401 - a fixture

ROOT = pathlib.Path(__file__).parents[3]
HANGS = """
import sys, threading, time
from elenchus.train import early_signals
early_signals.end_at_signals()
def wait_for_ever():
    print('works', file=sys.stderr, flush=True)
    threading.Event().wait(SECONDS)
wait_for_ever()
""".replace('SECONDS', '600')
RUNNING = {
    'state': 'running', 'stage': 'actor', 'description': 'actor', 'step': 7, 'steps': 40,
    'unit': 'steps', 'rate': 0.5, 'started': 100.0, 'heartbeat': 200.0, 'idle_s': 3.0,
    'where': 'train/loop.py:9 fit', 'seconds': {'steps': 60.0, 'sampling': 20.0, 'other': 20.0},
    'hosts': [],
}  # fmt: skip
HOSTS = [
    {'process': 0, 'host': 'h0', 'calls': 9, 'silent': 1.0},
    {'process': 1, 'host': 'h1', 'calls': 7, 'silent': 40.0, 'where': 'train/step.py:3 step'},
    {'process': 2, 'silent': 31.0},
]
FIRST = {'started': 0.0, 'heartbeat': 50.0, 'seconds': {'steps': 20.0, 'other': 30.0}}


def described(changes, *rows, now=204.0):
    """Lines on a run whose status has these fields."""
    timing = '\n'.join(map(json.dumps, rows))
    return run_status.describe(json.dumps(RUNNING | changes), timing, now=now)


@pytest.mark.parametrize(
    ('changes', 'rows', 'now', 'lines'),
    [
        ({}, [], 204, [
            'run running: actor, actor 7 of 40 steps, 0.5/s, last progress 7 s ago, last sign of '
            'life 4 s ago, at train/loop.py:9 fit',
            'time: 100 s over 1 start, goodput 80.0%: steps 60.0%, sampling 20.0%, other 20.0%']),
        ({}, [FIRST], 1200, [
            'run running: actor, actor 7 of 40 steps, 0.5/s, last progress 1003 s ago, last sign '
            'of life 1000 s ago, it was probably killed',
            'time: 200 s over 2 starts, goodput 50.0%: steps 40.0%, other 25.0%, idle 25.0%, '
            'sampling 10.0%']),
        ({'state': 'done', 'kept': True}, [FIRST], 210, [
            'run done: actor, last sign of life 10 s ago',
            'time: 50 s over 1 start, goodput 40.0%: other 60.0%, steps 40.0%']),
        ({'hosts': HOSTS, 'steps': None}, [], 200, [
            'run running: actor, actor 7 steps, 0.5/s, last progress 3 s ago, last sign of life '
            '0 s ago, at train/loop.py:9 fit',
            'process 1 on h1: silent for 40 s, 2 calls behind, last at train/step.py:3 step',
            'process 2 on a host that is not known: silent for 31 s',
            'time: 100 s over 1 start, goodput 80.0%: steps 60.0%, sampling 20.0%, other 20.0%']),
    ],
)  # fmt: skip
def test_a_run_says_how_far_it_is_who_is_silent_and_where_its_time_went(changes, rows, now, lines):
    assert described(changes, *rows, now=now) == lines


@pytest.mark.parametrize('status', ['', '{', '[]', '{"state": "running"}', 'null'])
def test_files_that_are_missing_or_cut_short_say_nothing(status):
    assert run_status.describe(status, '', now=0.0) == []


@pytest.mark.parametrize(
    'row', ['{"started"', 'null', '[]', '{"seconds": 5}', '{"seconds": {"steps": "x"}}', '\ufffd']
)
def test_a_damaged_row_of_times_hides_nothing_else(row):
    lines = described({}, FIRST)
    assert lines and f'{row}\n' not in lines
    timing = f'{row}\n{json.dumps(FIRST)}\n{row}\n'
    assert run_status.describe(json.dumps(RUNNING), timing, now=204.0) == lines


def test_a_run_that_hangs_says_where_and_goes_on(machine):  # noqa: F811
    machine.environment['PYTHONPATH'] = os.pathsep.join(p for p in sys.path if p)
    (machine.home / 'run.py').write_text(HANGS)
    machine.detached('start', 'pod', 'key', '1', 'v-1', sys.executable, 'run.py')
    wait_for(lambda: 'works' in machine.read('log'))
    for _ in range(2):
        stacks = machine.detached('stacks', 'pod')
        assert 'wait_for_ever' in stacks and 'most recent call first' in stacks
        assert stacks.count('works') == 0  # of the log only what is new
    assert machine.detached('status', 'pod', 'key').run.value == 'running'


def test_nobody_is_killed_who_cannot_say_where_he_is(machine):  # noqa: F811
    assert 'no run is alive here' in machine.detached('stacks', 'pod')
    machine.detached('start', 'pod', 'key', '1', 'v-1', 'bash', '-c', RUNS)
    assert 'no process here can say' in machine.detached('stacks', 'pod')
    assert machine.detached('status', 'pod', 'key').run.value == 'running'


def test_status_and_stacks_of_machines(machines, capsys):  # noqa: F811
    cloud, hosts = machines
    cloud.prepare()
    cloud.install()
    cloud.start()
    wait_for(lambda: all((hosts / host / 'words').exists() for host in 'ab'))
    for name, row in (('status.json', RUNNING), ('timing.jsonl', FIRST)):
        (hosts / 'a' / name).write_text(json.dumps(row))
    cloud.flags = ssh.SshOptions(hosts='u@a,b', folder='~/of mine', workdir=str(hosts / 'a') + '/')
    session = actions.Session(cloud.flags, cloud, Commands())
    assert session.act('status') == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'run running' in lines[0] and 'actor 7 of 40 steps' in lines[1]
    assert 'over 2 starts, goodput 50.0%' in lines[2]
    (hosts / 'b').rename(hosts / 'away')
    assert session.act('stacks') == 0
    (hosts / 'away').rename(hosts / 'b')
    assert '--- b does not answer' in capsys.readouterr().out


class Pods(Commands):
    """kubectl of two pods; what it was asked."""

    def __init__(self):
        super().__init__()
        self.log = []

    def run(self, words, *, patience=None):
        self.log.append(words)
        output = {'get': 'pod/b pod/a', 'logs': f'stacks of {words[2]}\n'}.get(words[1], '')
        return Result(0, output, '')


def test_stacks_of_pods():
    flags = gke.GkeOptions(name='n', cluster='c', zone='z', image_folder='/my app')
    cloud = gke.Workload(flags, ('--workdir=gs://b/r',), Pods())
    assert cloud.dump_stacks() == '--- pod/a\nstacks of pod/a\n--- pod/b\nstacks of pod/b\n'
    command = next(words for words in cloud.commands.log if words[1] == 'exec')[-1]
    assert command == "cd '/my app' && bash scripts/launch/stacks.sh && sleep 2"


def test_all_processes_of_scripts_run_say_where_they_are_and_no_others(tmp_path):
    """As in a pod, where nobody knows their numbers."""
    package = tmp_path / 'scripts'
    package.mkdir()
    (package / '__init__.py').touch()
    for name in ('run', 'other'):
        (package / f'{name}.py').write_text(HANGS.replace('600', '20'))
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = {**os.environ, 'PYTHONPATH': paths}
    started = [
        subprocess.Popen(
            [sys.executable, '-m', f'scripts.{name}', '--config=x'],
            cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        )
        for name in ('run', 'other')
    ]  # fmt: skip
    assert [process.stderr.readline() for process in started] == ['works\n'] * 2
    script = ROOT / 'scripts' / 'launch' / 'stacks.sh'
    said = subprocess.run(['bash', script], capture_output=True, text=True, check=True).stdout
    time.sleep(0.5)
    for process in started:
        process.kill()
    texts = [process.communicate()[1] for process in started]
    assert said == '' and 'wait_for_ever' in texts[0] and texts[1] == ''


def test_a_file_that_cannot_be_registered_ends_nothing():
    dump_stacks_at(10, None)
