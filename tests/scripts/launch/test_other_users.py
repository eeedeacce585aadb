"""A slice of a name that is another user's: it is neither taken over nor deleted."""

import os
import pathlib
import subprocess

import pytest

from elenchus.scripts.launch import actions, launched_run, options, owners, sources, tpu
from elenchus.scripts.launch.commands import Commands, Result
from elenchus.scripts.launch.states import Run
from tests.support import gcloud_errors as errors
from tests.support import launch_faults
from tests.support.fake_gcloud import FakeClock

RUN = launch_faults.RUN


class Slice(Commands):
    """gcloud with one slice, whose host has a home folder for each user."""

    def __init__(self, folder, user, *, state='ACTIVE', lost=False):
        super().__init__()
        self.folder, self.user, self.state, self.lost = folder, user, state, lost
        self.verbs = []
        (folder / user).mkdir(parents=True, exist_ok=True)

    def run(self, words, *, patience=None):
        """Answers one command."""
        verb = words[1] if words[1] == 'config' else words[4]
        self.verbs.append(verb)
        if verb == 'config':
            return Result(0, 'p\n', '')
        if verb == 'create':
            return errors.already_exists('pod')
        if verb == 'describe':
            return Result(0, self.state + '\n', '')
        if verb != 'ssh':
            return Result(0, '', '')
        if self.lost:
            return errors.SSH
        (command,) = [w.partition('=')[2] for w in words if w.startswith('--command=')]
        home = self.folder / self.user
        done = subprocess.run(
            ['bash', '-c', command],
            env={**os.environ, 'HOME': str(home), 'ELENCHUS_HOMES': f'{self.folder}/*'},
            cwd=home, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(autouse=True)
def launches(tmp_path):
    """Ledgers are kept apart from those of this machine."""
    with launch_faults.launches_in(tmp_path / 'launches'):
        yield


def session(gcloud, lines, **flags):
    """A command line of tpu.sh on the slice."""
    cloud = tpu.Tpu(tpu.TpuOptions(name='pod', zone='z', **flags), RUN, gcloud)
    path = pathlib.Path('/x/elenchus-abc.tar.gz')
    cloud.launched.sources = sources.Sources(path, 'abc', frozenset(), '')
    cloud.launched.key = launched_run.key_of(RUN)
    line = actions.Session(cloud.flags, cloud, gcloud)
    line.clock, line.say = FakeClock(), lines.append
    return line


def begin(home, name='pod', *, state='running'):
    """A run of a user on the host, as detached.sh leaves it, or a launch that waits for it."""
    folder = home / '.elenchus' / name
    (folder / 'host').mkdir(parents=True)
    (folder / 'watched').write_text('1')
    if state != 'coming':
        (folder / 'host' / 'key').write_text('key')
    if state == 'ended':
        (folder / 'host' / 'exit_code').write_text('0')


@pytest.mark.parametrize('name', ['pod', 'other'])
@pytest.mark.parametrize('state', ['running', 'ended'])
@pytest.mark.parametrize('action', ['keep', 'create', 'install', 'start', 'delete'])
def test_a_second_user_changes_nothing_and_hears_who_and_what(tmp_path, action, state, name):
    begin(tmp_path / 'homes' / 'anna', name, state=state)
    gcloud, lines = Slice(tmp_path / 'homes', 'ben'), []
    line = session(gcloud, lines)
    if action == 'keep':
        assert line.keep() == 2
    else:
        with pytest.raises(options.UsageError) as error:
            line.act(action)
        lines.append(str(error.value))
    assert f'{name} of anna' in lines[-1] and state in lines[-1] and '\n' not in lines[-1]
    assert not {'create', 'delete', 'scp'} & set(gcloud.verbs)
    assert not list((tmp_path / 'homes' / 'ben').rglob('*'))  # the guard reads these files
    assert line.ledger.read().requested is None and line.ledger.read().billing is None


@pytest.mark.parametrize('action', ['keep', 'delete'])
def test_a_slice_whose_owner_is_about_to_install_is_theirs_too(tmp_path, action):
    begin(tmp_path / 'homes' / 'anna', state='coming')
    gcloud, lines = Slice(tmp_path / 'homes', 'ben'), []
    line = session(gcloud, lines)
    if action == 'keep':
        assert line.keep() == 2 and 'anna launches pod' in lines[-1]
    else:
        with pytest.raises(options.UsageError, match='anna launches pod'):
            line.act(action)
    assert 'delete' not in gcloud.verbs


def test_the_owner_sees_an_own_run_beside_runs_of_others(tmp_path):
    begin(tmp_path / 'homes' / 'ben', state='ended')
    begin(tmp_path / 'homes' / 'anna')
    line = session(Slice(tmp_path / 'homes', 'ben'), [])
    assert line.cloud.look().run is not Run.OTHER
    line.act('delete')
    assert 'delete' in line.commands.verbs


@pytest.mark.parametrize('action', ['keep', 'delete'])
def test_hosts_that_do_not_say_whose_they_are_are_not_deleted(tmp_path, action):
    gcloud, lines = Slice(tmp_path / 'homes', 'ben', lost=True), []
    line = session(gcloud, lines)
    if action == 'keep':
        assert line.keep() == 1
    else:
        with pytest.raises(actions.CloudError, match='queued-resources delete pod') as error:
            line.act(action)
        assert '\n' not in str(error.value)
    assert 'delete' not in gcloud.verbs


@pytest.mark.parametrize('state', ['WAITING_FOR_RESOURCES', 'ACTIVE'])
def test_a_slice_of_nobody_else_is_deleted_by_its_name(tmp_path, state):
    line = session(Slice(tmp_path / 'homes', 'ben', state=state), [])
    assert line.act('delete') == 0 and line.commands.verbs[-1] == 'delete'


def test_a_start_that_was_overtaken_starts_nothing(tmp_path):
    begin(tmp_path / 'homes' / 'anna')
    line = session(Slice(tmp_path / 'homes', 'ben'), [])
    with pytest.raises(actions.CloudError, match='pod anna|anna pod'):
        line.cloud.start()


def test_status_of_a_slice_of_somebody_else_names_them_and_starts_no_bill(tmp_path, capsys):
    begin(tmp_path / 'homes' / 'anna')
    line = session(Slice(tmp_path / 'homes', 'ben'), [])
    line.flags = line.cloud.flags
    assert line.status() == 0
    assert 'pod of anna' in capsys.readouterr().out
    assert line.ledger.read().billing is None


def test_words_of_other_commands_name_nobody():
    assert owners.describe_others('elenchus-other a b\nx elenchus-other', is_ours=False) == ''
