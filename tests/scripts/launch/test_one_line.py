"""What cannot be is one line before anything is requested, and acts on no terminal."""

import os
import pathlib
import subprocess
import sys

import pytest

from elenchus.scripts.launch import commands, exit_codes, jobsets, ssh, tpu
from elenchus.scripts.launch.commands import Commands, Result
from elenchus.scripts.launch.states import Policy, Progress, Resource, State
from elenchus.scripts.launch.transitions import advance
from tests.scripts.launch.test_gke import jobset, pod
from tests.support import launch_faults

LAUNCH = pathlib.Path(commands.__file__).parent
RUN = ['--', '--config=configs/lab.py', '--workdir=gs://b/run']
AT = ['--name=pod', '--zone=z', '--project=p']


@pytest.fixture(autouse=True)
def launches(tmp_path):
    """Ledgers are kept apart from those of this machine."""
    with launch_faults.launches_in(tmp_path / 'launches'):
        yield


def error_of(capsys, arguments, main=tpu.main):
    """The one line of a command that is refused before any other command is run."""
    assert main(arguments) == exit_codes.REFUSAL
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ') and '\x1b' not in line
    return line


@pytest.fixture
def idle(monkeypatch):
    """No command may be run."""
    monkeypatch.setattr(Commands, 'run', lambda *_, **__: pytest.fail('a command was run'))


@pytest.mark.parametrize(
    ('flag', 'most'),
    [
        ('--poll=1e12', 86400),
        ('--poll=86401', 86400),
        ('--max_hours=1e300', 1000000),
        ('--retries=99999999999999999999', 1000000),
        ('--lines=1000001', 1000000),
    ],
)
def test_a_number_beyond_all_use_is_refused_with_the_largest(capsys, idle, flag, most):
    assert f'nearest: {most}' in error_of(capsys, ['keep', *AT, flag, *RUN])


def test_a_port_has_a_largest_number(capsys, idle):
    line = error_of(capsys, ['keep', '--hosts=a', '--port=65536', *RUN], ssh.main)
    assert 'nearest: 65535' in line


@pytest.mark.parametrize('word', ['--workdir=gs://b/\udcff', '--config.x=\udce9', '--x=\ud800'])
def test_a_word_that_is_no_text_is_refused(capsys, idle, word):
    assert 'UTF-8' in error_of(capsys, ['keep', *AT, *RUN, word])
    assert 'UTF-8' in error_of(capsys, ['status', f'--name={word}'])


def test_a_word_that_is_no_text_is_refused_from_a_shell_too():
    words = [b'bash', os.fsencode(LAUNCH / 'tpu.sh'), b'create', b'--name=pod', b'--zone=\xff']
    done = subprocess.run(
        words, capture_output=True, check=False, env={**os.environ, 'LC_ALL': 'C'}
    )
    assert done.returncode == 2 and done.stderr.count(b'\n') == 1, done.stderr
    assert done.stderr.startswith(b'error: ')


@pytest.mark.parametrize('into', ['file', 'file/below', '/proc', '/proc/x', 'a' * 300, 'nul\0'])
def test_fetch_into_no_folder_is_refused(capsys, idle, tmp_path, into):
    (tmp_path / 'file').touch()
    path = into if into.startswith('/') else tmp_path / into
    assert '--into=' in error_of(capsys, ['fetch', '--workdir=gs://b/r', f'--into={path}'])


@pytest.mark.parametrize('workdir', ['/shared/run', 'runs/x', 'gs:/b/run', 'gs://', 'gs:///'])
def test_fetch_of_no_bucket_is_refused(capsys, idle, tmp_path, workdir):
    line = error_of(capsys, ['fetch', f'--workdir={workdir}', f'--into={tmp_path / "x"}'])
    assert f'--workdir={workdir}' in line and 'gs://BUCKET/FOLDER' in line
    assert not (tmp_path / 'x').exists()


def test_fetch_mixes_no_two_runs(capsys, monkeypatch, tmp_path):
    done, into = [], f'--into={tmp_path / "x"}'
    missing = Result(1, '', 'ERROR: (gcloud.storage.rsync) Did not find gs://b/rnu1')
    monkeypatch.setattr(Commands, 'run', lambda *_, **__: missing)
    assert tpu.main(['fetch', '--workdir=gs://b/rnu1', into]) == 1  # which leaves no mark
    monkeypatch.setattr(Commands, 'run', lambda _, w, **__: done.append(w) or Result(0, '', ''))
    capsys.readouterr()
    for workdir in ('gs://b/run1', 'gs://b/run1/'):
        assert tpu.main(['fetch', f'--workdir={workdir}', into]) == 0
    line = error_of(capsys, ['fetch', '--workdir=gs://b/run2', into])
    assert 'has the results of gs://b/run1' in line and f'nearest: {tmp_path / "run2"}' in line
    assert len(done) == 2


@pytest.mark.parametrize('text', ['\x1b]0;x\x07\x1b[31m', 'a\rb', '\x9b31m', '\u202e'])
def test_what_clouds_and_users_write_acts_on_no_terminal(capsys, monkeypatch, text):
    for words in (['crea' + text], ['status', *AT, f'--spot={text}']):
        assert text not in error_of(capsys, words)
    failed = Result(1, '', f'ERROR: (gcloud.x) host says {text}')
    monkeypatch.setattr(Commands, 'run', lambda *_, **__: failed)
    assert tpu.main(['status', *AT]) == 1
    error = capsys.readouterr().err
    assert text not in error and 'host says' in error and error.count('\n') == 1


