"""Commands of the launchers, as printed by --dry_run; none of them is run."""

import dataclasses
import pathlib
import shlex
import subprocess

import pytest

from elenchus.scripts.launch import gke, ssh, tpu

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


def test_flags_of_the_run_are_passed_unchanged():
    (command,) = [c for c in commands('ssh', 'start', '--hosts=a', *RUN) if c[0] == 'ssh']
    words = remote(command)
    there = words.index('scripts/launch/worker.sh')
    assert words[there + 2 : there + 5] == RUN[1:]
    assert words[-3:] == ['--coordinator=a:8476', '--num_processes=1', '--process_id=0']


def test_slurm_starts_a_process_per_gpu_and_requeues_after_a_notice():
    output = launch('slurm', '--dry_run', '--nodes=2', '--gpus=4', *RUN).stdout
    words = shlex.split(output.splitlines()[0].partition('<<')[0])
    assert {'--nodes=2', '--ntasks-per-node=4', '--signal=TERM@180', '--requeue'} <= set(words)
    assert 'srun --cpus-per-task=8 ' in output and 'scontrol requeue' in output


@pytest.mark.parametrize(
    ('name', 'arguments', 'words'),
    [
        ('tpu', ['create', '--zne=x'], ['unknown flag --zne', 'zone']),
        ('tpu', ['create', '--zone=x'], ['--name', 'required']),
        ('tpu', ['crate', *AT], ['unknown action crate', 'create']),
        ('tpu', AT, ['no action given', 'create']),
        ('gke', ['create', *AT, '--cluster=c', '--device=x'], ['--device=x', 'tpu, gpu']),
        ('gke', ['create', *AT, '--cluster=c', '--type=t', '--name=N'], ['--name=N', 'lower-case']),
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
    assert done.returncode == 0 and f'bash scripts/launch/{name}.sh' in done.stdout
    if name == 'slurm':
        text = (SCRIPTS / 'slurm.sh').read_text()
        lines = text.split('## flags\n')[1].split('## end')[0].splitlines()
        flags = [line.partition('=')[0] for line in lines]
    else:
        kinds = {'tpu': tpu.TpuOptions, 'gke': gke.GkeOptions, 'ssh': ssh.SshOptions}
        flags = [field.name for field in dataclasses.fields(kinds[name])]
    assert not [flag for flag in flags if f'--{flag}=' not in done.stdout]
