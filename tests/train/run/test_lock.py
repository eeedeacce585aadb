"""One run at a time on a work directory; a killed one does not block the next."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from elenchus.train.run import lock
from tests.support import multi_process

HOLDER = """
import sys, time
from elenchus.train.run import lock
with lock.locked(sys.argv[1]):
    print('locked', flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """(work directory, the process that has locked it)."""
    workdir = tmp_path / 'run'
    with subprocess.Popen(
        [sys.executable, '-c', HOLDER, str(workdir)],
        cwd=multi_process.ROOT,
        env=multi_process.environment(1),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == 'locked\n'
        yield workdir, process
        process.kill()


def test_a_second_run_is_refused_with_the_owner_of_the_work_directory(holder):
    workdir, process = holder
    message = rf'in use by process {process.pid} on {socket.gethostname()} since .*new --workdir'
    with pytest.raises(ValueError, match=message), lock.locked(workdir):
        pass


def test_a_lock_of_a_killed_process_is_taken_over_and_its_half_written_files_are_deleted(holder):
    workdir, process = holder
    (workdir / 'summary.json.7.writing').write_text('half')
    process.send_signal(signal.SIGKILL)
    process.wait()
    with lock.locked(workdir):
        assert json.loads((workdir / lock.LOCK).read_text())['process'] == os.getpid()
        assert [path.name for path in workdir.iterdir()] == [lock.LOCK]
