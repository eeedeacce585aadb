"""A run tells its user how it ends, of silent hosts and of NaN."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from elenchus.data.text import alerts
from elenchus.train import early_signals, nonfinite, preemption, watchdog
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support import shipped_configs
from tests.train.test_nonfinite import BROKEN, FINE, push_steps

SETTINGS = watchdog.WatchdogSettings(20.0, 600.0, 0.0, alert='tell me')


@pytest.fixture
def news(monkeypatch):
    """(event, text) of what was sent."""
    sent = []
    monkeypatch.setattr(
        alerts, 'send', lambda target, event, text, warn: sent.append((event, text))
    )
    return sent


@pytest.mark.parametrize(
    ('error', 'event', 'text'),
    [
        (None, 'done', ''),
        (FloatingPointError('step 2: loss nan'), 'failed', 'FloatingPointError: step 2: loss nan'),
        (preemption.Interrupted(), 'preempted', ''),
        (OSError(28, 'No space left on device'), 'failed', 'No space left on device'),
    ],
    ids=str,
)
def test_the_user_hears_how_a_run_ends(tmp_path, news, error, event, text):
    try:
        with watchdog.Watchdog(tmp_path, SETTINGS):
            watchdog.activity.start_stage('actor')
            if error is not None:
                raise error
    except (FloatingPointError, OSError, SystemExit):
        pass
    assert [name for name, _ in news] == [event]
    assert news[0][1].startswith(f'{tmp_path}: actor') and text in news[0][1]
    watchdog.tell('nonfinite', 'after the end of a run nobody hears')
    assert len(news) == 1


def test_updates_that_are_not_finite_are_one_alert_in_a_row(tmp_path, news, capsys):
    with watchdog.Watchdog(tmp_path, SETTINGS):
        guard = nonfinite.FiniteGuard(tmp_path, 'skip')
        push_steps(guard, BROKEN, BROKEN, FINE, BROKEN, FINE)
    assert [name for name, _ in news] == ['nonfinite', 'nonfinite', 'done']
    assert 'step 1: loss nan' in news[0][1]


@pytest.mark.parametrize(
    ('process', 'events'), [(0, ['silent', 'stuck']), (1, ['silent']), (2, [])]
)
def test_one_process_tells_of_silence_and_standstill(tmp_path, news, monkeypatch, process, events):
    texts = {('silent', 3): 'a', ('stuck', 1): 'b', ('slow', 1): 'c'}
    if process:
        texts = {('unanswered',): 'a'}
    monkeypatch.setattr(watchdog.jax, 'process_index', lambda: process)
    monkeypatch.setattr(watchdog, 'complaints', lambda *_, **__: texts)
    dog = watchdog.Watchdog(tmp_path, SETTINGS)
    dog._complain()
    dog._complain()
    assert [name for name, _ in news][: len(events)] == events


def test_a_command_that_is_none_is_refused_before_the_run():
    config = shipped_configs.get_config('lab:smoke')
    config.watchdog.alert = 'mail "me'
    with pytest.raises(ValueError, match="watchdog.alert='mail .*no closing quotation"):
        build.build(RunSettings, config)


@pytest.mark.parametrize('number', [signal.SIGQUIT, signal.SIGUSR1])
def test_a_process_that_imports_says_where_it_is(number):
    """One signal a process: faulthandler drops one that arrives while it writes for another."""
    code = 'from elenchus.train.early_signals import end_at_signals; end_at_signals()\n'
    code += 'def imports():\n print("ready", flush=True); import time; time.sleep(60)\nimports()'
    process = subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'ready\n'
    lines = []
    process.send_signal(number)
    while 'in <module>' not in ''.join(lines[-1:]):
        lines.append(process.stderr.readline())
        assert lines[-1], (process.wait(20), lines)  # the process has ended
    assert any('in imports' in line for line in lines)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == early_signals.EXIT_CODE


def test_a_status_says_where_the_main_thread_is(tmp_path):
    with watchdog.Watchdog(tmp_path, SETTINGS) as dog:
        dog._write_status([])
        status = (pathlib.Path(tmp_path) / watchdog.STATUS).read_text()
    assert '"where": "train/watchdog.py:' in status and os.sep + 'site-packages' not in status
