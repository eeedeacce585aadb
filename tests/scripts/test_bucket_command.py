"""scripts.run with a work directory in a bucket, as a user starts it: killed, and continued."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support import kill_run, multi_process

fake_gcs = pytest.importorskip('tests.support.fake_gcs', exc_type=ImportError)

WORKDIR = 'gs://bucket/run'
RUN = (
    *(flag for flag in multi_process.TINY if not flag.startswith('--config.stages=')),
    "--config.stages=('base', 'actor', 'critique')",
    f'--workdir={WORKDIR}',
)
LIMIT_S = 900


def start(fake, *arguments, script='scripts.run', log=subprocess.PIPE) -> subprocess.Popen:
    """Starts a script whose clients of buckets talk to the fake server."""
    return subprocess.Popen(
        [sys.executable, '-m', script, *arguments],
        cwd=multi_process.ROOT,
        env=multi_process.environment(1) | fake.environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
    )


def figures(fake, name='run/summary.json') -> dict:
    """Returns the summary of the run without its times."""
    return json.loads(fake.objects.content(name), object_hook=kill_run.without_time)


def kill_after(fake, process: subprocess.Popen, writes: int) -> bool:
    """Kills a run after so many writes into the bucket; returns False if it ended before."""
    end = time.monotonic() + LIMIT_S
    while process.poll() is None:
        assert time.monotonic() < end, 'the run hangs'
        done = sum(r.label.split()[0] in ('write', 'chunk') for r in list(fake.requests))
        if done >= writes:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.01)
    return False


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_continues_to_the_same_figures(tmp_path):
    with fake_gcs.FakeGcs('bucket') as whole, open(tmp_path / 'whole.log', 'w') as log:
        assert start(whole, *RUN, log=log).wait(LIMIT_S) == 0
        expected = figures(whole)
        total = sum(r.label.split()[0] in ('write', 'chunk') for r in whole.requests)
    with fake_gcs.FakeGcs('bucket') as fake, open(tmp_path / 'killed.log', 'w') as log:
        kills = 0
        for share in (0.2, 0.5, 0.8):
            fake.requests.clear()
            process = start(fake, *RUN, log=log)
            kills += kill_after(fake, process, int(share * total * 0.7))
        process = start(fake, *RUN, log=log)
        assert process.wait(LIMIT_S) == 0, (tmp_path / 'killed.log').read_text()[-3000:]
        assert kills >= 2 and figures(fake) == expected
        assert 'run/lock.json' not in fake.objects.names()
        assert not os.path.exists('/gs') and not os.path.exists(multi_process.ROOT / 'gs:')
