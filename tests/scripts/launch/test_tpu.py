"""Commands and refusals of tpu.sh."""

import contextlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

from elenchus.scripts.launch import commands, remote, sources, tpu, tpu_types
from elenchus.scripts.launch.commands import Result
from elenchus.scripts.launch.options import UsageError
from elenchus.scripts.launch.states import Cause
from tests.support import gcloud_errors as errors

LAUNCH = pathlib.Path(__file__).parents[3] / 'scripts' / 'launch'
RUN = ['--', '--config=configs/lab.py', '--workdir=gs://bucket/a run', '--config.mesh=(1,-1,1)']
AT = ['--name=pod', '--zone=z']


def launch(*arguments, **options):
    return subprocess.run(
        ['bash', str(LAUNCH / 'tpu.sh'), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def printed(*arguments):
    """Words of every command that a dry run prints."""
    process = launch('--dry_run', *arguments)
    assert process.returncode == 0, process.stderr
    return [shlex.split(line) for line in process.stdout.splitlines() if line.startswith('gcloud')]


def test_arguments_of_the_run_arrive_unchanged_and_the_cache_is_in_the_bucket():
    (command,) = printed('start', *AT, *RUN)
    (text,) = [word for word in command if word.startswith('--command=')]
    words = shlex.split(text)
    assert words[-3:] == RUN[1:]
    assert 'JAX_COMPILATION_CACHE_DIR=gs://bucket/compilation_cache' in words


def test_every_flag_reaches_gcloud():
    flags = ['--service_account=a@b', '--network=n', '--subnetwork=s', '--internal_ips=yes']
    flags += ['--labels=a=b', '--metadata=c=d', '--valid_until_duration=6h', '--spot=yes']
    (command,) = printed('create', *AT, '--project=p', '--type=v6e-8', *flags)
    wanted = {f.replace('_', '-').replace('=yes', '') for f in flags}
    # An end of the interval alone is dropped by gcloud (SDK 528, SetValidInterval).
    wanted |= {
        '--valid-after-duration=1s',
        '--project=p',
        '--accelerator-type=v6e-8',
        '--runtime-version=v2-alpha-tpuv6e',
        '--node-id=pod',
    }
    assert wanted <= set(command)
    (ssh,) = printed('stop', *AT, '--internal_ips=yes')
    assert '--internal-ip' in ssh and '--worker=all' in ssh


def test_flex_start_and_the_guard_get_the_budget():
    flags = ['--project=p', '--max_hours=2', '--after=leave']
    (command,) = printed('create', *AT, *flags, '--flex_start=yes')
    assert command[:2] == ['gcloud', 'alpha']
    assert {'--provisioning-model=flex-start', '--max-run-duration=7200s'} <= set(command)
    (command,) = printed('create', *AT, *flags, '--flex_start=yes', '--guard=no')
    assert not [word for word in command if word.startswith('--metadata-from-file')]


@pytest.mark.parametrize(
    ('kind', 'version'),
    [
        ('v4-8', 'tpu-ubuntu2204-base'),
        ('v5litepod-16', 'v2-alpha-tpuv5-lite'),
        ('v5p-8', 'v2-alpha-tpuv5'),
        ('v6e-256', 'v2-alpha-tpuv6e'),
    ],
)
def test_the_runtime_follows_the_type(kind, version):
    assert tpu_types.runtime_version(kind) == version


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        ('v7x-8', 'gke.sh'),
        ('tpu7x-8', 'gke.sh'),
        ('v5e-16', 'nearest: v5litepod-16'),
        ('v6e-17', 'nearest: v6e-16'),
        ('v5p-9', 'nearest: v5p-8'),
        ('h100', 'nearest: v'),
        ('', 'nearest: v'),
    ],
)
def test_a_type_that_is_none_is_refused_with_the_nearest(kind, words):
    with pytest.raises(UsageError, match=words):
        tpu_types.runtime_version(kind)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['create', *AT, '--spot=true'], ['--spot=true', 'nearest: yes']),
        (['create', *AT, '--spot='], ['must be one of yes, no']),
        (['create', *AT, '--after=keep'], ['delete, leave']),
        (['create', *AT, '--max_hours=nan'], ['must be a number']),
        (['create', *AT, '--max_hours=-1'], ['at least 0']),
        (['create', *AT, '--retries=x'], ['must be a number']),
        (['create', *AT, '--spot=yes', '--reserved=yes'], ['exclude each other']),
        (['create', *AT, '--spot=yes', '--flex_start=yes'], ['excludes']),
        (['create', *AT, '--metadata=startup-script=x'], ['--guard=no']),
        (['create', '--name=My_Pod', '--zone=z'], ['nearest: my-pod']),
        (['create', '--zne=x'], ['unknown flag --zne', '--zone']),
        (['create', '--zone=x'], ['--name is required']),
        (['crate', *AT], ['unknown action crate', 'create']),
        (AT, ['no action given', 'create']),
        (['keep', *AT], ['arguments of scripts.run are required']),
        (['keep', *AT, '--', '--config=configs/lab.py', '--workdir=runs/x'], ['gs://']),
        (['keep', *AT, '--', '--config=configs/no.py', '--workdir=gs://b/x'], ['not among']),
        (['push', '--inputs=nowhere', '--to=gs://b'], ['file not found']),
    ],
)
def test_a_wrong_argument_is_one_line_and_nothing_is_run(arguments, words):
    process = launch(*arguments)
    lines = [line for line in process.stderr.splitlines() if not line.startswith('[launch]')]
    assert process.returncode == 2 and not process.stdout
    assert len(lines) == 1 and lines[0].startswith('error: ')
    assert all(word in lines[0] for word in words)


