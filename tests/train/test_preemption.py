"""A request to stop: one signal or two, to one process or several, in short and in long calls."""

import re
import signal
import subprocess
import sys
import time

import pytest

from elenchus.train import preemption
from tests.support import multi_process

CLUSTERED, ALONE = 'under jax.distributed', 'alone'


def start(count, work, *, cluster=CLUSTERED):
    """Starts `count` workers and waits until all of them work."""
    address = f'localhost:{multi_process.free_port()}' if cluster == CLUSTERED else ''
    command = [sys.executable, '-m', 'tests.support.stop_worker', address, str(count)]
    started = [
        subprocess.Popen(
            [*command, str(i), work], cwd=multi_process.ROOT, env=multi_process.environment(1),
            stderr=subprocess.PIPE, text=True,
        )
        for i in range(count)
    ]  # fmt: skip
    for process in started:
        while process.stderr.readline() != 'ready\n':
            assert process.poll() is None
    time.sleep(0.1)  # into the work
    return started


def ends(started):
    """Returns exit codes and what the processes printed, after at most 120 s each."""
    outputs = [process.communicate(timeout=120)[1] for process in started]
    return [process.returncode for process in started], outputs


@pytest.mark.parametrize(
    'number', [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_one_process_under_jax_distributed_obeys_a_signal(number):
    started = start(1, 'calls')
    started[0].send_signal(signal.SIGHUP)  # the terminal may go: the run goes on
    time.sleep(0.2)
    assert started[0].poll() is None
    started[0].send_signal(number)
    codes, (output,) = ends(started)
    assert codes == [preemption.EXIT_CODE] and 'preempted: saved at step' in output
    assert f'{number.name}: the run saves and ends; a second one ends it at once' in output


@pytest.mark.parametrize('cluster', [CLUSTERED, pytest.param(ALONE, marks=pytest.mark.slow)])
def test_a_second_signal_ends_a_process_that_is_in_a_long_call(cluster):
    started = start(1, 'stuck', cluster=cluster)
    started[0].send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert started[0].poll() is None
    sent = time.monotonic()
    started[0].send_signal(signal.SIGTERM)
    codes, _ = ends(started)
    assert codes[0] in (128 + signal.SIGTERM, -signal.SIGTERM) and time.monotonic() - sent < 3


# In a run, where nothing has to be saved


@pytest.mark.parametrize(
    ('count', 'work', 'cluster'),
    [
        (1, 'run', ALONE),
        (2, 'run', CLUSTERED),
        pytest.param(1, 'run', CLUSTERED, marks=pytest.mark.slow),
        pytest.param(1, 'run-steps', ALONE, marks=pytest.mark.slow),
        pytest.param(2, 'run-steps', CLUSTERED, marks=pytest.mark.slow),
        pytest.param(2, 'run-first', CLUSTERED, marks=pytest.mark.slow),
        pytest.param(3, 'run-first', CLUSTERED, marks=pytest.mark.slow),
    ],
)
def test_all_processes_of_a_run_leave_long_calls(count, work, cluster):
    """One of them gets the signal, in a call that cannot be left, as a compilation."""
    started, sent = start(count, work, cluster=cluster), time.monotonic()
    started[-1].send_signal(signal.SIGTERM)
    codes, outputs = ends(started)
    assert codes == [preemption.EXIT_CODE] * count, outputs
    assert time.monotonic() - sent < 10
    reasons = ['there was nothing new to save'] if work == 'run' else ['no place to save within',
               'another process could not save']  # fmt: skip
    assert all('preempted: ' in o and any(r in o for r in reasons) for o in outputs)


@pytest.mark.slow
@pytest.mark.parametrize('process_id', [0, 1])
def test_a_process_that_waits_for_the_others_to_join_leaves(process_id):
    """Of two processes one has not started."""
    address = f'localhost:{multi_process.free_port()}'
    command = [sys.executable, '-m', 'tests.support.stop_worker', address, '2', str(process_id)]
    process = subprocess.Popen(
        [*command, 'run-joins'], cwd=multi_process.ROOT, env=multi_process.environment(1),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr.readline() == 'joins\n'
    time.sleep(2)  # into the wait
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    codes, (output,) = ends([process])
    assert codes == [preemption.EXIT_CODE] and time.monotonic() - sent < 10
    assert 'preempted: the run was being opened' in output


@pytest.mark.slow
def test_processes_that_are_at_different_steps_leave_at_the_same_one():
    started = start(2, 'calls')
    started[1].send_signal(signal.SIGTERM)
    codes, outputs = ends(started)
    assert codes == [preemption.EXIT_CODE] * 2
    steps = [re.search(r'saved at step (\d+)', output)[1] for output in outputs]
    assert steps[0] == steps[1]
