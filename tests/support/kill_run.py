"""Kills the smoke run at random moments and compares what it leaves with an uninterrupted run's.

    python -m tests.support.kill_run --workdir /tmp/kills         # 20 kills, each stage hit twice

Each kill is SIGKILL to the whole process; the same command then continues. Prints every kill and,
at the end, what was compared by hash: weights, episodes, metrics, figures, report. Exit code 1
where anything differs or a stage was hit less than twice. Not part of the test suite: minutes.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import random
import re
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
"""The base is trained, or its stage would be over before it can be hit."""
PER_STAGE = 2
SPREAD = 0.6  # of a stage's seconds, so that most kills still find it


def start(workdir: pathlib.Path) -> subprocess.Popen:
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with open(f'{workdir}.log', 'a', encoding='utf-8') as log:
        return subprocess.Popen(
            [sys.executable, '-m', 'scripts.run', *SMOKE, f'--workdir={workdir}'],
            cwd=multi_process.ROOT,
            env=multi_process.environment(1),
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def running(workdir: pathlib.Path) -> str | None:
    """The stage that has begun and not ended."""
    for folder in sorted(workdir.glob('stages/*')):
        if not (folder / 'summary.json').exists():
            return folder.name
    return None


def begun(workdir: pathlib.Path) -> float:
    """When this process last wrote anything into its work directory."""
    return max((path.stat().st_mtime for path in workdir.rglob('*')), default=0.0)


def kill_in(workdir: pathlib.Path, stage: str, *, rng: random.Random, seconds: float) -> str:
    """Kills a run some time after it has come to a stage; returns the stage it was in."""
    process, started = start(workdir), time.time()
    while (running(workdir) or '') < stage or begun(workdir) < started:
        if process.poll() is not None:
            return 'ended'
        time.sleep(0.02)
    stop_at = time.time() + rng.uniform(0.0, SPREAD) * seconds
    while time.time() < stop_at and running(workdir) == stage:
        time.sleep(0.01)
    hit = running(workdir) or 'between stages'
    process.kill()
    process.wait(timeout=60)
    return hit


def fingerprints(workdir: pathlib.Path) -> dict[str, str]:
    """Name -> hash of everything that a run leaves, but for what tells the time."""
    found = {}
    for stage, model in multi_process.models(workdir).items():
        leaves = jax.tree.leaves(model)
        found[f'weights of {stage}'] = b''.join(np.asarray(x).tobytes() for x in leaves)
    for path in sorted(workdir.glob('stages/**/*.array_record')):
        made = b''.join(map(episode_files.to_json, episode_files.read_episode_file(path)))
        found[str(path.relative_to(workdir))] = made
    for pattern in ('metrics.jsonl', 'data_card.json', 'records.jsonl', 'episodes/*.tokens'):
        for path in sorted(workdir.glob(f'stages/**/{pattern}')):
            found[str(path.relative_to(workdir))] = path.read_bytes()
    figures = json.loads((workdir / 'summary.json').read_text(), object_hook=without_time)
    found['summary.json'] = json.dumps(figures).encode()
    page = (workdir / 'report.html').read_text()
    page = re.sub(r'<section id="cost">.*?</section>', '', page, flags=re.DOTALL)
    found['report.html'] = re.sub(r'[0-9a-f]{10}', '', page).encode()  # random ids of its plots
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in found.items()}


def without_time(told: dict) -> dict:
    return {name: value for name, value in told.items() if name != 'seconds'}


def kill_all(workdir: pathlib.Path, whole: pathlib.Path, *, kills: int, seed: int) -> dict:
    """Kills each stage twice and others until there were enough; returns the hits by stage."""
    rng = random.Random(seed)
    stages = [f'{i:02d}-{name}' for i, name in enumerate(lab.STAGES)]
    took = json.loads((whole / 'summary.json').read_text())['stages']
    more = collections.Counter(rng.choices(stages, k=max(0, kills - PER_STAGE * len(stages))))
    hits = collections.Counter()
    for stage in stages:
        done = workdir / 'stages' / stage / 'summary.json'
        while hits[stage] < PER_STAGE + more[stage] and not done.exists():
            hit = kill_in(workdir, stage, rng=rng, seconds=took[stage]['seconds'])
            hits[hit] += 1
            print(f'kill {hits.total()}: {hit}', flush=True)
    return dict(hits)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', type=pathlib.Path, required=True)
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0)
    asked = parser.parse_args()
    whole, killed = asked.workdir / 'whole' / 'run', asked.workdir / 'killed' / 'run'
    assert start(whole).wait() == 0, f'see {whole}.log'
    hits = kill_all(killed, whole, kills=asked.kills, seed=asked.seed)
    assert start(killed).wait() == 0, f'see {killed}.log'
    jax.set_mesh(sharding.make_mesh((-1, 1, 1)))
    expected, found = fingerprints(whole), fingerprints(killed)
    differing = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
    print(json.dumps({'hits': hits, 'compared': len(expected), 'differing': differing}, indent=1))
    few = [stage for stage in json.loads((whole / 'summary.json').read_text())['stages']
           if hits.get(stage, 0) < PER_STAGE]  # fmt: skip
    return int(bool(differing or few or sum(hits.values()) < asked.kills))


if __name__ == '__main__':
    os.nice(19)
    sys.exit(main())