def test_help_names_every_action_and_flag():
    process = launch('--help')
    assert process.returncode == 0
    for word in ('keep', 'status', 'logs', 'fetch', 'push', 'stop', 'delete', 'cost'):
        assert f'\n  {word} ' in process.stdout
    assert '--max_hours=24' in process.stdout and '--after=delete' in process.stdout


@pytest.mark.parametrize('version', ['3.9', '3.10'])
def test_old_pythons_of_laptops_run_it(version):
    python = shutil.which(f'python{version}') or shutil.which('python3')
    process = launch('--help', env={**os.environ, 'ELENCHUS_PYTHON': python, 'PYTHONPATH': ''})
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    ('result', 'cause'),
    [
        (Result(255, '', 'x'), Cause.UNREACHABLE),
        (Result(1, '', 'ERROR: ... exited with return code [255].'), Cause.UNREACHABLE),
        (Result(1, '', 'ERROR: (gcloud) 503 UNAVAILABLE'), Cause.UNREACHABLE),
        (Result(1, '', 'ERROR: Reauthentication failed'), Cause.LOGIN),
        (Result(1, '', 'ERROR: PERMISSION_DENIED'), Cause.REFUSED),
        (Result(2, '', 'unrecognized arguments: --x'), Cause.REFUSED),
        (Result(1, 'something', ''), Cause.FAILED),
    ],
)
def test_errors_have_their_cause(result, cause):
    assert commands.error_of(result).cause is cause