@pytest.mark.parametrize('launcher', ['slurm.sh', '__main__.py'])
def test_escape_sequences_of_a_command_line_are_shown(launcher):
    program = ['bash'] if launcher.endswith('.sh') else [sys.executable]
    words = [*program, str(LAUNCH / launcher), '--\x1b]0;ü\x07=\n']
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and '\x1b' not in done.stderr and '\x07' not in done.stderr
    assert done.stderr.count('\n') == 1 and '\\x1b]0;ü\\x07' in done.stderr


@pytest.mark.parametrize('words', [[], ['start'], ['status']])
def test_detached_without_arguments_says_how_it_is_used(words):
    done = subprocess.run(
        ['bash', str(LAUNCH / 'detached.sh'), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert done.stderr.startswith('error: use detached.sh start|')


@pytest.mark.parametrize(
    'reason', ['ContainerCreating', 'CreateContainerError', 'RunContainerError', 'PodInitializing']
)
def test_pods_that_never_run_end_at_the_budget_with_their_reason(reason):
    progress, now, policy = Progress(state=State.REQUESTED, requested=0.0), 0.0, Policy(max_hours=1)
    seen = jobsets.observe(jobset(), [pod('Pending', why=reason)])
    assert seen.resource is Resource.WAITING and seen.is_billed and reason in seen.detail
    for _ in range(200):
        progress, action = advance(progress, seen, now=now, policy=policy)
        if progress.ending:
            break
        now += action.delay
    assert progress.exit_code == exit_codes.BUDGET and reason in progress.why
    assert 3600 <= progress.billed_seconds(now) <= 3700


def test_pods_without_a_node_cost_nothing_and_say_why():
    status = {
        'type': 'PodScheduled', 'status': 'False', 'reason': 'Unschedulable', 'message': '0/3 nodes'
    }  # fmt: skip
    pending = {'status': {'phase': 'Pending', 'conditions': [status]}}
    seen = jobsets.observe(jobset(), [pending])
    assert not seen.is_billed and 'Unschedulable (0/3 nodes)' in seen.detail
    requested = Progress(state=State.REQUESTED, requested=0.0)
    progress, _ = advance(requested, seen, now=1e9, policy=Policy())
    assert progress.billing is None and not progress.ending


@pytest.mark.parametrize('reason', ['ErrImageNeverPull', 'InvalidImageName'])
def test_pods_that_cannot_start_fail_at_once(reason):
    assert jobsets.observe(jobset(), [pod('Pending', why=reason)]).resource is Resource.FAILED


@pytest.mark.parametrize(
    ('flag', 'words'),
    [
        ('--max_hours=0', 'nearest: 0.1'),
        ('--max_hours=0.0', 'nearest: 0.1'),
        ('--nodes=0', 'nearest: 1'),
        ('--gpus=00', 'nearest: 1'),
        ('--cpus=0', 'nearest: 1'),
        ('--nodes=99999999999999999999', 'whole number'),
        ('--time=abc', 'sbatch'),
        ('--time=', 'sbatch'),
        ('--time=0', 'sbatch'),
        ('--time=1:2:3:4', 'sbatch'),
        ('--again=maybe', 'yes no'),
    ],
)
def test_a_job_that_cannot_run_is_refused(flag, words):
    done = subprocess.run(
        ['bash', str(LAUNCH / 'slurm.sh'), '--dry_run', flag, *RUN],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr.count('\n') == 1 and words in done.stderr


@pytest.mark.parametrize('time', ['30', '1:30', '24:00:00', '1-12', '1-12:30', 'UNLIMITED'])
def test_times_of_sbatch_are_accepted(time):
    words = ['bash', str(LAUNCH / 'slurm.sh'), '--dry_run', f'--time={time}', *RUN]
    assert f'--time={time}' in subprocess.check_output(words, text=True).replace("'", '')


SQUEUE = '#!/bin/sh\nfor w; do case $w in --jobs=*) cat "$JOBS/${w#--jobs=}";; esac; done\n'
SBATCH = """#!/bin/sh
cat >/dev/null; n=$(ls "$JOBS" | wc -l)
echo PENDING >"$JOBS/$n"; echo "Submitted batch job $n"
"""


def test_a_work_directory_has_one_job_at_a_time(tmp_path):
    clone, jobs = tmp_path / 'clone', tmp_path / 'jobs'
    (clone / 'scripts' / 'launch').mkdir(parents=True)
    jobs.mkdir()
    for name in ('slurm.sh', 'shared.sh'):
        (clone / 'scripts' / 'launch' / name).write_text((LAUNCH / name).read_text())
    for name, text in {'squeue': SQUEUE, 'sbatch': SBATCH}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'JOBS': str(jobs)}

    def submit(workdir, *flags):
        command = ['bash', str(clone / 'scripts/launch/slurm.sh'), *flags, '--', *workdir]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )  # fmt: skip

    assert submit(['--workdir=/shared/a']).stdout == 'Submitted batch job 0\n'
    for words in (['--workdir=/shared/a'], ['--workdir', '/shared/a/'], ['-workdir=/shared/a//']):
        again = submit(words)
        assert (again.returncode, again.stdout) == (2, ''), again
        assert 'job 0 is PENDING' in again.stderr and '--again=yes' in again.stderr
    assert submit(['--workdir=/shared/b']).returncode == 0
    assert submit(['--workdir=/shared/a'], '--again=yes').stdout == 'Submitted batch job 2\n'
    for state in ('RUNNING', 'REQUEUED', 'SUSPENDED', 'COMPLETING'):
        (jobs / '2').write_text(state)
        assert submit(['--workdir=/shared/a']).returncode == 2
    for state in ('COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT', ''):
        for job in jobs.iterdir():
            job.write_text(state)
        assert submit(['--workdir=/shared/a']).returncode == 0
