"""Watchdog: status, slow steps, silent hosts and stragglers, stacks, and shares of time."""

import dataclasses
import json
import os
import signal
import time

import pytest

from elenchus.data.text.run_times import time_shares
from elenchus.train import preemption, watchdog
from elenchus.train.early_end import EarlyEnd
from elenchus.train.metrics import activity as activity_lib
from elenchus.train.metrics import progress
from elenchus.train.metrics.activity import Activity

SETTINGS = watchdog.WatchdogSettings(slow_factor=20.0, timeout_s=600.0, stop_within_s=0.0, alert='')


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def activity_of(clock, steps, seconds):
    """An activity that has taken steps of that many seconds each."""
    activity = Activity(clock)
    activity.start_stage('actor')
    for _ in range(steps):
        clock.now += seconds
        activity.mark('steps')
    return activity


@pytest.mark.parametrize(
    ('steps', 'seconds', 'idle', 'slow'),
    [
        (10, 1.0, 19.0, False),
        (10, 1.0, 21.0, True),
        (9, 1.0, 500.0, False),  # too few to compare with
        (50, 0.001, 9.0, False),  # no step is slow in less than ten seconds
        (50, 0.001, 11.0, True),
    ],
)
def test_a_step_of_twenty_times_the_median_is_named_once(clock, steps, seconds, idle, slow):
    activity = activity_of(clock, steps, seconds)
    clock.now += idle
    first = watchdog.complaints(activity, [], SETTINGS)
    clock.now += 1
    second = watchdog.complaints(activity, [], SETTINGS)
    assert [key[0] for key in first] == ['slow'] * slow and second.keys() == first.keys()
    assert all('actor: a step takes more than' in text for text in first.values())


def test_an_update_after_many_short_chunks_is_not_slow(clock):
    activity = activity_of(clock, 1, 100.0)
    for _ in range(30):
        clock.now += 0.1
        activity.mark('sampling')
    clock.now += 150
    assert not watchdog.complaints(activity, [], SETTINGS)
    clock.now += 60
    assert watchdog.complaints(activity, [], SETTINGS)


def test_no_progress_for_the_time_limit_is_named(clock):
    activity = activity_of(clock, 1, 1.0)
    clock.now += 601
    (text,) = watchdog.complaints(activity, [], SETTINGS).values()
    assert text.startswith('actor: no progress for 601 s')
    off = dataclasses.replace(SETTINGS, timeout_s=0.0)
    assert not watchdog.complaints(activity, [], off)


def sign(host, calls, beat=0):
    return json.dumps({'host': host, 'stage': 'actor', 'calls': calls, 'beat': beat})


def test_a_silent_host_and_a_straggler_are_named(clock):
    hosts, activity = watchdog.Hosts(clock), activity_of(clock, 10, 1.0)
    rows = hosts.update([sign('one', 7), sign('two', 7), None])
    assert [row['silent'] for row in rows] == [0, 0, 0]
    clock.now += 29
    hosts.update([sign('one', 8, 1), sign('two', 7), None])
    clock.now += 5
    rows = hosts.update([sign('one', 9, 2), sign('two', 7), None])
    texts = watchdog.complaints(activity, rows, SETTINGS)
    assert {key[:2] for key in texts} == {('slow', 11), ('silent', 1), ('silent', 2)}
    assert 'process 1 on two has given no sign of life for 34 s' in texts['silent', 1]
    assert 'process 2 on a host that is not known' in texts['silent', 2]
    clock.now += 10  # the first process has taken no step meanwhile: it waits
    rows = hosts.update([sign('one', 9, 3), sign('two', 7, 1), sign('three', 9)])
    texts = watchdog.complaints(activity, rows, SETTINGS)
    assert 'process 1 on two is 2 calls behind the others' in texts['straggler', 1, 7]


def test_a_process_without_a_sign_yet_is_no_straggler(clock):
    hosts, activity = watchdog.Hosts(clock), activity_of(clock, 10, 1.0)
    clock.now += 25
    texts = watchdog.complaints(activity, hosts.update([sign('one', 7), None]), SETTINGS)
    assert {key[0] for key in texts} == {'slow'}