@pytest.mark.parametrize(
    ('result', 'cause', 'words'),
    [
        (errors.NETWORK, Cause.UNREACHABLE, 'Max retries exceeded'),
        (errors.TOKEN, Cause.LOGIN, 'invalid_grant'),
        (errors.SERVER, Cause.UNREACHABLE, 'UNAVAILABLE'),
        (errors.RATE, Cause.UNREACHABLE, 'per minute'),
        (errors.SSH, Cause.UNREACHABLE, 'Connection timed out'),
        (errors.DOWN, Cause.UNREACHABLE, 'PREEMPTED'),
        (errors.LOGIN, Cause.REFUSED, 'active account'),
        (errors.QUOTA, Cause.REFUSED, 'Quota limit'),
        (errors.PERMISSION, Cause.REFUSED, "Permission 'tpu.nodes.create' denied"),
        (errors.AGENT, Cause.REFUSED, 'ssh-add'),
        (errors.CAPACITY, Cause.FAILED, 'no more capacity'),
        (Result(255, '', 'scp: write remote "x": Failure'), Cause.FAILED, 'write remote'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_published_errors_have_their_cause_and_one_line_that_says_it(result, cause, words):
    error = commands.error_of(result)
    assert error.cause is cause
    assert words in str(error) and '\n' not in str(error) and 'ErrorInfo' not in str(error)


def test_a_host_that_failed_after_a_lost_connection_is_no_lost_connection():
    """gcloud prints its tries; the code is that of the command on the host."""
    cloud = tpu.Tpu(tpu.TpuOptions(name='pod', zone='z'), (), commands.Commands())
    text = errors.RETRIES + '[setup] error: no Python 3.11 or newer\n'
    text += '##### Command execution on worker 0 failed with exit status 1. Continuing.\n'
    cloud.commands.run = lambda words, patience=None: Result(1, '', text)
    with pytest.raises(commands.CloudError, match='no Python') as error:
        cloud._check(['gcloud'])
    assert error.value.cause is Cause.FAILED


@pytest.mark.parametrize(
    ('workdir', 'cache'),
    [
        ('gs://b/run', 'gs://b/compilation_cache'),
        ('gs://b/a/run/', 'gs://b/a/compilation_cache'),
        ('gs://b', 'gs://b/compilation_cache'),
        ('/shared/run', ''),
    ],
)
def test_compiled_programs_lie_beside_the_run(workdir, cache):
    assert remote.compilation_cache(workdir) == cache


def test_a_dirty_tree_is_named_and_shipped_on_request(tmp_path):
    root = tmp_path / 'clone'
    root.mkdir()
    git = ['git', '-C', str(root), '-c', 'user.name=x', '-c', 'user.email=x@x']
    (root / 'a.py').write_text('1')
    for words in (['init', '-q'], ['add', '.'], ['commit', '-qm', 'x']):
        subprocess.run([*git, *words], check=True)
    clean = sources.pack(root, tmp_path, tree='dirty')
    (root / 'b.py').write_text('2')
    head = sources.pack(root, tmp_path, tree='head')
    dirty = sources.pack(root, tmp_path, tree='dirty')
    assert not clean.warning and 'b.py' in head.warning and not dirty.warning
    assert head.version == clean.version != dirty.version and '+' in dirty.version
    assert (head.names, dirty.names) == ({'a.py'}, {'a.py', 'b.py'})
    with pytest.raises(UsageError, match='not committed'):
        sources.check_config(('--config=b.py',), root, head)
    with pytest.raises(UsageError, match='clone'):
        sources.pack(tmp_path, tmp_path, tree='head')


CONFIGS = {
    'lab': '',
    'configs/lab.py': '',
    './configs/lab.py:smoke': '',
    'configs.lab:smoke': '',
    'elenchus.configs.methods.grpo': '',
    '/shared/mine.py': '',  # hosts may share it
    'ROOT/configs/lab.py': 'is a path of this machine; nearest: configs/lab.py',
    'ROOT/configs/la.py': 'not among the shipped files; nearest: configs/lab.py',
    'configs/la.py': 'not among the shipped files; nearest: configs/lab.py',
    'configs/lab': 'not among the shipped files; nearest: configs/lab.py',
    'la:smoke': 'not among the shipped files; nearest: configs/lab.py',
    'configs/mine.py': 'it is not committed',
    '': 'not among the shipped files',
}


@pytest.mark.parametrize('form', [['--config={}'], ['-config={}'], ['--config', '{}']])
@pytest.mark.parametrize('value', CONFIGS)
def test_a_config_that_hosts_would_not_find_is_refused_before_they_are_paid_for(
    value, form, tmp_path
):
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'mine.py').touch()
    names = frozenset({'configs/lab.py', 'configs/methods/grpo.py', 'README.md'})
    packed = sources.Sources(tmp_path, 'abc', names, '')
    run = (*(w.format(value.replace('ROOT', str(tmp_path))) for w in form), '--config.x=1')
    if not CONFIGS[value]:
        sources.check_config(run, tmp_path, packed)
        return
    with pytest.raises(UsageError, match=re.escape(CONFIGS[value])):
        sources.check_config(run, tmp_path, packed)


@pytest.mark.parametrize('run', [(), ('--config',), ('--config.x=1',), ('--confg=lab',)])
def test_a_run_without_a_config_is_refused(run, tmp_path):
    packed = sources.Sources(tmp_path, 'abc', frozenset({'configs/lab.py'}), '')
    with pytest.raises(UsageError, match='--config=... is required'):
        sources.check_config(run, tmp_path, packed)


def test_deleting_what_is_not_there_says_so(tmp_path):
    """A wrong --zone would else look like a deletion, and the slice goes on being billed."""
    gcloud = tmp_path / 'gcloud'
    gcloud.write_text(
        '#!/bin/sh\necho "ERROR: NOT_FOUND: queuedResources/pod was not found" >&2; exit 1\n'
    )
    gcloud.chmod(0o755)
    environment = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'ELENCHUS_LAUNCHES': str(tmp_path)}
    process = launch('delete', *AT, env={**os.environ, **environment})
    assert process.returncode == 0 and 'pod is not in z' in process.stderr


def test_a_reader_that_went_away_does_not_end_the_launcher(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    file = os.fdopen(write, 'w', buffering=1)
    monkeypatch.setattr('sys.stderr', file)
    commands.say('nobody reads this')
    with contextlib.suppress(BrokenPipeError):
        file.close()
