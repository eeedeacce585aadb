"""What a user does wrong at a launcher's command line, and what that costs: nothing."""

import os
import pathlib
import subprocess

import pytest

from elenchus.scripts.launch import actions, gke, launched_run, options, sources, ssh, tpu
from elenchus.scripts.launch.commands import Commands, Result
from elenchus.scripts.launch.ledger import Ledger
from elenchus.scripts.launch.states import Progress, State
from tests.support import launch_faults
from tests.support.fake_gcloud import FakeClock, FakeGcloud

LAUNCH = pathlib.Path(__file__).parents[3] / 'scripts' / 'launch'
RUN = launch_faults.RUN


@pytest.fixture(autouse=True)
def launches(tmp_path):
    """Ledgers are kept apart from those of this machine."""
    with launch_faults.launches_in(tmp_path / 'launches'):
        yield


def session(run=RUN, **flags):
    """A command line of tpu.sh."""
    flags = tpu.TpuOptions(**{'name': 'pod', 'zone': 'z', **flags})
    return actions.Session(flags, tpu.Tpu(flags, tuple(run), Commands()), Commands())


def remember(run, *names, state=State.RUNNING, ending=False):
    """A launch of this machine."""
    archive = pathlib.Path(os.environ['ELENCHUS_LAUNCHES']).parent / 'sources'
    archive.touch()
    ledger = Ledger(*names)
    ledger.write(Progress(state=state, ending=ending))
    ledger.write_run('abc-1', run, archive)


@pytest.mark.parametrize(
    ('names', 'state', 'ending', 'run', 'is_refused'),
    [
        (('tpu', '', 'us-west4-a', 'pod'), State.RUNNING, False, RUN, True),  # another region
        (('tpu', '', 'us-west4-a', 'other'), State.WAITING, False, RUN, True),
        (('tpu', 'p', 'z', 'pod'), State.REQUESTED, False, RUN, True),
        (('ssh', 'gpu1,gpu2', 'elenchus'), State.RUNNING, False, RUN, True),
        (('tpu', '', 'z', 'pod'), State.RUNNING, False, RUN, False),  # itself
        (('tpu', '', 'us-west4-a', 'pod'), State.DONE, True, RUN, False),
        (('tpu', '', 'us-west4-a', 'pod'), State.ABSENT, False, RUN, False),
        (('tpu', '', 'us-west4-a', 'pod'), State.RUNNING, False, ('--workdir=gs://b/x',), False),
    ],
)
def test_a_run_is_not_launched_in_two_places(names, state, ending, run, is_refused):
    remember(run, *names, state=state, ending=ending)
    if not is_refused:
        session().check_alone()
        return
    with pytest.raises(options.UsageError, match='at work already') as error:
        session().check_alone()
    assert names[-1] in str(error.value) and '\n' not in str(error.value)


def test_a_launcher_refuses_it_before_any_request(capsys, monkeypatch):
    remember(RUN, 'tpu', '', 'us-west4-a', 'pod')
    monkeypatch.setattr(tpu.Tpu, 'prepare', lambda self: None)
    monkeypatch.setattr(Commands, 'run', lambda *_, **__: pytest.fail('a command was run'))
    assert tpu.main(['keep', '--name=pod', '--zone=us-east5-a', '--', *RUN]) == 2
    assert 'us-west4-a pod' in capsys.readouterr().err


def test_a_deletion_in_the_wrong_zone_names_the_right_one():
    remember(RUN, 'tpu', '', 'us-west4-a', 'pod')
    lines = []
    wrong = launch_faults.make_session(FakeGcloud(FakeClock()), lines)
    assert wrong.act('delete') == 0
    assert lines == ['a launch of that name has not ended: tpu _ us-west4-a pod']


@pytest.mark.parametrize(
    'flag', ['--max_hours=0', '--alert=mail "me', '--max_hours=-1', '--retries=x', '--after=stay']
)
def test_flags_that_mean_nothing_are_refused_in_one_line(capsys, flag):
    for main in (tpu.main, ssh.main):
        assert main(['status', '--name=a', '--zone=z', flag] if main is tpu.main
                    else ['status', '--hosts=a', flag]) == 2  # fmt: skip
        error = capsys.readouterr().err
        assert error.startswith('error: ') and error.count('\n') == 1
        assert flag.partition('=')[0] in error


@pytest.mark.parametrize('action', ['status delete', 'cost', '--help'])
def test_a_reader_that_goes_away_is_no_traceback(tmp_path, action):
    program = tmp_path / 'bin' / 'gcloud'
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" >>"${0%gcloud}log"; echo WAITING_FOR_RESOURCES\n')
    program.chmod(0o755)
    command = f'bash {LAUNCH}/tpu.sh {action} --name=pod --zone=z | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ['bash', '-c', command],
        env={**os.environ, 'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}'},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 'Traceback' not in done.stderr and 'Exception' not in done.stderr, done.stderr
    assert done.stdout.strip() == '0'
    if action == 'status delete':  # what costs money is done all the same
        assert 'queued-resources delete pod' in (tmp_path / 'bin' / 'log').read_text()


def keep(flags, cloud, monkeypatch, result):
    """Runs `keep` where every command ends so; returns its code, lines, commands and seconds."""
    lines, words = [], []
    monkeypatch.setattr(
        Commands, 'run', lambda _, command, **__: words.append(command[0]) or result
    )
    cloud.launched.sources = sources.Sources(pathlib.Path('/x/a.tar.gz'), 'abc', frozenset(), '')
    cloud.launched.key = launched_run.key_of(RUN)
    command_line = actions.Session(flags, cloud, Commands())
    command_line.clock, command_line.say = FakeClock(), lines.append
    begin = command_line.clock.now()
    return command_line.keep(), lines, words, command_line.clock.now() - begin


KUBECTL = (
    'error: You must be logged in to the server (Unauthorized)',
    "E1129 memcache.go:265] couldn't get current server API group list: the server has asked for "
    'the client to provide credentials',
    'Unable to connect to the server: getting credentials: exec: executable gke-gcloud-auth-plugin '
    'failed with exit code 1',
    'error: the server doesn\'t have a resource type "jobset"',
    'error: context "gke_p_z_c" does not exist',
    'error: no configuration has been provided, try setting KUBERNETES_MASTER environment variable',
)


@pytest.mark.parametrize('text', KUBECTL)
def test_a_cluster_that_does_not_answer_ends_keep_before_a_build(monkeypatch, text):
    flags = gke.GkeOptions(name='run1', cluster='c', zone='z')
    cloud = gke.Workload(flags, RUN, Commands())
    code, lines, words, _ = keep(flags, cloud, monkeypatch, Result(1, '', text))
    assert code == 2 and words == ['kubectl'] and text[-20:] in lines[-1]


@pytest.mark.parametrize(
    'text',
    [
        'u@a: Permission denied (publickey,password).',
        'Host key verification failed.',
        'Bad owner or permissions on /home/u/.ssh/config',
    ],
)
def test_machines_that_let_nobody_in_end_keep_at_once(monkeypatch, text):
    flags = ssh.SshOptions(hosts='u@a,b')
    cloud = ssh.Machines(flags, RUN, Commands())
    code, lines, _, seconds = keep(flags, cloud, monkeypatch, Result(255, '', text))
    assert code == 2 and text.strip('.') in lines[-1] and seconds == 0
