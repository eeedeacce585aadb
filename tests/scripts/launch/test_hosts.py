"""What the launchers do on a host: unpacking, and runs that outlive their connection."""

import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from elenchus.scripts.launch import exit_codes, remote
from elenchus.scripts.launch.states import Run

LAUNCH = pathlib.Path(__file__).parents[3] / 'scripts' / 'launch'
RUNS = 'echo begins; trap "echo saves; exit 75" TERM; echo x >>starts; while :; do sleep 0.05; done'


class Machine:
    """A home folder, and bash in it."""

    def __init__(self, home):
        self.home = home
        self.environment = {**os.environ, 'HOME': str(home)}

    def bash(self, command, *, code=0):
        """Runs a command in the home folder; returns what it printed."""
        process = subprocess.run(
            ['bash', '-c', command],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert process.returncode == code, process.stdout + process.stderr
        return process.stdout

    def detached(self, *words, code=0):
        """Calls detached.sh; returns the status that it printed, if any."""
        output = self.bash(remote.quote(['bash', str(LAUNCH / 'detached.sh'), *words]), code=code)
        return (remote.read_status(output) or [output])[0]

    def wait_for(self, run, key='key'):
        """Waits for a state of the run; returns the status."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            status = self.detached('status', 'pod', key)
            if status.run is run:
                return status
            time.sleep(0.1)
        raise AssertionError(status)

    def read(self, name):
        """A file of the run."""
        (path,) = self.home.glob(f'.elenchus/pod/*/{name}')
        return path.read_text(encoding='utf-8')


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    yield machine
    for path in tmp_path.glob('.elenchus/*/*/process'):
        try:
            os.killpg(int(path.read_text().split()[0]), signal.SIGKILL)
        except ProcessLookupError:
            continue


def start(machine, *, key='key', attempt='1', version='abc-1', command=RUNS, code=0):
    words = ('start', 'pod', key, attempt, version, 'bash', '-c', command)
    return machine.detached(*words, code=code)


def test_a_run_outlives_its_connection_and_is_stopped(machine):
    assert machine.detached('status', 'pod', 'key').run is Run.ABSENT
    assert start(machine).run is Run.RUNNING
    assert machine.detached('status', 'pod', 'key').version == 'abc-1'
    assert machine.detached('status', 'pod', 'another').run is Run.OTHER
    machine.detached('stop', 'pod')
    status = machine.wait_for(Run.ENDED)
    assert (status.code, status.stopped) == (75, True)
    assert status.version == 'abc-1'
    assert 'saves' in machine.detached('logs', 'pod', '20')
    assert 'saves' in machine.detached('logs', 'pod', '20', os.uname().nodename)
    assert machine.detached('logs', 'pod', '20', 'another-host') == ''
    assert start(machine, attempt='2').run is Run.RUNNING
    assert not machine.home.joinpath('.elenchus/pod/stopped').exists()


def test_a_repeated_start_starts_nothing(machine):
    """gcloud repeats a command after an error of ssh; people run commands twice."""
    for attempt in ('1', '1', '2'):
        assert start(machine, attempt=attempt).run is Run.RUNNING
    assert machine.bash('cat starts') == 'x\n'
    start(machine, key='another', code=3)
    machine.detached('kill', 'pod')
    assert machine.wait_for(Run.ENDED).code == 137
    start(machine, attempt='1')  # the attempt that was killed, repeated late
    assert machine.detached('status', 'pod', 'key').run is Run.ENDED
    assert machine.bash('cat starts') == 'x\n'


def test_twenty_starts_at_once_are_one(machine):
    command = remote.quote(
        ['bash', str(LAUNCH / 'detached.sh'), 'start', 'pod', 'key', '1', 'v-1', 'bash', '-c', RUNS]
    )
    machine.bash(f'for i in $(seq 20); do {command} & done; wait')
    assert machine.wait_for(Run.RUNNING) and machine.bash('cat starts') == 'x\n'


@pytest.mark.parametrize('code', [0, 1, 2, 75, 137])
def test_the_exit_code_is_the_commands(machine, code):
    start(machine, command=f'exit {code}')
    assert machine.wait_for(Run.ENDED).code == code


def test_a_machine_that_goes_down_ends_with_the_code_of_the_run(machine):
    """SIGTERM comes to all processes at once: the run gets it once, and its code is kept."""
    start(machine)
    machine.bash('sleep 0.3')
    process = int(machine.read('process').split()[0])
    os.killpg(process, signal.SIGTERM)
    status = machine.wait_for(Run.ENDED)
    assert (status.code, status.stopped) == (75, False)
    assert machine.read('log').splitlines().count('saves') == 1


def test_a_supervisor_that_was_killed_counts_as_killed(machine):
    start(machine)
    process = int(machine.read('process').split()[0])
    os.killpg(process, signal.SIGKILL)
    assert machine.wait_for(Run.ENDED).code == 137


ORPHANS = """
import ctypes, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans come here, as to a container's first process
for command in sys.argv[1:]:
    subprocess.Popen(['bash', '-c', command]).wait()
    time.sleep(2)
"""


def test_a_supervisor_that_nobody_waits_for_has_ended(machine):
    """In a container whose first process is no init, what has ended stays as a zombie."""
    script = remote.quote(['bash', str(LAUNCH / 'detached.sh')])
    commands = [
        f'{script} start pod key 1 v-1 bash -c "sleep 1; exit 3"',
        f'{script} status pod key',
    ]
    output = machine.bash(remote.quote([sys.executable, '-c', ORPHANS, *commands]))
    seen = remote.read_status(output)
    assert [(host.run, host.code) for host in seen] == [(Run.RUNNING, None), (Run.ENDED, 3)]


@pytest.mark.parametrize('action', ['stop', 'kill'])
def test_a_stop_marks_a_run_that_has_ended(machine, action):
    """`keep` may wait to start it again."""
    start(machine, command='exit 7')
    assert not machine.wait_for(Run.ENDED).stopped
    status = machine.detached(action, 'pod')
    assert (status.run, status.code, status.stopped) == (Run.ENDED, 7, True)
    assert not start(machine, attempt='2', command='sleep 9').stopped


def test_a_stop_where_nothing_ever_ran_marks_nothing(machine):
    assert machine.detached('stop', 'pod').run is Run.ABSENT
    assert not list(machine.home.glob('.elenchus/**/stopped'))


def test_a_full_disk_does_not_hide_how_a_run_ended(machine):
    """A folder of the file's name stands for a disk that takes no new file."""
    start(machine, command='until [ -e go ]; do sleep 0.05; done; exit 0')
    machine.bash('for f in .elenchus/pod/*; do mkdir "$f/exit_code.new"; done; touch go')
    assert machine.wait_for(Run.ENDED).code == 0


def test_a_stop_is_sent_where_its_mark_cannot_be_written(machine):
    start(machine)
    machine.bash('sleep 0.3; for f in .elenchus/pod/*; do mkdir "$f/stopped.new"; done')
    machine.detached('stop', 'pod')
    assert machine.wait_for(Run.ENDED).code == 75


def test_the_status_of_a_killed_supervisor_needs_no_disk(machine):
    start(machine)
    machine.bash('for f in .elenchus/pod/*; do mkdir "$f/exit_code.new"; done')
    os.killpg(int(machine.read('process').split()[0]), signal.SIGKILL)
    assert machine.wait_for(Run.ENDED).code == 137


def test_the_number_of_a_dead_process_is_not_another_ones(machine):
    """After a restart of the machine the number may belong to a stranger, who is not signalled."""
    start(machine, command='exit 1')
    machine.wait_for(Run.ENDED)
    (path,) = machine.home.glob('.elenchus/pod/*/process')
    path.write_text(f'{os.getpid()} 17\n', encoding='utf-8')
    assert machine.detached('kill', 'pod').run is Run.ENDED


def give_hours(machine, seconds):
    """Tells the host what is left of the budget, as a look does."""
    machine.bash(remote.status_command('nowhere', 'pod', 'key', budget=seconds))


@pytest.mark.parametrize(
    ('command', 'words'),
    [
        (RUNS, ['the budget is spent', 'saves']),
        ('trap "" TERM; while :; do sleep 0.05; done', ['SIGKILL in 1 s']),
    ],
)
def test_a_host_ends_the_run_when_the_budget_is_spent(machine, command, words):
    """Nobody looks after the start: the machine that runs `keep` is off."""
    machine.environment['ELENCHUS_GRACE'] = '1'
    give_hours(machine, 2)
    assert start(machine, command=command).run is Run.RUNNING
    status = machine.wait_for(Run.ENDED)
    assert (status.code, status.stopped) == (exit_codes.BUDGET, False)
    assert all(word in machine.read('log') for word in words)


def test_a_run_that_is_complete_is_complete_although_the_budget_is_spent(machine):
    give_hours(machine, 2)
    start(machine, command='trap "exit 0" TERM; while :; do sleep 0.05; done')
    assert machine.wait_for(Run.ENDED).code == exit_codes.DONE


@pytest.mark.slow
def test_a_run_gets_one_signal_when_the_budget_ends_and_the_launcher_stops_it_too(machine):
    """A second one ends scripts.run at once, before it has saved."""
    saves = 'n=0; trap "n=$((n+1))" TERM; while ((n < 1)); do sleep 0.05; done; sleep 1; '
    saves += 'echo "$n signals"; exit 75'
    give_hours(machine, 2)
    start(machine, command=saves)
    time.sleep(1.5)
    for _ in range(4):
        machine.detached('stop', 'pod')
        time.sleep(0.2)
    assert machine.wait_for(Run.ENDED).code in (75, exit_codes.BUDGET)
    give_hours(machine, 60)
    start(machine, attempt='2', command=saves)
    machine.bash('sleep 0.3')
    for _ in range(2):
        machine.detached('stop', 'pod')
    assert machine.wait_for(Run.ENDED).code == 75
    assert machine.read('log').count('1 signals') == 2


@pytest.mark.slow
def test_a_budget_that_was_raised_counts(machine):
    give_hours(machine, 3)
    start(machine)
    give_hours(machine, 60)
    time.sleep(4)
    assert machine.detached('status', 'pod', 'key').run is Run.RUNNING
    give_hours(machine, 0)
    assert machine.wait_for(Run.ENDED).code == exit_codes.BUDGET


def pack(machine, name, files):
    with tarfile.open(machine.home / name, 'w:gz') as archive:
        for file, text in files.items():
            path = machine.home / 'source'
            path.write_text(text, encoding='utf-8')
            archive.add(path, arcname=file)


def unpack(machine, name, *, folder='a folder', then='true', code=0):
    command = remote.unpack_command(folder, name, version='v', then=then)
    return machine.bash(command, code=code)


def test_unpacking_removes_what_the_sources_no_longer_have_and_nothing_else(machine):
    pack(machine, 'one.tar.gz', {'a.py': '1', 'b c.py': '1', '-x.py': '1'})
    pack(machine, 'two.tar.gz', {'a.py': '2'})
    unpack(machine, 'one.tar.gz')
    machine.bash('cd "a folder" && mkdir .venv runs && touch .venv/x runs/y')
    unpack(machine, 'two.tar.gz')
    folder = machine.home / 'a folder'
    assert {p.name for p in folder.iterdir() if not p.name.startswith('.')} == {'a.py', 'runs'}
    assert (folder / 'a.py').read_text() == '2' and (folder / '.venv' / 'x').exists()


def test_a_missing_or_cut_archive_starts_nothing(machine):
    pack(machine, 'one.tar.gz', {'a.py': '1'})
    unpack(machine, 'one.tar.gz')
    unpack(machine, 'absent.tar.gz', then='touch started', code=1)
    data = (machine.home / 'one.tar.gz').read_bytes()
    (machine.home / 'cut.tar.gz').write_bytes(data[: len(data) // 2])
    unpack(machine, 'cut.tar.gz', then='touch started', code=1)
    assert not (machine.home / 'a folder' / 'started').exists()
