"""Reinforcement of a tiny actor whose rollouts are sampled ahead; it can kill itself on the way.

    python -m tests.support.overlapped_run FOLDER STALENESS CHECKPOINT_EVERY [EVENT DELAY_S]

An event is a chunk of decoding, the begin or the end of an update, or the begin of a save: moments
of both threads. So many seconds after the given one the process sends SIGKILL to itself. A run that
ends prints the number of its events.
"""

import hashlib
import json
import os
import pathlib
import signal
import sys
import threading
import time
from unittest import mock

import jax
import numpy as np

from elenchus.data.files import episode_files
from elenchus.train.checkpoints.training_state import Checkpointer
from elenchus.train.rl import trainer
from tests.train.rl import test_trainer as cases

NUM_STEPS = 5
CHANGES = {'num_steps': NUM_STEPS, 'optimizer__learning_rate': 0.003, **cases.PLAIN}


class Events:
    """Counts events of all threads; at one of them begins the end of the process."""

    def __init__(self, fatal: int, delay_s: float):
        self.count, self._fatal, self._delay_s = 0, fatal, delay_s

    def happen(self, *_) -> None:
        """Counts one."""
        self.count += 1
        if self.count == self._fatal:
            threading.Timer(self._delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()

    def around(self, function):
        """Returns the function, whose begin and end are events."""

        def counted(*args, **kwargs):
            self.happen()
            result = function(*args, **kwargs)
            self.happen()
            return result

        return counted


def main(folder: str, staleness: str, every: str, event: str = '0', delay_s: str = '0') -> None:
    """Runs, or continues, the training; writes a hash of the weights beside it."""
    place, events = pathlib.Path(folder), Events(int(event), float(delay_s))
    cases.tiny_models().sampler.engine.on_chunk = events.happen
    with (
        mock.patch.object(trainer, 'update_player', events.around(trainer.update_player)),
        mock.patch.object(Checkpointer, 'save', events.around(Checkpointer.save)),
    ):
        changes = {'staleness': int(staleness), 'checkpoint_every': int(every), **CHANGES}
        models, totals, _ = cases.run(place, ('actor',), **changes)
    content = b''.join(np.asarray(x).tobytes() for x in jax.tree.leaves(models))
    result = {'weights': hashlib.sha256(content).hexdigest(), 'totals': totals}
    (place / 'result.json').write_text(json.dumps(result))
    print(events.count)
    time.sleep(float(delay_s))  # its kill may still be due


def results(folder: pathlib.Path) -> dict[str, str]:
    """Returns what a run that has ended wrote, except times: {name: content or its hash}."""
    contents = {name: (folder / name).read_text() for name in ('result.json', 'metrics.jsonl')}
    for path in sorted(folder.glob('rollouts/**/*.array_record')):
        episodes = list(episode_files.read_episode_file(path))
        content = b''.join(map(episode_files.to_json, episodes))
        contents[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    for path in sorted(folder.glob('rollouts/**/values.jsonl')):
        contents[str(path.relative_to(folder))] = path.read_text()
    return contents


if __name__ == '__main__':
    main(*sys.argv[1:])
