"""Kills the smoke run at random moments and compares its results with an uninterrupted run.

    python -m tests.support.kill_run --workdir /tmp/kills         # 20 kills, each stage hit twice

Each kill is SIGKILL to the whole process, or with --signal=SIGTERM a request to stop, which must
end with code 75 within 10 s; the same command then continues. Requests also come while the run
opens (--opening). Prints every kill, the times from a request to the end, and a comparison by hash
of weights, episodes, metrics, figures and report. Exit code 1 if anything differs or if a stage was
hit less than twice. Not part of the test suite: it takes minutes.

A run that is complete in WORKDIR/whole/run, as of an earlier call, is compared with.
"""

import argparse
import collections
import hashlib
import json
import math
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np

from elenchus.configs import lab
from elenchus.data.files import episode_files
from elenchus.model import sharding
from tests.support import multi_process

SMOKE = ('--config=configs/lab.py:smoke', '--config.base.fit.num_steps=20')
"""The base is trained here; otherwise its stage would end before it can be hit."""
PER_STAGE = 2
LEAVE_S = 10.0  # from a request to stop to the end of the process
LEAVE_TIMES: list[float] = []  # of the requests of this program
PROCESSOR_TIMES: list[float] = []
SPREAD = 0.6  # kills within this share of a stage's duration, so that most still hit it


def start(workdir: pathlib.Path) -> subprocess.Popen:
    """Starts the smoke run, or continues it."""
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with open(f'{workdir}.log', 'a', encoding='utf-8') as log:
        return subprocess.Popen(
            [sys.executable, '-m', 'scripts.run', *SMOKE, f'--workdir={workdir}'],
            cwd=multi_process.ROOT,
            env=multi_process.environment(1),
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def running_stage(workdir: pathlib.Path) -> str | None:
    """Returns the stage that has started and not ended."""
    for folder in sorted(workdir.glob('stages/*')):
        if not (folder / 'summary.json').exists():
            return folder.name
    return None


def last_write_time(workdir: pathlib.Path) -> float:
    """Returns the time of the newest file in the work directory."""
    return max((path.stat().st_mtime for path in workdir.rglob('*')), default=0.0)


def kill_in(
    workdir: pathlib.Path, stage: str, *, rng: random.Random, seconds: float, number: signal.Signals
) -> str:
    """Kills a run some time after it has reached a stage; returns the stage that was hit."""
    process, started = start(workdir), time.time()
    while (running_stage(workdir) or '') < stage or last_write_time(workdir) < started:
        if process.poll() is not None:
            return 'ended'
        time.sleep(0.02)
    stop_at = time.time() + rng.uniform(0.0, SPREAD) * seconds
    while time.time() < stop_at and running_stage(workdir) == stage:
        time.sleep(0.01)
    hit = running_stage(workdir) or 'between stages'
    end(process, number)
    return hit


def end(process: subprocess.Popen, number: signal.Signals) -> None:
    """Sends the signal and waits for the end; prints how long it took, of a request."""
    before = sum(os.times()[2:4]) + cpu_seconds(process.pid)
    process.send_signal(number)
    sent = time.time()
    code = process.wait(timeout=60)
    if number == signal.SIGTERM:
        taken, used = time.time() - sent, sum(os.times()[2:4]) - before
        load = os.getloadavg()[0]
        print(f'  {number.name} to exit {code}: {taken:.2f} s, of the processor {used:.2f} s '
              f'(load {load:.0f})', flush=True)  # fmt: skip
        assert code in (0, 75), code
        LEAVE_TIMES.append(taken)
        PROCESSOR_TIMES.append(used)


def stop_opening(workdir: pathlib.Path, *, count: int, rng: random.Random) -> None:
    """Sends requests to stop at random moments before the run writes anything.

    From the moment on at which Python handles signals: before it, the kernel ends the process.
    """
    seconds = 0.0
    for i in range(count + 1):
        process, started = start(workdir), time.time()
        while not handles(process.pid, signal.SIGTERM):
            time.sleep(0.005)
        wait_s = rng.uniform(0, seconds) if i else math.inf  # the first one measures
        while time.time() < started + wait_s and not workdir.exists():
            time.sleep(0.01)
        seconds = seconds or time.time() - started
        if i:
            print(f'opening, after {time.time() - started:.1f} of {seconds:.1f} s')
            end(process, signal.SIGTERM)
        else:
            process.kill()
            process.wait()
        shutil.rmtree(workdir, ignore_errors=True)


def handles(pid: int, number: signal.Signals) -> bool:
    """Returns whether a process has a handler of the signal."""
    status = pathlib.Path(f'/proc/{pid}/status').read_text()
    caught = int(re.search(r'SigCgt:\s*(\w+)', status)[1], 16)
    return bool(caught >> (number - 1) & 1)


def cpu_seconds(pid: int) -> float:
    """Returns the processor time that a running process has used."""
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def fingerprints(workdir: pathlib.Path) -> dict[str, str]:
    """Returns {name: hash} of all results of a run, except measured times."""
    contents = {}
    for stage, model in multi_process.load_stage_models(workdir).items():
        leaves = jax.tree.leaves(model)
        contents[f'weights of {stage}'] = b''.join(np.asarray(x).tobytes() for x in leaves)
    for path in sorted(workdir.glob('stages/**/*.array_record')):
        episodes = b''.join(map(episode_files.to_json, episode_files.read_episode_file(path)))
        contents[str(path.relative_to(workdir))] = episodes
    for pattern in ('metrics.jsonl', 'data_card.json', 'records.jsonl', 'episodes/*.tokens'):
        for path in sorted(workdir.glob(f'stages/**/{pattern}')):
            contents[str(path.relative_to(workdir))] = path.read_bytes()
    figures = json.loads((workdir / 'summary.json').read_text(), object_hook=without_time)
    contents['summary.json'] = json.dumps(figures).encode()
    page = (workdir / 'report.html').read_text()
    page = re.sub(r'<section id="cost">.*?</section>', '', page, flags=re.DOTALL)
    contents['report.html'] = re.sub(r'[0-9a-f]{10}', '', page).encode()  # random ids of its plots
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in contents.items()}


