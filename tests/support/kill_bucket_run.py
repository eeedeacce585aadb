"""Kills the smoke run in a bucket in every stage; compares it by hash with a run on a disk.

    python -m tests.support.kill_bucket_run --workdir /tmp/kills --kills=3
    python -m tests.support.kill_bucket_run --workdir /tmp/kills2 --kills=1 --processes=2

The bucket is that of `fake_gcs`. Each kill is SIGKILL to all processes of the run, or with
--one=yes to one of them, after which the others must end by themselves; the same command then
continues. A run that was killed leaves its lease, which the next one waits a minute for: the first
time it does, later the lease is deleted here. Several processes are compared with as many on a
disk. Exit code 1 if a hash differs, or a stage was hit less often than asked for. Not part of the
test suite: it takes minutes. After --minutes it stops at a kill with code 3, and the same command
goes on: the bucket is kept in WORKDIR.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax

from elenchus.configs import lab
from elenchus.model import sharding
from tests.support import fake_gcs, kill_run, multi_process

WORKDIR = 'gs://bucket/run'
LOCK = 'run/lock.json'
LIMIT_S = 600
STAGES = [f'{i:02d}-{name}' for i, name in enumerate(lab.get_config('smoke').stages)]


class Runs:
    """Starts of one run, of one process or several, in the bucket of a server or on a disk."""

    def __init__(self, log: pathlib.Path, *, processes: int, fake: fake_gcs.FakeGcs | None = None):
        self.log, self.processes, self.fake = log, processes, fake

    def start(self, workdir: str) -> list[subprocess.Popen]:
        """Starts all processes, or continues the run."""
        port, started = multi_process.free_port(), []
        variables = multi_process.environment(1) | (self.fake.environment if self.fake else {})
        for i in range(self.processes):
            several = (f'--coordinator=localhost:{port}', f'--num_processes={self.processes}',
                       f'--process_id={i}')  # fmt: skip
            command = [sys.executable, '-m', 'scripts.run', *kill_run.SMOKE]
            command += [f'--workdir={workdir}', *(several if self.processes > 1 else ())]
            with open(f'{self.log}.{i}', 'a', encoding='utf-8') as log:
                started.append(subprocess.Popen(
                    command, cwd=multi_process.ROOT, env=variables, stdout=log, stderr=log,
                ))  # fmt: skip
        return started

    def finish(self, workdir: str) -> None:
        """Runs to the end."""
        codes = [process.wait(1800) for process in self.start(workdir)]
        assert codes == [0] * self.processes, f'{codes}: see {self.log}.*'

    def running_stage(self) -> str:
        """Returns the stage in the bucket that has started and not ended, '' between two."""
        names = self.fake.objects.names('run/stages/')
        began = {name.split('/')[2] for name in names}
        ended = {name.split('/')[2] for name in names if name.count('/') == 3
                 and name.endswith('/summary.json')}  # fmt: skip
        return min(began - ended, default='')

    def has_written(self) -> bool:
        """Returns whether this start has put anything but its lease into the bucket."""
        writes = [r.label for r in list(self.fake.requests) if r.label[:5] in ('write', 'chunk')]
        return any(LOCK not in label and 'status' not in label for label in writes)

    def forget_lease(self) -> None:
        """Removes the lease of a run that was killed, which the next start would wait for."""
        self.fake.objects.buckets['bucket'].pop(LOCK, None)

    def kill_in(self, stage: str, *, rng: random.Random, seconds: float, one: bool) -> str:
        """Kills the run some time after it has reached a stage; returns the stage that was hit."""
        self.fake.requests.clear()
        started, end = self.start(WORKDIR), time.time() + LIMIT_S
        while self.running_stage() < stage or not self.has_written():
            if any(process.poll() is not None for process in started):
                assert [process.wait(LIMIT_S) for process in started] == [0] * len(started), (
                    self.log
                )
                return 'ended'
            assert time.time() < end, f'it does not reach {stage}: see {self.log}.*'
            time.sleep(0.02)
        stop_at = time.time() + rng.uniform(0.0, kill_run.SPREAD) * seconds
        while time.time() < stop_at and self.running_stage() == stage:
            time.sleep(0.01)
        hit = self.running_stage() or 'between stages'
        sent = time.time()
        for process in rng.sample(started, 1) if one else started:
            process.send_signal(signal.SIGKILL)
        codes = [process.wait(LIMIT_S) for process in started]
        print(f'kill in {hit}: codes {codes} after {time.time() - sent:.1f} s', flush=True)
        return hit


class Bucket:
    """The objects and the hits of a sequence of kills, kept on a disk between calls."""

    def __init__(self, folder: pathlib.Path, objects: fake_gcs.Objects):
        self._folder, self._objects = folder, objects
        self.hits = collections.Counter()
        if (folder / 'hits.json').exists():
            self.hits.update(json.loads((folder / 'hits.json').read_text()))
            objects.put_tree(folder / 'objects' / 'run', 'run')

    def store(self) -> pathlib.Path:
        """Writes both; returns the folder of the run."""
        shutil.rmtree(self._folder / 'objects', ignore_errors=True)
        self._objects.save(self._folder / 'objects')
        (self._folder / 'hits.json').write_text(json.dumps(self.hits))
        return self._folder / 'objects' / 'run'


def kill_stages(runs: Runs, bucket: Bucket, *, seconds: dict, args: argparse.Namespace) -> bool:
    """Kills each stage so often; returns False if the time is over before."""
    rng, since = random.Random(sum(bucket.hits.values())), time.monotonic()
    for stage in STAGES:
        while bucket.hits[stage] < args.kills:
            if time.monotonic() - since > args.minutes * 60:
                return False
            if bucket.hits:
                runs.forget_lease()
            took = seconds[stage]['seconds']
            hit = runs.kill_in(stage, rng=rng, seconds=took, one=args.one == 'yes')
            bucket.hits[hit] += 1
            bucket.store()
            if f'run/stages/{stage}/summary.json' in runs.fake.objects.names():
                break
    return True


def main() -> int:
    """Runs the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', type=pathlib.Path, required=True)
    parser.add_argument('--kills', type=int, default=3, help='of each stage')
    parser.add_argument('--processes', type=int, default=1)
    parser.add_argument('--one', choices=('yes', 'no'), default='no', help='kill one process only')
    parser.add_argument('--minutes', type=float, default=600)
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    whole = args.workdir / 'whole' / 'run'
    if not (whole / 'report.html').exists():
        Runs(args.workdir / 'whole.log', processes=args.processes).finish(str(whole))
    seconds = json.loads((whole / 'summary.json').read_text())['stages']
    with fake_gcs.FakeGcs('bucket') as fake:
        runs = Runs(args.workdir / 'killed.log', processes=args.processes, fake=fake)
        bucket = Bucket(args.workdir, fake.objects)
        if not kill_stages(runs, bucket, seconds=seconds, args=args):
            return 3
        if not bucket.hits['ended']:
            runs.forget_lease()
            runs.finish(WORKDIR)
        leases = [name for name in fake.objects.names() if name == LOCK]
        killed = bucket.store()
    jax.set_mesh(sharding.make_mesh((-1, 1, 1)))
    expected, actual = map(kill_run.fingerprints, (whole, killed))
    names = expected.keys() | actual.keys()
    differing = sorted(name for name in names if expected.get(name) != actual.get(name))
    result = {
        'hits': bucket.hits,
        'compared': len(expected),
        'differing': differing,
        'leases': leases,
    }
    print(json.dumps(result, indent=1))
    few = [stage for stage in STAGES if bucket.hits[stage] < args.kills]
    return int(bool(differing or few or leases))


if __name__ == '__main__':
    os.nice(5)
    sys.exit(main())
