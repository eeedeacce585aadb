"""Which run a command line means: the work directory tells, not the commit."""

import json
import subprocess

import pytest

from elenchus.scripts.launch import launched_run
from elenchus.scripts.launch.cloud import Refused
from elenchus.scripts.launch.launched_run import LaunchedRun
from elenchus.scripts.launch.ledger import Ledger
from elenchus.scripts.launch.options import UsageError
from elenchus.scripts.launch.states import Progress, State
from tests.support.launch_faults import launches_in

RUN = ('--config=a.py', '--workdir=gs://b/run')


class Clone:
    """A clone of two commits or more."""

    def __init__(self, folder):
        self.root = folder
        self._git('init', '-q')

    def _git(self, *words):
        git = ['git', '-C', str(self.root), '-c', 'user.name=x', '-c', 'user.email=x@x']
        return subprocess.check_output([*git, *words], text=True)

    def commit(self, **files):
        """Commits files; returns the commit's name."""
        for name, text in files.items():
            (self.root / f'{name}.py').write_text(text)
        self._git('add', '.')
        self._git('commit', '-qm', 'x', '--allow-empty')
        return self._git('rev-parse', 'HEAD')[:12]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    (tmp_path / 'clone').mkdir()
    monkeypatch.setattr(launched_run, 'ROOT', tmp_path / 'clone')
    with launches_in(tmp_path / 'launches'):
        yield Clone(tmp_path / 'clone')


def prepare(*, run=RUN, tree='head', update=False, name='pod'):
    """What `keep` does with its command line."""
    launched = LaunchedRun(run, Ledger('tpu', name), tree=tree, update=update)
    launched.prepare()
    launched.remember()
    return launched


@pytest.mark.parametrize('tree', ['head', 'dirty'])
def test_after_a_commit_a_launch_goes_on_with_its_sources_and_arguments(clone, tree, capsys):
    clone.commit(a='1')
    (clone.root / 'a.py').write_text('2')
    began = prepare(tree=tree)
    archive = began.sources.path.read_bytes()
    new = clone.commit(a='3')
    (clone.root / 'a.py').unlink()  # the old config is gone, which is no reason to leave the run
    again = prepare(run=('--config=b.py', *RUN[1:]), tree=tree)
    assert (again.version, again.arguments) == (began.version, began.arguments)
    assert again.sources.path.read_bytes() == archive
    said = capsys.readouterr().err
    assert f'commit {began.sources.version}' in said and new in said and 'other arguments' in said
    assert not again.is_replaced_by_this(began.version)


def test_a_new_commit_is_started_on_request_and_after_the_end_of_a_launch(clone):
    first = clone.commit(a='1')
    assert prepare().sources.version == first
    second = clone.commit(a='2')
    assert prepare().sources.version == first
    assert prepare(run=('--config=a.py', '--workdir=gs://b/other')).sources.version == second
    assert prepare(name='pod2').sources.version == second
    updated = prepare(update=True)
    assert updated.sources.version == second
    assert updated.is_replaced_by_this(launched_run.version_of(first, RUN))
    assert not updated.is_replaced_by_this(updated.version)
    clone.commit(a='3')
    assert prepare().sources.version == second
    Ledger('tpu', 'pod').write(Progress(state=State.FAILED, ending=True))
    assert prepare().sources.version not in (first, second)
    third = clone.commit(a='4')
    Ledger('tpu', 'pod').write(Progress(state=State.REQUESTED))
    Ledger('tpu', 'pod').forget_run()  # as the action `create` does
    assert prepare().sources.version == third


def test_another_machine_goes_on_with_the_commit_that_runs(clone, capsys):
    first = clone.commit(a='1')
    clone.commit(a='2')
    ours = prepare()
    for _ in range(3):
        assert not ours.is_replaced_by_this(launched_run.version_of(first, RUN))
    assert ours.sources.version == first  # a restart is from there
    ours.check_startable()
    assert capsys.readouterr().err.count('runs there, and goes on') == 1


@pytest.mark.parametrize(
    'version',
    ['0123456789ab-00000000', 'abc+def-1', '--output=x-1', launched_run.version_of('0', ())],
)
def test_sources_that_are_not_here_are_not_started_from_here(clone, version):
    clone.commit(a='1')
    ours = prepare()
    assert not ours.is_replaced_by_this(version)
    with pytest.raises(Refused, match='--update=yes'):
        ours.check_startable()


def test_a_stored_run_that_is_damaged_is_none(clone):
    clone.commit(a='1')
    prepare()
    path = Ledger('tpu', 'pod').path
    for text in ('', '{', '[]', '{"version": 1}', '{"version": "a", "run": 3, "archive": "x"}'):
        path.with_suffix('.run').write_text(text)
        second = clone.commit(a=f'2{text}')
        launched = LaunchedRun(RUN, Ledger('tpu', 'pod'), tree='head', update=False)
        launched.prepare()
        assert launched.sources.version == second


@pytest.mark.parametrize('damage', [b'', b'no archive', 100, -1])
def test_kept_sources_that_are_damaged_are_packed_again(clone, damage, capsys):
    commit = clone.commit(a='1' * 5000)
    prepare()
    archive = Ledger('tpu', 'pod').path.with_suffix('.tar.gz')
    whole = archive.read_bytes()
    archive.write_bytes(damage if isinstance(damage, bytes) else whole[:damage])
    clone.commit(a='2')
    launched = prepare()
    assert launched.sources.version == commit and launched.sources.path.read_bytes() == whole
    assert archive.read_bytes() == whole and 'is damaged' in capsys.readouterr().err


def test_damaged_sources_of_no_commit_are_one_line(clone):
    clone.commit(a='1')
    (clone.root / 'a.py').write_text('2')
    prepare(tree='dirty')
    Ledger('tpu', 'pod').path.with_suffix('.tar.gz').write_bytes(b'x')
    with pytest.raises(UsageError, match='are damaged .*--update=yes'):
        prepare(tree='dirty')
    assert prepare(tree='dirty', update=True).sources.path.stat().st_size > 1


WHOLE = json.dumps({'state': 'running', 'billed': 7200.0, 'crashes': 2})
DAMAGE = [
    *('', WHOLE[:20], 'null', '[]', '{"state": 5}', '{"state": "x"}'),
    *('{"state": "running", "billing": "x"}', '{"state": "running", "crashes": null}'),
]


@pytest.mark.parametrize('text', DAMAGE)
def test_a_damaged_ledger_is_said_once_and_put_aside(text, tmp_path, capsys):
    with launches_in(tmp_path):
        ledger = Ledger('tpu', 'pod')
        ledger.path.parent.mkdir()
        ledger.path.write_text(text)
        assert [ledger.read(), ledger.read()] == [Progress(), Progress()]
    (line,) = capsys.readouterr().err.splitlines()
    assert f'warning: {ledger.path} is damaged' in line
    assert ledger.path.with_suffix('.damaged').read_text() == text


def test_a_whole_ledger_is_read_with_fields_of_other_versions(tmp_path, capsys):
    with launches_in(tmp_path):
        ledger = Ledger('tpu', 'pod')
        ledger.write(Progress(state=State.RUNNING, billed=7200, crashes=2, billing=1.5))
        stored = json.loads(ledger.path.read_text())
        ledger.path.write_text(json.dumps({**stored, 'newer': [1]}))
        progress = ledger.read()
    assert (progress.billed, progress.crashes, progress.billing) == (7200, 2, 1.5)
    assert not capsys.readouterr().err
