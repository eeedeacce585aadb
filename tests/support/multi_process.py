"""Runs of several processes on one machine, as a pod would run them.

python -m tests.several 2 --workdir /tmp/two      # the tiny run on two processes
"""

import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Sequence

import jax

from elenchus.model import transformer
from elenchus.train.checkpoints import checkpoint
from elenchus.train.checkpoints.model_store import Models

ROOT = pathlib.Path(__file__).parents[2]
STAGES = ('base', 'actor', 'critique', 'critic', 'critique_in_the_loop', 'reinforce')
TINY = (
    '--config=configs/lab.py:smoke',
    f'--config.stages={STAGES}',
    '--config.model.num_layers=1',
    '--config.model.num_kv_heads=2',
    '--config.sampling.engine.num_slots=8',
    '--config.sampling.engine.insert_rows=(8,)',
    '--config.sampling.score.rows=8',
    '--config.base.fit.num_steps=2',
    '--config.actor.fit.num_steps=2',
    '--config.critic.fit.num_steps=2',
    '--config.improve.fit.num_steps=2',
    '--config.improve.num_problems=2',
    '--config.critique.num_problems=4',
    '--config.evaluate.num_problems=2',
    '--config.evaluate.beam.width=0',
    '--config.reinforce.num_steps=2',
    '--config.train.compare_hosts_every=1',
)
"""Every kind of stage: supervised training, sampling, a round of self-improvement, GRPO."""
ADAPTED = (
    *(f'--config.{stage}.lora.rank=2' for stage in ('actor', 'critic', 'improve', 'reinforce')),
    '--config.sampling.engine.parked_rows=8',
    '--config.sampling.engine.parked_length=300',
)
"""With adapters on one frozen base, and finished sequences whose caches are kept."""


def start(
    num_processes: int, workdir: pathlib.Path, arguments: Sequence[str], *, devices: int
) -> list[subprocess.Popen]:
    """The processes of one run, each with `devices` of its own; stderr goes to WORKDIR.<i>.log."""
    port = free_port()
    started = []
    for i in range(num_processes):
        joined = (
            f'--coordinator=localhost:{port}',
            f'--num_processes={num_processes}',
            f'--process_id={i}',
        )
        with open(f'{workdir}.{i}.log', 'w', encoding='utf-8') as log:
            started.append(
                subprocess.Popen(
                    [
                        *(sys.executable, '-m', 'scripts.run', f'--workdir={workdir}'),
                        *arguments,
                        *(joined if num_processes > 1 else ()),
                    ],
                    cwd=ROOT,
                    env=environment(devices),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return started


def environment(devices: int) -> dict[str, str]:
    """The variables under which a process has that many CPU devices."""
    return os.environ | {
        'PYTHONPATH': str(ROOT),
        'TF_CPP_MIN_LOG_LEVEL': '3',
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_CPU_DEVICES': str(devices),
    }


def models(workdir: pathlib.Path) -> dict[str, transformer.Transformer]:
    """Stage -> the model that it ended with, on the mesh in force, which need not be the run's."""
    found = {}
    for folder in sorted(pathlib.Path(workdir).glob('stages/*/model')):
        described, fingerprint = checkpoint.read_description(folder)
        saved = Models(
            described,
            jax.sharding.get_mesh(),
            tokenizer_fingerprint=fingerprint,
            quantize='none',
        )
        found[folder.parent.name] = saved.load(folder)
    return found


def free_port() -> int:
    with socket.socket() as found:
        found.bind(('localhost', 0))
        return found.getsockname()[1]


def finish(processes: Sequence[subprocess.Popen], workdir: pathlib.Path, *, codes=(0,)) -> None:
    """Waits for all; raises AssertionError, with what was printed, where one ends otherwise."""
    for i, process in enumerate(processes):
        code = process.wait(timeout=1800)
        told = pathlib.Path(f'{workdir}.{i}.log').read_text(encoding='utf-8')
        assert code in codes, f'process {i} ended with {code}: {told[-3000:]}'


if __name__ == '__main__':
    count, flag, folder, *more = sys.argv[1:]
    assert flag == '--workdir', 'usage: python -m tests.several COUNT --workdir FOLDER [FLAGS]'
    finish(start(int(count), pathlib.Path(folder), (*TINY, *more), devices=1), pathlib.Path(folder))
