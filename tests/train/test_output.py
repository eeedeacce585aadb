"""Output of a run: its log, and readers that go away."""

import os
import subprocess
import sys

import pytest

from elenchus.train import output
from tests.support import multi_process

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
