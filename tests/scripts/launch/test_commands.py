"""Commands of a cloud's tool that are lost, interrupted, or cannot be run at all."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from elenchus.scripts.launch import commands, gke, ssh, tpu
from elenchus.scripts.launch.cloud import Refused, Unreachable
from elenchus.scripts.launch.commands import Commands
from tests.support import launch_faults

SCRIPT = 'trap "" TERM INT; sleep 97.25; echo never'  # as gcloud: a shell that runs something
AT = ['--name=pod', '--zone=z', '--cluster=c', '--hosts=h']


def still_runs():
    """Whether something that a command started still runs."""
    table = subprocess.run(['ps', '-eo', 'args='], capture_output=True, text=True, check=True)
    return 'sleep 97.25' in table.stdout.splitlines()


def test_a_command_that_is_lost_is_ended_with_all_that_it_started():
    with pytest.raises(Unreachable, match='did not end in 0.5 s'):
        Commands().run(['bash', '-c', SCRIPT], patience=0.5)
    assert not still_runs()


def test_so_is_one_that_is_interrupted():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        Commands().run(['bash', '-c', SCRIPT], patience=20)
    signal.signal(signal.SIGINT, before)
    assert not still_runs()


@pytest.fixture(params=['no program', 'a folder'])
def broken(request, tmp_path, monkeypatch):
    """A path where gcloud, kubectl and ssh cannot be run."""
    for name in ('gcloud', 'kubectl', 'ssh', 'scp', 'xpk'):
        if request.param == 'a folder':
            (tmp_path / 'bin' / name).mkdir(parents=True)
        else:
            (tmp_path / 'bin').mkdir(exist_ok=True)
            (tmp_path / 'bin' / name).write_bytes(b'\x7fELF of another machine')
            (tmp_path / 'bin' / name).chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    with launch_faults.launches_in(tmp_path / 'launches'):
        yield


@pytest.mark.parametrize('action', ['status', 'logs', 'stop', 'delete'])
@pytest.mark.parametrize('main', [tpu.main, gke.main, ssh.main])
def test_a_tool_that_cannot_be_run_is_one_line(main, action, broken, capsys):
    flags = {tpu: AT[:2], gke: AT[:3], ssh: AT[3:]}[sys.modules[main.__module__]]
    if (main, action) == (ssh.main, 'delete'):
        pytest.skip('it does nothing')
    assert main([action, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ') and ('cannot be run' in line or 'not installed' in line)


BANNER = '***\nAuthorised use only; errors are logged (503)\n***\n'


@pytest.mark.parametrize(
    ('code', 'output', 'error', 'reason'),
    [
        (255, '', f'{BANNER}ssh: connect to host a port 22: refused\n', 'ssh: connect to host a'),
        (255, 'Welcome\n', f'{BANNER}Connection closed by 10.0.0.2\n\n', 'Connection closed by'),
        (255, '', 'ERROR: (gcloud.x) exited with return code [255].\nmore\n', 'ERROR: (gcloud'),
        (1, '[XPK] Create failed: no quota\n[XPK] XPK failed, error code 1\n', '', '[XPK] Create'),
        (1, 'Traceback ...\nValueError: x\nbye\n', '', 'ValueError: x'),
        (1, '', '', 'no output'),
    ],
)
def test_the_reason_is_the_line_that_says_why(code, output, error, reason):
    assert commands.Result(code, output, error).reason.startswith(reason)


@pytest.fixture
def terminal():
    """A process started under nohup ignores SIGHUP, and its children would too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize('wrapper', [[], ['nohup']])
def test_a_terminal_that_closes_ends_keep_in_order(number, wrapper, terminal, tmp_path):
    """Nothing of it stays in $TMPDIR; under nohup it goes on."""
    for name, text in {'gcloud': 'touch "$0.called"; exec sleep 60'}.items():
        (tmp_path / name).write_text(f'#!/bin/sh\n{text}\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / 'tmp').mkdir()
    program = str(commands.__file__).replace('commands.py', '__main__.py')
    words = [sys.executable, program, 'tpu', 'keep', *AT[:2], '--', '--config=lab']
    process = subprocess.Popen(
        [*wrapper, *words, '--workdir=gs://b/r'],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            'PATH': f'{tmp_path}:{os.environ["PATH"]}',
            'TMPDIR': str(tmp_path / 'tmp'),
            'ELENCHUS_LAUNCHES': str(tmp_path / 'launches'),
        },
    )
    with process, contextlib.ExitStack() as at_end:
        at_end.callback(process.kill)
        while not (tmp_path / 'gcloud.called').exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(number)
        if wrapper and number == signal.SIGHUP:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
        assert 'interrupted: machines and run go on' in process.stderr.read()
    assert not list((tmp_path / 'tmp').iterdir())


def test_a_command_that_ends_is_as_before():
    result = Commands().run(['bash', '-c', 'echo a; echo b >&2; exit 3'])
    assert result == commands.Result(3, 'a\n', 'b\n')
    with pytest.raises(Refused, match='is not installed'):
        Commands().run(['no-such-program'])


@pytest.mark.parametrize('words', [['codes'], ['tpu', '--help'], ['tpu', 'cost', *AT[:2]]])
def test_an_output_on_a_full_disk_is_one_line(words, tmp_path):
    with open('/dev/full', 'w') as full:
        done = subprocess.run(
            [sys.executable, str(commands.__file__).replace('commands.py', '__main__.py'), *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, 'ELENCHUS_LAUNCHES': str(tmp_path)},
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: the output cannot be written')
