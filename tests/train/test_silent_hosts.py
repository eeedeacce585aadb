"""Two real processes of which one is stopped, or slow: what is said, and who ends.

Slow, because nobody is called silent before 30 s, and JAX ends the others after 100 s.
"""

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.support import multi_process

pytestmark = pytest.mark.slow
ENDS_WITHIN_S = 300  # JAX's heartbeat takes 100 s, on a machine with other work


def start(folder, *, slow_s=0):
    """Starts two workers; returns them when both are stepping, with the files of their output."""
    folder.mkdir(exist_ok=True)
    address = f'localhost:{multi_process.free_port()}'
    command = [sys.executable, '-m', 'tests.support.watched_worker', str(folder), address, '2']
    logs = [folder.with_name(f'{folder.name}.{i}.log') for i in range(2)]
    started = []
    for i, log in enumerate(logs):
        with open(log, 'w', encoding='utf-8') as file:
            started.append(
                subprocess.Popen(
                    [*command, str(i), str(slow_s)], cwd=multi_process.ROOT,
                    env=multi_process.environment(1), stderr=file, stdout=file,
                )
            )  # fmt: skip
    for process, log in zip(started, logs, strict=True):
        wait_for(log, 'ready', process, seconds=120)
    if not slow_s:  # until each has said where it is, which it does every five seconds
        wait_for(folder / 'status.json', r'(?s)(stage": "actor".*){3}', started[0], seconds=60)
    return started, logs


def wait_for(log, pattern, process, *, seconds):
    """Waits until what a process writes into a file matches; returns the match."""
    end, text = time.monotonic() + seconds, ''
    while not (match := re.search(pattern, text)):
        assert process.poll() is None and time.monotonic() < end, text[-3000:]
        time.sleep(0.1)
        text = log.read_text() if log.exists() else ''
    return match


@pytest.fixture
def workers(tmp_path):
    """`start` in a folder; what is left is killed."""
    all_started = []

    def start_in(**options):
        all_started.append(start(tmp_path / 'run', **options))
        return all_started[-1]

    yield start_in
    for started, _ in all_started:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.parametrize('stopped', [0, 1])
def test_a_stopped_process_is_named_and_all_end(workers, tmp_path, stopped):
    started, logs = workers()
    other = 1 - stopped
    started[stopped].send_signal(signal.SIGSTOP)
    said = {
        0: 'the first process has not answered process 1 for 3[0-9] s',
        1: r'process 1 on \S+ has given no sign of life for [34][0-9] s, last in actor',
    }[stopped]
    wait_for(logs[other], f'watchdog: .*{said}', started[other], seconds=80)
    if other == 0:
        (row,) = (r for r in json.loads((tmp_path / 'run/status.json').read_text())['hosts']
                  if r['process'] == 1)  # fmt: skip
        assert row['silent'] > 25
    since = time.monotonic()
    assert started[other].wait(ENDS_WITHIN_S) not in (0, 75)
    print(f'{other} ended with {started[other].returncode}, {time.monotonic() - since:.0f} s after')
    started[stopped].send_signal(signal.SIGCONT)
    assert started[stopped].wait(ENDS_WITHIN_S) not in (0, 75)
    print(logs[other].read_text()[-3000:], logs[stopped].read_text()[-3000:])


@pytest.mark.parametrize('stopped', [0, 1])
def test_a_process_that_is_stopped_for_a_while_costs_nothing_but_a_warning(
    workers, tmp_path, stopped
):
    started, logs = workers()
    started[stopped].send_signal(signal.SIGSTOP)
    said = 'watchdog: .*(answered|sign of life)'
    wait_for(logs[1 - stopped], said, started[1 - stopped], seconds=80)
    started[stopped].send_signal(signal.SIGCONT)
    time.sleep(2)
    (tmp_path / 'run' / 'end').touch()
    assert [process.wait(ENDS_WITHIN_S) for process in started] == [0, 0]
    # Who was deaf itself accuses nobody.
    assert not re.search('answered|sign of life', logs[stopped].read_text())


def test_a_slow_process_is_named_and_the_run_goes_on(workers, tmp_path):
    started, logs = workers(slow_s=25)
    wait_for(logs[0], r'watchdog: process 1 on \S+ is \d+ calls behind', started[0], seconds=80)
    assert re.search('watchdog: actor: a step takes more than 1', logs[0].read_text())
    (tmp_path / 'run' / 'end').touch()
    assert [process.wait(ENDS_WITHIN_S) for process in started] == [0, 0]
    assert 'sign of life' not in logs[0].read_text()
