"""Reinforcement of two tiny players for many iterations: does the process grow?

    python -m tests.support.steady_run FOLDER 200      # both players, a checkpoint every 5th time

Prints a JSON row every tenth iteration: resident anonymous memory, arrays that live, compilations,
open descriptors, threads, Python objects. test_steady_run.py asserts that they level off.
"""

import gc
import json
import os
import pathlib
import re
import sys
import threading
from collections.abc import Callable

import jax

from elenchus.train.rl import trainer
from tests.support.compilations import count_compilations
from tests.train.rl import test_trainer as cases

EVERY = 10
CHANGES = {'num_minibatches': 2, 'checkpoint_every': 5}


def measure(compilations: list[str]) -> dict[str, float]:
    """Returns the sizes of this process, after a collection of garbage."""
    gc.collect()
    status = pathlib.Path('/proc/self/status').read_text()
    # Not all resident memory: the kernel may take back pages of files, such as code.
    anonymous_kib = int(re.search(r'RssAnon:\s*(\d+)', status)[1])
    arrays = jax.live_arrays()
    return {
        'anonymous_mib': round(anonymous_kib / 1024, 1),
        'arrays': len(arrays),
        'array_kib': sum(x.nbytes for x in arrays) // 1024,
        'compilations': len(compilations),
        'descriptors': len(os.listdir('/proc/self/fd')),
        'threads': threading.active_count(),
        'objects': len(gc.get_objects()),
    }


def run(
    folder: pathlib.Path, iterations: int, *, show: Callable[[dict], None] = lambda row: None
) -> list[dict[str, float]]:
    """Trains for so many iterations; returns the sizes before every tenth."""
    rows, original = [], trainer.train_iteration
    with count_compilations() as compilations:

        def train_iteration(step, states, **options):
            if step % EVERY == 1:
                rows.append({'iteration': step} | measure(compilations))
                show(rows[-1])
            return original(step, states, **options)

        trainer.train_iteration = train_iteration
        try:
            cases.run(folder, ('actor', 'critic'), num_steps=iterations, **CHANGES)
        finally:
            trainer.train_iteration = original
    return rows


if __name__ == '__main__':
    run(
        pathlib.Path(sys.argv[1]),
        int(sys.argv[2]),
        show=lambda row: print(json.dumps(row), flush=True),
    )
