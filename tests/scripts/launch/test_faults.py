"""Forty faults of a launch on Cloud TPU: what the user sees, what is billed, what stays."""

import pytest

from elenchus.scripts.launch import actions, driver, exit_codes
from elenchus.scripts.launch.ledger import Ledger
from elenchus.scripts.launch.options import UsageError
from tests.support import gcloud_errors as errors
from tests.support import launch_faults
from tests.support.fake_gcloud import FakeClock, FakeGcloud
from tests.support.launch_faults import FAULTS


@pytest.mark.parametrize('fault', FAULTS, ids=lambda fault: f'{fault.state}: {fault.name}')
def test_a_fault_ends_as_the_table_says(fault):
    end = launch_faults.meet(fault)
    cloud = end.cloud
    assert end.code == fault.code, end.lines
    assert fault.seen in end.seen, end.lines
    assert cloud.hours == pytest.approx(fault.hours, abs=0.01)
    assert (cloud.count('create'), cloud.processes) == (fault.requests, fault.processes)
    assert cloud.doubles == 0
    assert len(cloud.running) == fault.stays


def test_the_bill_of_the_launcher_is_that_of_the_cloud(tmp_path, capsys):
    fault = next(f for f in FAULTS if f.name == 'preempted without one')
    gcloud, lines = FakeGcloud(FakeClock(), **fault.cloud), []
    fault.begin(gcloud)
    with launch_faults.launches_in(tmp_path):
        session = launch_faults.make_session(gcloud, lines)
        session.keep()
        session.cost()
    hours = float(capsys.readouterr().out.split()[0])
    # It looks once a minute: each of the two slices is a minute or two off.
    assert hours == pytest.approx(gcloud.hours, abs=0.06) and hours > 1


def test_a_second_launcher_of_the_same_slice_is_refused(tmp_path):
    fault = next(f for f in FAULTS if f.name == 'nothing')
    with launch_faults.launches_in(tmp_path):
        first = launch_faults.make_session(FakeGcloud(FakeClock()), [])
        with (
            first.ledger.lock(),
            pytest.raises(UsageError, match='keeps pod already'),
        ):
            launch_faults.make_session(FakeGcloud(FakeClock()), [], **fault.flags).keep()


def test_a_keep_of_a_finished_run_starts_nothing(tmp_path):
    """Run twice, nothing is doubled: a complete run on a slice that was to stay is seen as such."""
    gcloud = FakeGcloud(FakeClock())
    with launch_faults.launches_in(tmp_path):
        for _ in range(2):
            assert launch_faults.make_session(gcloud, [], after='leave').keep() == 0
    assert (gcloud.count('create'), gcloud.processes) == (1, 2)


def test_a_ledger_that_cannot_be_written_does_not_end_keep(tmp_path, monkeypatch):
    """A full disk here is no reason to leave a slice to itself, which is billed."""
    gcloud, lines, write = FakeGcloud(FakeClock()), [], Ledger.write

    def refuse(ledger, progress):
        if gcloud.count('create'):
            raise OSError(28, 'No space left on device')
        write(ledger, progress)

    monkeypatch.setattr(Ledger, 'write', refuse)
    with launch_faults.launches_in(tmp_path):
        assert launch_faults.make_session(gcloud, lines).keep() == 0
    assert not gcloud.running and sum('No space left' in line for line in lines) == 1


@pytest.mark.parametrize('error', [OSError(11, 'fork'), ValueError('no JSON'), KeyError('items')])
def test_an_error_of_this_machine_during_a_look_does_not_end_keep(tmp_path, monkeypatch, error):
    gcloud, lines, errors = FakeGcloud(FakeClock()), [], [error] * 3
    with launch_faults.launches_in(tmp_path):
        session = launch_faults.make_session(gcloud, lines)
        look = session.cloud.look

        def fail_at_times():
            if gcloud.running and errors:
                raise errors.pop()
            return look()

        monkeypatch.setattr(session.cloud, 'look', fail_at_times)
        assert session.keep() == 0
    assert not errors and not gcloud.running


