"""The hours of a workload on a cluster: counted over all starts, and enforced in the pod."""

import os
import subprocess
import sys
import time

import pytest

from elenchus.scripts.launch import exit_codes
from elenchus.scripts.launch.budget import Budget

SAVES = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(int(sys.argv[1])))
time.sleep(60)
"""


def supervise(*words, text=SAVES, seconds='1', meter=''):
    """Runs supervise.py as worker.sh does; returns its exit code and what it printed."""
    command = [sys.executable, '-m', 'elenchus.scripts.launch.supervise', '3', sys.executable]
    environment = {**os.environ, 'ELENCHUS_SECONDS': seconds, 'ELENCHUS_METER': str(meter)}
    process = subprocess.run(
        [*command, '-c', text, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return process.returncode, process.stderr


@pytest.mark.parametrize(('code', 'expected'), [(75, 124), (1, 124), (0, 0)])
def test_the_budget_ends_a_process_once_it_has_saved(code, expected):
    assert supervise(str(code))[0] == expected


def test_the_seconds_of_former_starts_count(tmp_path):
    meter = tmp_path / 'launch' / 'run.seconds'
    began = time.monotonic()
    code, text = supervise('75', seconds='2', meter=meter)
    assert code == exit_codes.BUDGET and 'the budget is spent' in text
    assert 2 <= float(meter.read_text()) <= time.monotonic() - began + 1
    text = "print('it ran')"
    assert supervise(text=text, seconds='2', meter=meter)[0] in (0, exit_codes.BUDGET)
    assert Budget(100, str(meter)).remaining() < 98.5


def test_a_notice_before_the_budget_is_a_preemption(tmp_path):
    text = 'import os; os.kill(os.getppid(), 15)' + SAVES
    assert supervise('75', text=text, seconds='50') == (exit_codes.PREEMPTION, '')


@pytest.mark.parametrize('text', ['', 'x', '1 2'])
def test_a_meter_that_cannot_be_read_counts_from_this_start(tmp_path, text):
    path = tmp_path / 'meter'
    path.write_text(text)
    assert 9 < Budget(10, str(path)).remaining() <= 10
    budget = Budget(10, str(tmp_path / 'meter' / 'below a file'))
    budget.write()  # ends no run
    assert budget.remaining() <= 10


def test_a_wrong_budget_is_refused():
    code, text = supervise('0', seconds='soon')
    assert code == exit_codes.REFUSAL and text.count('\n') == 1
