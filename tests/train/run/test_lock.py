"""One run at a time on a work directory; what a killed one leaves does not stand in the way."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from elenchus.train.run import lock
from tests.support.multi_process import ROOT

HOLDER = """
import sys, time
from scripts import lock
with lock.held(sys.argv[1]):
    print('held', flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """(work directory, the process that holds it)."""
    workdir = tmp_path / 'run'
    with subprocess.Popen(
        [sys.executable, '-c', HOLDER, str(workdir)],
        cwd=ROOT,
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == 'held\n'
        yield workdir, process
        process.kill()


def test_a_second_run_is_told_who_has_the_work_directory(holder):
    workdir, process = holder
    message = rf'in use by process {process.pid} on {socket.gethostname()} since .*new --workdir'
    with pytest.raises(ValueError, match=message), lock.locked(workdir):
        pass


def test_a_lock_of_a_killed_process_is_taken_over_and_its_half_written_files_go(holder):
    workdir, process = holder
    (workdir / 'summary.json.7.writing').write_text('half')
    process.send_signal(signal.SIGKILL)
    process.wait()
    with lock.locked(workdir):
        assert json.loads((workdir / lock.LOCK).read_text())['process'] == os.getpid()
        assert [path.name for path in workdir.iterdir()] == [lock.LOCK]