@pytest.mark.parametrize(
    ('codes', 'host'), [((1, 137), 'h1'), ((2, 1), 'h0'), ((1, None), 'h0'), ((0, 1), 'h1')]
)
def test_keep_shows_the_end_of_the_log_of_the_host_that_failed_first(tmp_path, codes, host):
    gcloud, lines = FakeGcloud(FakeClock(), runs=[(60, codes)]), []
    with launch_faults.launches_in(tmp_path):
        launch_faults.make_session(gcloud, lines, retries=0).keep()
    at = next(i for i, line in enumerate(lines) if f'log of {host}, which failed first' in line)
    assert lines[at + 1] == f'  | \\x1b[31mlog of {host}'  # no escape sequence reaches the terminal
    assert at < len(lines) - 2 and lines[-1].startswith('failed')


@pytest.mark.parametrize('text', ['x' * 10**6, 'y\n' * 10**5, ''])
def test_the_log_that_keep_shows_is_bounded(tmp_path, monkeypatch, text):
    gcloud, lines = FakeGcloud(FakeClock(), runs=[(60, 1)]), []
    with launch_faults.launches_in(tmp_path):
        session = launch_faults.make_session(gcloud, lines, retries=0)
        monkeypatch.setattr(session.cloud, 'read_logs', lambda lines, *, host: text)
        session.keep()
    shown = [line for line in lines if line.startswith('  | ')]
    assert len(shown) <= driver.LOG_LINES and all(len(line) < 500 for line in shown)


def test_the_log_of_a_crash_is_shown_once(tmp_path):
    gcloud, lines = FakeGcloud(FakeClock(), runs=[(60, 1), (60, 1), (60, 0)]), []
    with launch_faults.launches_in(tmp_path):
        assert launch_faults.make_session(gcloud, lines).keep() == 0
    assert sum('the end of the log' in line for line in lines) == 2


def test_a_log_that_cannot_be_read_changes_nothing(tmp_path):
    gcloud, lines = FakeGcloud(FakeClock(), runs=[(60, 1), (60, 0)]), []
    gcloud.faults[('logs', 0)] = errors.SSH
    with launch_faults.launches_in(tmp_path):
        assert launch_faults.make_session(gcloud, lines).keep() == 0
    assert any('its log cannot be read' in line for line in lines)


@pytest.mark.parametrize(
    ('name', 'events'),
    [
        ('nothing', ['done']),
        ('one crash', ['crashed', 'done']),
        ('preempted without one', ['preempted', 'done']),
        ('preempted after every start', ['preempted'] * 3 + ['failed']),
        ('the config is refused (exit code 2)', ['failed']),
        ('the budget is spent', ['failed']),
        ('a crash at every start (exit code 1)', ['crashed'] * 3 + ['failed']),
        ('the deletion fails, always, and the hosts may not delete', ['done']),
    ],
)
def test_the_user_hears_of_every_change_once(tmp_path, monkeypatch, name, events):
    fault, news = next(f for f in FAULTS if f.name == name), []
    gcloud = FakeGcloud(FakeClock(), **fault.cloud)
    if fault.begin:
        fault.begin(gcloud)
    sends = lambda *words, warn: news.append(words)  # noqa: E731
    monkeypatch.setattr(actions, 'send_alert', sends)
    with launch_faults.launches_in(tmp_path):
        flags = {**fault.flags, 'alert': 'tell me'}
        launch_faults.make_session(gcloud, [], **flags).keep()
    assert [event for _, event, _ in news] == events
    assert all(target == 'tell me' and text.startswith('pod: ') for target, _, text in news)
    assert ('NOT DELETED' in news[-1][2]) == ('deletion' in name)


def test_hosts_that_may_not_delete_are_reported_once(tmp_path, capsys):
    gcloud = FakeGcloud(FakeClock())
    gcloud.guard.may_delete = False
    with launch_faults.launches_in(tmp_path):
        assert launch_faults.make_session(gcloud, []).keep() == 0
    assert capsys.readouterr().err.count('may not delete the slice') == 1


def test_names_with_dots_have_a_ledger_each(tmp_path):
    with launch_faults.launches_in(tmp_path):
        paths = {Ledger('ssh', 'a', name).path for name in ('q-1.5b', 'q-1.7b', 'q-1')}
    assert len(paths) == 3


def test_the_guide_has_the_table():
    text = (launch_faults.launched_run.ROOT / 'docs' / 'pods.md').read_text(encoding='utf-8')
    table = launch_faults.print_table()
    assert table in text, 'run python -m tests.support.launch_faults'
    assert exit_codes.print_table() in text, 'run scripts/launch/__main__.py codes'
