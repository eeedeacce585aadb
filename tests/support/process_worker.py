"""Program of each process in tests/train/test_distributed.py: training, sampling, broadcasts.

python -m tests.support.process_worker FOLDER HOST:PORT NUM_PROCESSES PROCESS_ID
"""

import dataclasses
import functools
import json
import os
import pathlib
import signal
import sys

import jax
import numpy as np

from elenchus.data.files import atomic
from elenchus.model import placement, sharding
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.train import distributed, loop, preemption
from elenchus.train.checkpoints import saved_models
from elenchus.train.optimizer import OptimizerSettings
from elenchus.train.run.directory import RunDirectory
from elenchus.train.sft import FitSettings
from elenchus.train.stages import sft
from tests.support import tiny_model

MESH = (-1, 1, 2)
ADAM = OptimizerSettings('adamw', 0.01, 0.01, 'constant', 0.0, 0.1, 0.9, 0.95, 1.0)
LOOP = loop.LoopSettings(
    rows=8,
    length=16,
    num_microbatches=1,
    log_every=1,
    checkpoint_every=3,
    keep_checkpoints=2,
    keep_finished_checkpoints=0,
    nonfinite='stop',
    compare_hosts_every=1,
)
SHAPES = engine.EngineSettings(
    num_slots=8,
    max_length=16,
    chunk_steps=4,
    prompt_buckets=(8,),
    prefill_batch_sizes=(8,),
    decode_batch_sizes=(),
    decode_cache_lengths=(),
)


def model_on_mesh():
    """A tiny model on the current mesh."""
    return placement.current().place(tiny_model.make_model(tiny_model.FLAT))


def fit(folder, *, num_steps, loop=LOOP):
    """Trains a few steps in `folder`/stages/00-fit, where it resumes; returns (model, totals)."""
    folder = atomic.absolute(folder)
    examples = tiny_model.random_examples(0, np.random.default_rng(0).integers(3, 15, 40))
    stage = RunDirectory(folder, '{}', ('fit',), part_size=1).stage('fit')
    settings = FitSettings(num_steps, ADAM, 'none', 'same')
    return sft.sft(model_on_mesh(), examples, settings=settings, loop=loop, seed=0, stage=stage)


def sample(model):
    """Samples tokens for more requests than there are slots."""
    rng = np.random.default_rng(1)
    prompts = [tuple(rng.integers(2, 48, 1 + i % 5).tolist()) for i in range(12)]
    requests = [engine.Request(i, prompt, 6) for i, prompt in enumerate(prompts)]
    completions = engine.Engine(SHAPES, stop_ids=(1,)).generate(
        model, requests, method=sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, ()), seed=3
    )
    return [list(completion.tokens) for completion in completions]


def fail_on_first():
    """Raises an error that only the first process can see."""
    raise ValueError('only the first process knew')


def catch_message(kind, make):
    """Runs make(); returns the message of an error of that kind."""
    try:
        make()
    except kind as error:
        return str(error)
    return None


def make_inconsistent_scalar():
    """Returns a replicated scalar of which the last process has another value."""
    place = jax.sharding.NamedSharding(jax.sharding.get_mesh(), jax.sharding.PartitionSpec())
    value = np.uint32(jax.process_index() == jax.process_count() - 1)
    copies = [jax.device_put(value, device) for device in jax.local_devices()]
    return jax.make_array_from_single_device_arrays((), place, copies)


def preempt(folder):
    """Sends SIGTERM to the last process; returns this process's exit code."""
    if jax.process_index() == jax.process_count() - 1:
        os.kill(os.getpid(), signal.SIGTERM)
    try:
        fit(
            folder,
            num_steps=PREEMPTED_STEPS,
            loop=dataclasses.replace(LOOP, checkpoint_every=10**6),
        )
    except preemption.Preempted as end:
        return end.code
    return None


PREEMPTED_STEPS = 3000  # more than are taken before the signal arrives


def main(folder, coordinator, num_processes, process_id):
    """Runs everything and writes the results to FOLDER/<process_id>.json."""
    distributed.initialize(
        coordinator=coordinator,
        num_processes=int(num_processes),
        process_id=int(process_id),
        detect=False,
    )
    jax.set_mesh(sharding.make_mesh(MESH))
    model, totals = fit(folder / 'fit', num_steps=4)
    saved_models.save_model(folder / 'model', model, tokenizer_fingerprint='abc')
    check = functools.partial(distributed.check_same, 'a number', make_inconsistent_scalar())
    results = {
        'totals': totals,
        'samples': sample(model),
        'broadcast': distributed.run_on_first(
            lambda: {'process': jax.process_index(), 'long': 'x' * 5000}
        ),
        'error': catch_message(ValueError, lambda: distributed.run_on_first(fail_on_first)),
        'mismatch': catch_message(RuntimeError, check),
        'code': preempt(folder / 'preempted'),
    }
    pathlib.Path(folder / f'{process_id}.json').write_text(json.dumps(results), encoding='utf-8')


if __name__ == '__main__':
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
