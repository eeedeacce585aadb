"""What a user does wrong at a launcher's command line, and what that costs: nothing."""

import os
import pathlib
import subprocess

import pytest

from elenchus.scripts.launch import actions, options, ssh, tpu
from elenchus.scripts.launch.commands import Commands
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
