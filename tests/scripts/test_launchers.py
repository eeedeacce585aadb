"""Commands of the launchers, as printed by --dry_run; none of them is run."""

import pathlib
import shlex
import subprocess

import pytest

SCRIPTS = pathlib.Path(__file__).parents[2] / 'scripts' / 'launch'
RUN = ['--', '--config=configs/lab.py', '--workdir=gs://bucket/a run', '--config.mesh=(1,-1,1)']
AT = ['--name=pod', '--zone=z']


def launch(name, *arguments):
    return subprocess.run(
        ['bash', str(SCRIPTS / f'{name}.sh'), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def commands(name, *arguments):
    """Words of every command that a dry run prints."""
    done = launch(name, '--dry_run', *arguments)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def remote(command):
    """Words of the command for another machine."""
    text = next(word for word in command if 'worker.sh' in word)
    return shlex.split(text.removeprefix('--command='))


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        ('gke', ['submit', *AT, '--cluster=c']),
        ('ssh', ['start', '--hosts=a']),
    ],
)
def test_flags_of_the_run_are_passed_unchanged(name, arguments):
    (command,) = commands(name, *arguments, *RUN)
    words = remote(command)
    assert words[-3:] == RUN[1:] and 'scripts/launch/worker.sh' in words


def test_gke_restarts_a_preempted_run():
    (command,) = commands('gke', 'submit', *AT, '--cluster=c', *RUN)
    assert {'--restart-on-exit-codes=75', '--tpu-type=v5p-128', '--num-slices=1'} <= set(command)
    (command,) = commands('gke', 'submit', *AT, '--cluster=c', '--device=gpu', '--type=h100', *RUN)
    assert {'--device-type=h100', '--num-nodes=1'} <= set(command)
    assert remote(command)[-5] == 'cuda13'


def test_slurm_starts_a_process_per_gpu_and_requeues_after_a_notice():
    output = launch('slurm', '--dry_run', '--nodes=2', '--gpus=4', *RUN).stdout
    words = shlex.split(output.splitlines()[0].partition('<<')[0])
    assert {'--nodes=2', '--ntasks-per-node=4', '--signal=TERM@180', '--requeue'} <= set(words)
    assert 'code == 75' in output and 'scontrol requeue' in output


def test_ssh_gives_each_machine_its_number_and_the_first_as_coordinator():
    commands_of_hosts = [
        remote(c) for c in commands('ssh', 'start', '--hosts=u@a,b', '--port=9', *RUN)
    ]
    assert all(
        {'--coordinator=a:9', '--num_processes=2'} <= set(words) for words in commands_of_hosts
    )
    assert ['--process_id=0' in words for words in commands_of_hosts] == [True, False]


@pytest.mark.parametrize(
    ('name', 'arguments', 'words'),
    [
        (
            'gke',
            ['submit', *AT, '--cluster=c', '--device=x'],
            ['unknown --device=x; use tpu or gpu'],
        ),
        ('slurm', ['--nodes=2'], ['the arguments of scripts.run are required']),
        ('ssh', ['start'], ['--hosts is required']),
    ],
)
def test_a_wrong_argument_is_one_line_and_nothing_is_run(name, arguments, words):
    done = launch(name, *arguments)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert all(word in done.stderr for word in words)


@pytest.mark.parametrize('name', ['gke', 'slurm', 'ssh'])
def test_help_lists_the_purpose_and_every_flag(name):
    done = launch(name, '--help')
    text = (SCRIPTS / f'{name}.sh').read_text()
    block = text.split('## flags\n')[1].split('## end')[0]
    assert done.returncode == 0 and f'bash scripts/launch/{name}.sh' in done.stdout
    for line in block.splitlines():
        assert f'--{line.partition("=")[0]}=' in done.stdout
