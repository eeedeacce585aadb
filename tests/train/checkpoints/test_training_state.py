"""Training states: restored exactly, complete or absent, and checked."""

import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elenchus.model import lora, sharding
from elenchus.model.placement import Placement
from elenchus.train.checkpoints import training_state
from elenchus.train.state import init_state
from tests.support import tiny_model
from tests.support.checkpoint_files import assert_same_arrays, delete, flip_bit, truncate

# On a damaged file Orbax closes its event loop while other reads are still running.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')


def mesh_of(*shape):
    return sharding.make_mesh(shape)


def make_state(seed, mesh):
    model = Placement(mesh).place(tiny_model.make_model(tiny_model.CONFIG, seed))
    return init_state(model, optax.adamw(1e-3))


def test_a_training_state_comes_back_exactly_with_its_cursor(tmp_path):
    checkpointer = training_state.Checkpointer(tmp_path / 'checkpoints', keep=2)
    mesh = mesh_of(2, 2, 2)
    assert checkpointer.restore(make_state(0, mesh)) is None
    states = {step: make_state(step, mesh) for step in (3, 6, 9)}
    for step, state in states.items():
        checkpointer.save(step, state, {'data': {'next_index': step, 'carried': [1, 2]}})
    checkpointer.close()
    again = training_state.Checkpointer(tmp_path / 'checkpoints', keep=2)
    step, state, cursor = again.restore(make_state(0, mesh))
    again.close()
    assert (step, cursor) == (9, {'data': {'next_index': 9, 'carried': [1, 2]}})
    assert_same_arrays(state, states[9])
    steps = {path.name for path in (tmp_path / 'checkpoints').iterdir() if path.name.isdigit()}
    assert steps == {'6', '9'}


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # Orbax's own
@pytest.mark.parametrize('damage', [truncate, flip_bit, delete])
@pytest.mark.parametrize('place', ['state/**/d/*', 'state/manifest.ocdbt', 'cursor/d/*'])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, capfd, place, damage):
    state = {'x': jax.numpy.arange(5000.0)}
    checkpointer = training_state.Checkpointer(tmp_path, keep=3)
    for step in (1, 2):
        checkpointer.save(step, state, {'step': step})
    checkpointer.close()
    damage(max((tmp_path / '2').glob(place), key=lambda path: path.stat().st_size))
    again = training_state.Checkpointer(tmp_path, keep=3)
    step, restored, cursor = again.restore(state)
    assert (step, cursor) == (1, {'step': 1})
    assert_same_arrays(restored, state)
    assert 'warning: checkpoint 2 in' in capfd.readouterr().err
    again.save(2, state, {'step': 2})  # the damaged one is replaced
    again.close()
    assert training_state.Checkpointer(tmp_path, keep=3).restore(state)[0] == 2


def test_a_bucket_that_does_not_answer_is_no_damage(tmp_path, monkeypatch):
    """Else the steps since the checkpoint before would be lost, and the good one replaced."""
    state = {'x': jax.numpy.arange(5.0)}
    checkpointer = training_state.Checkpointer(tmp_path, keep=3)
    checkpointer.save(1, state, {'step': 1})
    checkpointer.close()
    again = training_state.Checkpointer(tmp_path, keep=3)

    def fail(*_, **__):
        place = 'gs://bucket/' + 'long/' * 40  # as messages name it more than once
        raise ValueError(f'UNKNOWN: Error opening {place}: Error reading {place}: CURL error Recv')

    monkeypatch.setattr(again._checkpointer, 'load_checkpointables', fail)
    with pytest.raises(OSError, match='Error opening gs.*' + str(tmp_path)):
        again.restore(state)
    monkeypatch.undo()
    assert again.restore(state)[0] == 1


@pytest.mark.slow
def test_a_state_of_adapters_comes_back_exactly(tmp_path):
    mesh = mesh_of(2, 2, 2)
    adaptation = lora.Adaptation(lora.LoraSettings(2, 4.0, ('out', 'up')), '/base', 'abc', 'none')

    def state_of(seed):
        adapters = lora.init_adapters(tiny_model.CONFIG, adaptation, jax.random.key(seed))
        return init_state(Placement(mesh).place(adapters), optax.adamw(1e-3))

    checkpointer = training_state.Checkpointer(tmp_path / 'checkpoints', keep=1)
    checkpointer.save(4, state_of(1), {'data': 1})
    checkpointer.close()
    again = training_state.Checkpointer(tmp_path / 'checkpoints', keep=1)
    _, state, _ = again.restore(state_of(0))
    again.close()
    assert_same_arrays(state, state_of(1))
    assert state.model.adaptation == adaptation


SAVER = """
import sys
import jax, numpy as np
from elenchus.train.checkpoints import training_state
checkpointer = training_state.Checkpointer(sys.argv[1], keep=3)
for step in range(1, 1000):
    state = {'x': jax.numpy.full((1 << 21,), step, 'float32'), 'y': jax.numpy.int32(step)}
    checkpointer.save(step, state, {'step': step})
    print(step, flush=True)
"""


def test_a_process_killed_while_saving_leaves_whole_checkpoints_only(tmp_path):
    folder = tmp_path / 'checkpoints'
    process = subprocess.Popen(
        [sys.executable, '-c', SAVER, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        for line in process.stdout:
            if int(line) == 5:  # 4 is whole, 5 is being written
                time.sleep(0.005)
                process.send_signal(signal.SIGKILL)
                break
    checkpointer = training_state.Checkpointer(folder, keep=3)
    template = {'x': jax.numpy.zeros((1 << 21,)), 'y': jax.numpy.int32(0)}
    step, state, cursor = checkpointer.restore(template)
    checkpointer.close()
    assert step >= 4 and cursor == {'step': step} and int(state['y']) == step
    assert (np.asarray(state['x']) == step).all()
    assert all(path.name.isdigit() for path in folder.iterdir() if path.is_dir())


@pytest.mark.slow
def test_fifty_saves_keep_no_descriptor(tmp_path):
    checkpointer = training_state.Checkpointer(tmp_path / 'c', keep=2)
    counts = []
    for step in range(1, 51):
        checkpointer.save(step, {'a': jnp.arange(8.0)}, {'n': step})
        counts.append(len(os.listdir('/proc/self/fd')))
    checkpointer.close()
    # A save that is being written has a few open; each once kept three.
    assert max(counts[40:]) - max(counts[1:11]) < 20 and checkpointer.newest == 50