@pytest.mark.parametrize(('process', 'said'), [(0, False), (1, True)])
def test_a_first_process_that_does_not_answer_is_named_by_the_others(
    tmp_path, monkeypatch, capsys, process, said
):
    """And again if it is silent again; who is the first process cannot be unanswered."""
    monkeypatch.setattr(watchdog.jax, 'process_index', lambda: process)
    dog = watchdog.Watchdog(tmp_path, SETTINGS)
    for _ in range(2):
        for age in (29, 31, 40, 0):
            dog._answered = time.monotonic() - age
            dog._complain()
    lines = [line for line in capsys.readouterr().err.splitlines() if 'not answered' in line]
    assert len(lines) == 2 * said
    if said:
        assert f'the first process has not answered process {process} for 31 s' in lines[0]


def test_a_host_that_is_silent_again_is_named_again(tmp_path, clock, capsys):
    dog, hosts = watchdog.Watchdog(tmp_path, SETTINGS), watchdog.Hosts(clock)
    for beat in (1, 1, 1, 2, 2):
        dog._rows = hosts.update([sign('one', 7, clock.now), sign('two', 7, beat)])
        dog._complain()
        clock.now += 31
    assert capsys.readouterr().err.count('process 1 on two has given no sign of life') == 2


def test_a_process_that_was_stopped_itself_accuses_nobody(tmp_path, monkeypatch, clock):
    waits = iter([5.0, 7.0, 60.0, 5.0])

    class Ended:
        def wait(self, seconds):
            clock.now += next(waits, 0.0)
            return clock.now > 76

    monkeypatch.setattr(watchdog.time, 'monotonic', clock)
    dog = watchdog.Watchdog(tmp_path, SETTINGS)
    dog._ended = Ended()
    assert list(dog._looks()) == [False, False, True]


def test_signs_of_life_do_not_wait_for_a_status_in_a_bucket(tmp_path, monkeypatch):
    """Its status is written every 30 s, after which time a host counts as silent."""
    monkeypatch.setattr(watchdog, '_LOCAL_S', 0.02)
    monkeypatch.setattr(watchdog.jax, 'process_count', lambda: 2)
    sent = []
    monkeypatch.setattr(watchdog.Hosts, 'send', lambda self, sign: sent.append(sign))
    monkeypatch.setattr(watchdog.Hosts, 'read', lambda self: [])
    dog = watchdog.Watchdog(tmp_path, SETTINGS)
    dog._every = watchdog._REMOTE_S
    with dog:
        time.sleep(0.5)
    assert len(sent) > 3


def test_a_process_has_a_name_as_soon_as_it_is_watched(tmp_path, monkeypatch):
    """One that is stopped in its first seconds would be silent on a host that is not known."""
    monkeypatch.setattr(watchdog.jax, 'process_count', lambda: 2)
    sent = []
    monkeypatch.setattr(watchdog.Hosts, 'send', lambda self, sign: sent.append(sign))
    monkeypatch.setattr(watchdog.Hosts, 'read', lambda self: [])
    with watchdog.Watchdog(tmp_path, SETTINGS):
        assert [sign['host'] for sign in sent] == [watchdog.socket.gethostname()]


def test_time_goes_to_kinds_and_compiling_is_apart(clock):
    activity = Activity(clock)
    for kind, seconds, compiling in [
        ('other', 2, 0), ('steps', 5, 3), ('steps', 1, 0), ('sampling', 4, 9)
    ]:  # fmt: skip
        clock.now += seconds
        activity.count_compiling(activity_lib.COMPILE_EVENT, compiling)
        activity.count_compiling('/jax/another', 7)
        activity.mark(kind)
    assert dict(activity.seconds) == {'other': 2, 'steps': 3, 'sampling': 0, 'compiling': 7}
    assert sum(activity.seconds.values()) == clock.now


