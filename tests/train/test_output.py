"""Output of a run: its log, and readers that go away."""

import contextlib
import os
import re
import subprocess
import sys

import pytest

from elenchus.train import output
from tests.support import multi_process
from tests.test_house_rules import OURS

PROGRAM = """
import sys
from elenchus.train import output
with output.kept():
    print('early')
    output.open_log(sys.argv[1])
    for i in range(2000):
        print('out', i)
        print('err', i, file=sys.stderr)
    raise {error}
"""


def run_without_reader(folder, error, redirect):
    """Returns the exit code of PROGRAM whose output is a pipe of which one line is read."""
    command = f'{sys.executable} -c "$0" {folder} {redirect} | head -1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ['bash', '-c', command, PROGRAM.format(error=error)],
        cwd=multi_process.ROOT, env=multi_process.environment(1), capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ('error', 'code', 'redirect'), [('SystemExit(75)', 75, '2>&1'), ('KeyError(3)', 1, '')]
)
def test_a_reader_that_goes_away_ends_no_program_and_the_log_is_whole(
    tmp_path, error, code, redirect
):
    assert run_without_reader(tmp_path, error, redirect) == code
    lines = (tmp_path / output.LOG).read_text().splitlines()
    assert lines[0].startswith('--- 20') and lines[1] == 'early'
    for name in ('out', 'err'):
        assert [line for line in lines if line.startswith(name)] == [
            f'{name} {i}' for i in range(2000)
        ]
    assert ('KeyError: 3' in lines) == (code == 1)


def test_a_terminal_that_hangs_up_ends_no_program(tmp_path):
    main, side = os.openpty()
    with subprocess.Popen(
        [sys.executable, '-c', PROGRAM.format(error='SystemExit(0)'), str(tmp_path)],
        cwd=multi_process.ROOT, env=multi_process.environment(1), stdout=side, stderr=side,
    ) as process:  # fmt: skip
        os.close(side)
        os.read(main, 5)
        os.close(main)
        assert process.wait(timeout=60) == 0
    assert 'err 1999' in (tmp_path / output.LOG).read_text()


def test_the_log_has_no_control_sequences_and_no_bars(tmp_path):
    log = output.Log()
    log.write('before it is open\n')
    log.open(tmp_path / 'log.txt')
    log.write('\x1b[32mgreen\x1b[0m\n')
    log.write('\r\x1b[2Kactor ━━━━━━ 3/10\nkept\n')
    log.close()
    log.write('after it is closed\n')
    lines = (tmp_path / 'log.txt').read_text().splitlines()
    assert lines[1:] == ['before it is open', 'green', 'kept']


def test_a_log_that_cannot_be_written_ends_no_program():
    log = output.Log()
    log.open('/dev/full')
    for _ in range(3):
        log.write('text\n')
    log.close()
    assert log.file is None


# Text of strangers

ACTS = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]')
STRANGE = '\\x1b]0;owned\\x07\\x1b[2J\\x9b3Jtext\\rover\\b\\u202efdp.exe\\u2028'
WAYS = """
import logging, sys, threading, warnings
from elenchus.train import output
from elenchus.train.metrics import progress
strange = '{strange}'
with output.kept():
    print('early', strange)
    output.open_log(sys.argv[1])
    print(strange)
    print('warning:', strange, file=sys.stderr)
    sys.stdout.write(strange + chr(10))
    warnings.warn(strange)
    logging.warning(strange)
    with progress.progress(2, unit='steps', description=strange) as bar:
        print('above', strange)
        print('above', strange, file=sys.stderr)
        bar.advance(2, worst=strange)
    thread = threading.Thread(target=lambda: [][strange])
    thread.start()
    thread.join()
    def fail():
        raise KeyError('x') from ValueError(strange)
    try:
        fail()
    except KeyError as error:
        error.add_note(strange)
        raise
"""


@pytest.mark.parametrize('is_terminal', [False, True])
def test_whatever_prints_a_stranger_s_text_prints_no_character_that_acts(tmp_path, is_terminal):
    """Prints, warnings, logs, progress, threads, tracebacks, and the log file."""
    main, side = os.openpty() if is_terminal else os.pipe()
    with subprocess.Popen(
        [sys.executable, '-c', WAYS.format(strange=STRANGE), str(tmp_path)],
        cwd=multi_process.ROOT, env=multi_process.environment(1) | {'TERM': 'xterm'},
        stdout=side, stderr=side,
    ) as process:  # fmt: skip
        os.close(side)
        shown = b''
        with contextlib.suppress(OSError):  # of a terminal whose program has ended
            while part := os.read(main, 1 << 16):
                shown += part
        os.close(main)
        assert process.wait(timeout=100) == 1
    shown = shown.decode()
    assert 'owned' in shown and 'KeyError' in shown and shown.count('\\x1b]0;owned\\x07') >= 9
    if is_terminal:  # rich's own colours and cursor, and the ends of lines of a terminal
        shown = re.sub('\x1b\\[[0-9;?]*[a-zA-Z]|\r', '', shown)
    assert not ACTS.search(shown), ascii(ACTS.search(shown))
    log = (tmp_path / output.LOG).read_text()
    assert 'KeyError' in log and log.count('owned') >= 8 and not ACTS.search(log)


def test_every_console_and_script_writes_through_the_printable_stream():
    """A script that forgets `one_line_errors`, or a console of its own, would print as it is."""
    for path in OURS:
        name, text = path.relative_to(multi_process.ROOT).as_posix(), path.read_text()
        if name.startswith('scripts/launch/'):
            continue
        for call in re.findall(r'Console\(.*', text):
            assert 'output.terminal(' in call or 'file=file' in call, (name, call)
        if name.startswith('scripts/') and "__name__ == '__main__'" in text:
            reads_nothing = name in (
                'scripts/tools/roofline.py',
                'scripts/tools/lock_requirements.py',
                'scripts/console.py',
            )
            is_ours = name.startswith('scripts/bench/') or reads_nothing
            assert 'one_line_errors()' in text or is_ours, name
