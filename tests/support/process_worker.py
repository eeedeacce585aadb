"""What one of several processes does in tests/train/test_processes.py: a bit of everything.

python -m tests.support.process_worker FOLDER HOST:PORT NUM_PROCESSES PROCESS_ID
"""

import dataclasses
import json
import os
import pathlib
import signal
import sys

import jax
import numpy as np

from elenchus.data.files import atomic
from elenchus.model import sharding
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.train import distributed, sft
from elenchus.train.checkpoints import checkpoint
from elenchus.train.metrics import writers
from elenchus.train.optimizer import OptimizerSettings
from tests.support import tiny_model

MESH = (-1, 1, 2)
ADAM = OptimizerSettings('adamw', 0.01, 0.01, 'constant', 0.0, 0.1, 0.9, 0.95, 1.0)
LOOP = sft.LoopSettings(
    rows=8,
    length=16,
    num_microbatches=1,
    log_every=1,
    checkpoint_every=3,
    keep_checkpoints=2,
    nonfinite='stop',
    compare_hosts_every=1,
)
SHAPES = engine.EngineSettings(
    num_slots=8,
    max_length=16,
    chunk_steps=4,
    prompt_buckets=(8,),
    insert_rows=(8,),
    compact_slots=(),
    compact_lengths=(),
)


def model_on_mesh():
    return checkpoint.place(tiny_model.make_model(tiny_model.FLAT), jax.sharding.get_mesh())


def fit(folder, *, num_steps, loop=LOOP):
    """(model, totals) of a short fit that resumes in `folder`."""
    folder = atomic.absolute(folder)
    examples = tiny_model.random_examples(0, np.random.default_rng(0).integers(3, 15, 40))
    with writers.Writer(folder, tensorboard=folder / 'board') as writer:
        return sft.fit(
            model_on_mesh(),
            examples,
            settings=sft.FitSettings(num_steps, ADAM),
            loop=loop,
            folder=folder,
            writer=writer,
            seed=0,
            description='fit',
        )


def sampled(model):
    """Tokens of a few requests, more than there are slots."""
    rng = np.random.default_rng(1)
    prompts = [tuple(rng.integers(2, 48, 1 + i % 5).tolist()) for i in range(12)]
    requests = [engine.Request(i, prompt, 6) for i, prompt in enumerate(prompts)]
    made = engine.Engine(SHAPES, stop_ids=(1,)).generate(
        model, requests, method=sampling_methods.Sampling(1.0, 0, 1.0, 0.0, ()), seed=3
    )
    return [list(completion.tokens) for completion in made]


def fails_on_first():
    raise ValueError('only the first process knew')


def caught(kind, make):
    try:
        make()
    except kind as error:
        return str(error)
    return None


def apart():
    """A replicated scalar of which the last process has another copy."""
    place = jax.sharding.NamedSharding(jax.sharding.get_mesh(), jax.sharding.PartitionSpec())
    mine = np.uint32(jax.process_index() == jax.process_count() - 1)
    copies = [jax.device_put(mine, device) for device in jax.local_devices()]
    return jax.make_array_from_single_device_arrays((), place, copies)


def leave(folder):
    """The last process is told to leave; where all of them stopped."""
    if jax.process_index() == jax.process_count() - 1:
        os.kill(os.getpid(), signal.SIGTERM)
    try:
        fit(folder, num_steps=LEAVE_STEPS, loop=dataclasses.replace(LOOP, checkpoint_every=10**6))
    except distributed.Preempted as end:
        return end.code
    return None


LEAVE_STEPS = 3000


def main(folder, coordinator, num_processes, process_id):
    distributed.initialize(
        coordinator=coordinator,
        num_processes=int(num_processes),
        process_id=int(process_id),
        detect=False,
    )
    jax.set_mesh(sharding.make_mesh(MESH))
    model, totals = fit(folder / 'fit', num_steps=4)
    checkpoint.save_model(folder / 'model', model, tokenizer_fingerprint='abc')
    told = {
        'totals': totals,
        'sampled': sampled(model),
        'shared': distributed.from_first(lambda: {'of': jax.process_index(), 'long': 'x' * 5000}),
        'error': caught(ValueError, lambda: distributed.from_first(fails_on_first)),
        'apart': caught(RuntimeError, lambda: distributed.check_same('a number', apart())),
        'code': leave(folder / 'left'),
    }
    pathlib.Path(folder / f'{process_id}.json').write_text(json.dumps(told), encoding='utf-8')


if __name__ == '__main__':
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
