"""Starts a run as several processes on one machine, as on a pod.

python -m tests.support.multi_process 2 --workdir /tmp/two      # the tiny run on two processes
"""

import pathlib
import socket
import subprocess
import sys
from collections.abc import Sequence

import jax

from elenchus.model import transformer
from elenchus.train.checkpoints import saved_models
from elenchus.train.checkpoints.model_store import ModelStore
from tests.support.forked_runs import ROOT, environment

STAGES = ('base', 'actor', 'critique', 'critic', 'critique_in_the_loop', 'reinforce')
TINY = (
    '--config=configs/lab.py:smoke',
    f'--config.stages={STAGES}',
    '--config.model.num_layers=1',
    '--config.model.num_kv_heads=2',
    '--config.sampling.engine.num_slots=8',
    '--config.sampling.engine.prefill_batch_sizes=(8,)',
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
"""One stage of every kind: supervised training, sampling, self-improvement, GRPO."""
ADAPTED = (
    *(f'--config.{stage}.lora.rank=2' for stage in ('actor', 'critic', 'improve', 'reinforce')),
    '--config.sampling.engine.prefix_cache_rows=8',
    '--config.sampling.engine.prefix_cache_length=300',
)
"""Flags for adapters on one frozen base and a prefix cache."""


def start(
    num_processes: int, workdir: pathlib.Path, arguments: Sequence[str], *, devices: int
) -> list[subprocess.Popen]:
    """Starts the processes of a run, each with `devices` CPU devices; logs to WORKDIR.<i>.log."""
    port = free_port()
    started = []
    for i in range(num_processes):
        distributed_flags = (
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
                        *(distributed_flags if num_processes > 1 else ()),
                    ],
                    cwd=ROOT,
                    env=environment(devices),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return started


def load_stage_models(workdir: pathlib.Path) -> dict[str, transformer.Transformer]:
    """Loads {stage: model} of a run onto the current mesh, which may differ from the run's."""
    by_stage = {}
    for folder in sorted(pathlib.Path(workdir).glob('stages/*/model')):
        config, fingerprint = saved_models.read_description(folder)
        store = ModelStore(
            config,
            jax.sharding.get_mesh(),
            tokenizer_fingerprint=fingerprint,
            quantize='none',
        )
        by_stage[folder.parent.name] = store.load(folder)
    return by_stage


def free_port() -> int:
    """Returns a TCP port that is free at the moment."""
    with socket.socket() as listener:
        listener.bind(('localhost', 0))
        return listener.getsockname()[1]


def finish(processes: Sequence[subprocess.Popen], workdir: pathlib.Path, *, codes=(0,)) -> None:
    """Waits for all; raises AssertionError with the log if one exits with another code."""
    for i, process in enumerate(processes):
        code = process.wait(timeout=1800)
        log = pathlib.Path(f'{workdir}.{i}.log').read_text(encoding='utf-8')
        assert code in codes, f'process {i} ended with {code}: {log[-3000:]}'


if __name__ == '__main__':
    count, flag, folder, *more = sys.argv[1:]
    assert flag == '--workdir', 'usage: COUNT --workdir FOLDER [FLAGS]'
    finish(start(int(count), pathlib.Path(folder), (*TINY, *more), devices=1), pathlib.Path(folder))
