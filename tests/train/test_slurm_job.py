"""A whole job of two processes by slurm.sh on a stand-in for SLURM: preempted, then done."""

import json
import pathlib
import subprocess
import sys
import tarfile
import time

import pytest

from elenchus.scripts.launch import sources
from tests.support.slurm_jobs import ROOT, Cluster

TINY = (
    "--config.stages=('base','actor')",
    '--config.base.fit.num_steps=2',
    '--config.actor.fit.num_steps=60',
    '--config.train.log_every=1',
    '--config.train.checkpoint_every=1000',
    '--config.mesh=(-1,1,1)',
)


def copy_of_the_clone(folder):
    """Returns a folder with the sources as they are, and no environment."""
    with tarfile.open(sources.pack(ROOT, folder, tree='dirty').path) as archive:
        archive.extractall(folder / 'clone', filter='data')
    return folder / 'clone'


@pytest.mark.slow
@pytest.mark.parametrize('is_fresh', [False, True], ids=['this environment', 'a fresh clone'])
def test_two_processes_are_preempted_queued_again_and_finish(tmp_path, is_fresh):
    """A fresh clone installs from requirements.lock, by pip as it is set up (PIP_NO_INDEX, ...)."""
    cluster, root = Cluster(tmp_path, kill_wait=30), ROOT
    # JAX reads the coordinator of a SLURM step from its first node; here it is this machine.
    if is_fresh:
        root = copy_of_the_clone(tmp_path)
        cluster.environment.pop('PYTHONPATH', None)
    else:
        cluster.environment['ELENCHUS_ENVIRONMENT'] = str(pathlib.Path(sys.executable).parents[1])
    cluster.environment['XLA_FLAGS'] = ''
    work = tmp_path / 'run'
    run = ['--config=configs/lab.py:smoke', f'--workdir={work}', *TINY]
    job = cluster.submit('--gpus=2', '--requeues=3', run=run, limit=2400, root=root)
    metrics = work / 'stages' / '01-actor' / 'metrics.jsonl'
    end = time.monotonic() + 900
    while not (metrics.exists() and metrics.stat().st_size):
        assert time.monotonic() < end, cluster.log(job)[-3000:]
        time.sleep(0.2)
    subprocess.run(['scancel', '--signal=TERM', job], env=cluster.environment, check=True)
    code, starts, log = cluster.wait(job, 900)
    assert (code, starts) == (0, 2), log[-3000:]
    assert 'exit code 75; queued again' in log and 'codes [75, 75]' in log
    steps = [json.loads(line)['step'] for line in metrics.read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 60
    assert (work / 'summary.json').exists()
    assert not list(work.rglob('*.writing'))
    assert (root / '.venv' / 'lock').exists() or not is_fresh
    assert ('environment ready' in log) == is_fresh