def without_time(summary: dict) -> dict:
    """Removes the durations of a summary."""
    return {name: value for name, value in summary.items() if name != 'seconds'}


def kill_all(
    workdir: pathlib.Path, whole: pathlib.Path, *, kills: int, seed: int, number: signal.Signals
) -> dict:
    """Kills each stage twice, and random ones up to `kills`; returns the hits by stage."""
    rng = random.Random(seed)
    stages = [f'{i:02d}-{name}' for i, name in enumerate(lab.get_config('smoke').stages)]
    summaries = json.loads((whole / 'summary.json').read_text())['stages']
    more = collections.Counter(rng.choices(stages, k=max(0, kills - PER_STAGE * len(stages))))
    hits = collections.Counter()
    for stage in stages:
        done = workdir / 'stages' / stage / 'summary.json'
        while hits[stage] < PER_STAGE + more[stage] and not done.exists():
            seconds = summaries[stage]['seconds']
            hit = kill_in(workdir, stage, rng=rng, seconds=seconds, number=number)
            hits[hit] += 1
            print(f'kill {hits.total()}: {hit}', flush=True)
    return dict(hits)


def main() -> int:
    """Runs the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', type=pathlib.Path, required=True)
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--signal', default='SIGKILL', choices=['SIGKILL', 'SIGTERM'])
    parser.add_argument('--opening', type=int, default=5, help='requests while the run opens')
    args = parser.parse_args()
    whole, killed = args.workdir / 'whole' / 'run', args.workdir / 'killed' / 'run'
    assert start(whole).wait() == 0, f'see {whole}.log'
    number = signal.Signals[args.signal]
    if number == signal.SIGTERM:
        stop_opening(killed, count=args.opening, rng=random.Random(args.seed))
    hits = kill_all(killed, whole, kills=args.kills, seed=args.seed, number=number)
    assert start(killed).wait() == 0, f'see {killed}.log'
    for name, times in (('wall', LEAVE_TIMES), ('processor', PROCESSOR_TIMES)):
        if times:
            spread = np.quantile(times, (0, 0.25, 0.5, 0.75, 1)).round(2).tolist()
            print(f'{name} seconds of {len(times)} requests, quartiles: {spread}')
    jax.set_mesh(sharding.make_mesh((-1, 1, 1)))
    expected, actual = fingerprints(whole), fingerprints(killed)
    names = expected.keys() | actual.keys()
    differing = sorted(name for name in names if expected.get(name) != actual.get(name))
    print(json.dumps({'hits': hits, 'compared': len(expected), 'differing': differing}, indent=1))
    few = [stage for stage in json.loads((whole / 'summary.json').read_text())['stages']
           if hits.get(stage, 0) < PER_STAGE]  # fmt: skip
    slow = [seconds for seconds in LEAVE_TIMES if seconds > LEAVE_S]
    return int(bool(differing or few or slow or sum(hits.values()) < args.kills))


if __name__ == '__main__':
    if '--signal=SIGTERM' not in sys.argv:  # whose time is measured
        os.nice(19)
    sys.exit(main())