def test_shares_are_of_all_starts_and_of_the_time_between_them():
    rows = [
        {'started': 0.0, 'heartbeat': 10.0, 'seconds': {'steps': 6.0, 'other': 4.0}},
        {'started': 30.0, 'heartbeat': 40.0, 'seconds': {'steps': 10.0}},
    ]
    assert time_shares(rows) == {'idle': 0.5, 'steps': 0.4, 'other': 0.1}


def watch(folder, monkeypatch, *, error=None, every=0.05):
    monkeypatch.setattr(watchdog, '_LOCAL_S', every)
    monkeypatch.setattr(activity_lib, 'activity', Activity())
    monkeypatch.setattr(watchdog, 'activity', activity_lib.activity)
    with watchdog.Watchdog(folder, SETTINGS):
        with progress.progress(10, unit='steps', description='actor') as bar:
            watchdog.activity.start_stage('actor')
            bar.advance(3)
            time.sleep(4 * every)
            status = json.loads((folder / 'status.json').read_text())
            os.kill(os.getpid(), signal.SIGUSR1)
        if error is not None:
            raise error
    return status


@pytest.mark.parametrize(
    ('error', 'state'),
    [(None, 'done'), (ValueError(), 'failed'), (preemption.Interrupted(), 'preempted')],
)
def test_the_status_tells_the_stage_and_how_the_run_ended(
    tmp_path, monkeypatch, capfd, error, state
):
    if error is None:
        status = watch(tmp_path, monkeypatch)
        expected = {'state': 'running', 'stage': 'actor', 'step': 3, 'steps': 10, 'unit': 'steps'}
        assert status.items() >= expected.items() and status['rate'] > 0
        assert abs(status['heartbeat'] - time.time()) < 60
        assert 'Current thread' in (errors := capfd.readouterr().err) and 'test_watchdog' in errors
    else:
        with pytest.raises(type(error)):
            watch(tmp_path, monkeypatch, error=error)
    assert json.loads((tmp_path / 'status.json').read_text())['state'] == state
    (row,) = map(json.loads, (tmp_path / 'timing.jsonl').read_text().splitlines())
    assert row['state'] == state and 'other' in row['seconds']


def test_the_status_of_a_process_that_ends_early_is_preempted(tmp_path, monkeypatch, capsys):
    def leave(code):
        raise RuntimeError(code)

    end = EarlyEnd()
    monkeypatch.setattr(watchdog, 'early_end', end)
    with watchdog.Watchdog(tmp_path, SETTINGS), monkeypatch.context() as patch:
        patch.setattr(os, '_exit', leave)
        with pytest.raises(RuntimeError, match='75'):
            end.end('here')
        status = json.loads((tmp_path / 'status.json').read_text())
        assert status['state'] == 'preempted' and status['kept']
        assert json.loads((tmp_path / 'timing.jsonl').read_text())['state'] == 'preempted'
        end._ending.clear()
    assert 'preempted: here' in capsys.readouterr().err


def test_a_start_that_was_killed_counts_up_to_its_last_sign(tmp_path, monkeypatch, capsys):
    status = {'started': 1.0, 'heartbeat': 5.0, 'state': 'running', 'seconds': {'steps': 4.0}}
    (tmp_path / 'status.json').write_text(json.dumps(status))
    watch(tmp_path, monkeypatch)
    rows = [json.loads(line) for line in (tmp_path / 'timing.jsonl').read_text().splitlines()]
    assert [row['state'] for row in rows] == ['running', 'done']
    assert (
        rows[0]['seconds'] == {'steps': 4.0}
        and 'over 2 starts, goodput 0.0%: idle' in capsys.readouterr().out
    )


def test_the_stacks_of_a_run_without_progress_are_dumped(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(watchdog, '_LOCAL_S', 0.05)
    with watchdog.Watchdog(tmp_path, dataclasses.replace(SETTINGS, timeout_s=0.2)):
        time.sleep(0.8)
    assert 'Timeout (0:00:00' in capfd.readouterr().err
