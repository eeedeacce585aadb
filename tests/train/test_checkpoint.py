"""Saved models and training states: exact, on any mesh, whole or absent, and checked."""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest
from etils import epath
from orbax.checkpoint import v1 as ocp

from elenchus.model import lora, sharding
from elenchus.train.checkpoints import checkpoint
from elenchus.train.state import init_state
from tests.support import tiny_model

# Where one file is damaged, Orbax closes its event loop while other reads are under way.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')

ROOT = pathlib.Path(__file__).parents[2]
FINGERPRINT = 'abc'


def mesh_of(*shape):
    return sharding.make_mesh(shape)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A model and the folder it was saved to, from a mesh of all kinds of axes."""
    model = checkpoint.place(tiny_model.make_model(tiny_model.EVERYTHING), mesh_of(2, 2, 2))
    folder = tmp_path_factory.mktemp('saved') / 'model'
    checkpoint.save_model(folder, model, tokenizer_fingerprint=FINGERPRINT)
    return model, folder


def load(folder, config=tiny_model.EVERYTHING, mesh=None, fingerprint=FINGERPRINT):
    mesh = mesh or mesh_of(8, 1, 1)
    return checkpoint.load_model(folder, config, mesh=mesh, tokenizer_fingerprint=fingerprint)


def assert_same_arrays(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize('shape', [(2, 2, 2), (1, 4, 2)])
def test_a_model_loads_exactly_onto_any_mesh(saved, shape):
    model, folder = saved
    mesh = mesh_of(*shape)
    loaded = load(folder, mesh=mesh)
    assert_same_arrays(loaded, model)
    wanted = jax.tree.leaves(sharding.shardings(loaded, mesh))
    for leaf, place in zip(jax.tree.leaves(loaded), wanted, strict=True):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim)


def test_a_model_of_another_size_keeps_its_architecture(saved):
    _, folder = saved
    asked = dataclasses.replace(
        tiny_model.EVERYTHING, num_layers=1, mlp_dim=8, dtype='bfloat16', max_length=128
    )
    found = checkpoint.saved_config(folder, asked)
    assert found == dataclasses.replace(tiny_model.EVERYTHING, dtype='bfloat16', max_length=128)
    with pytest.raises(ValueError, match='vocab_size=96, but .* vocab_size='):
        checkpoint.saved_config(folder, dataclasses.replace(tiny_model.EVERYTHING, vocab_size=96))
    with pytest.raises(ValueError, match='no model at'):
        checkpoint.saved_config(folder.parent, asked)


def test_numerics_may_differ_from_those_saved(saved):
    model, folder = saved
    config = dataclasses.replace(
        tiny_model.EVERYTHING, dtype='bfloat16', remat='full', scan_layers=False, max_length=128
    )
    loaded = load(folder, config)
    assert loaded.config == config
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize(
    ('field', 'value'),
    [('num_layers', 3), ('vocab_size', 64), ('rope_theta', 5e5), ('param_dtype', 'bfloat16')],
)
def test_another_shape_is_an_error_that_names_the_field(saved, field, value):
    config = dataclasses.replace(tiny_model.EVERYTHING, **{field: value})
    with pytest.raises(ValueError, match=rf'model\.{field}={value!r}, but .* {field}='):
        load(saved[1], config)


def test_another_tokenizer_is_an_error(saved):
    with pytest.raises(ValueError, match='was trained with tokenizer abc, the config gives xyz'):
        load(saved[1], fingerprint='xyz')


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='no model at'):
        load(tmp_path / 'nothing')


def test_descriptions_from_before_a_field_was_added_are_read(tmp_path):
    fields = dataclasses.asdict(tiny_model.CONFIG)
    earlier = {n: v for n, v in fields.items() if n not in checkpoint.EARLIER}
    assert len(earlier) == 19
    described = {'model': earlier, 'tokenizer': FINGERPRINT}
    (tmp_path / checkpoint.CONFIG).write_text(json.dumps(described))
    assert checkpoint.read_description(tmp_path) == (tiny_model.CONFIG, FINGERPRINT)


def test_saving_again_replaces_the_model(saved, tmp_path):
    model, _ = saved
    other = jax.tree.map(lambda x: x + 1, model)
    for one in (model, other):
        checkpoint.save_model(tmp_path / 'model', one, tokenizer_fingerprint=FINGERPRINT)
    assert_same_arrays(load(tmp_path / 'model'), other)


def test_parameters_without_their_description_are_no_model(saved, tmp_path):
    """What is left where a save was stopped between its two files."""
    model, _ = saved
    checkpoint.save_model(tmp_path / 'model', model, tokenizer_fingerprint=FINGERPRINT)
    (tmp_path / 'model' / checkpoint.CONFIG).unlink()
    with pytest.raises(ValueError, match='no model at'):
        load(tmp_path / 'model')
    checkpoint.save_model(tmp_path / 'model', model, tokenizer_fingerprint=FINGERPRINT)
    assert_same_arrays(load(tmp_path / 'model'), model)


@pytest.mark.filterwarnings('ignore:Sharding info not provided')
def test_a_saved_model_can_be_read_without_this_project(saved):
    model, folder = saved
    described = json.loads((folder / checkpoint.CONFIG).read_text())
    assert described.pop('fingerprint') > 0
    fields = json.loads(json.dumps(dataclasses.asdict(model.config)))
    assert described == {'model': fields, 'tokenizer': FINGERPRINT}
    assert checkpoint.read_description(folder) == (model.config, FINGERPRINT)
    with jax.set_mesh(mesh_of(8, 1, 1)):
        parameters = ocp.load(folder)
    np.testing.assert_array_equal(parameters['embedding'], np.asarray(model.embedding[...]))


def make_state(seed, mesh):
    model = checkpoint.place(tiny_model.make_model(tiny_model.CONFIG, seed), mesh)
    return init_state(model, optax.adamw(1e-3))


def test_a_training_state_comes_back_exactly_with_its_cursor(tmp_path):
    checkpointer = checkpoint.Checkpointer(tmp_path / 'checkpoints', keep=2)
    mesh = mesh_of(2, 2, 2)
    assert checkpointer.restore(make_state(0, mesh)) is None
    states = {step: make_state(step, mesh) for step in (3, 6, 9)}
    for step, state in states.items():
        checkpointer.save(step, state, {'data': {'next_index': step, 'carried': [1, 2]}})
    checkpointer.close()
    again = checkpoint.Checkpointer(tmp_path / 'checkpoints', keep=2)
    step, state, cursor = again.restore(make_state(0, mesh))
    again.close()
    assert (step, cursor) == (9, {'data': {'next_index': 9, 'carried': [1, 2]}})
    assert_same_arrays(state, states[9])
    kept = {path.name for path in (tmp_path / 'checkpoints').iterdir() if path.name.isdigit()}
    assert kept == {'6', '9'}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def unlink(path):
    path.unlink()


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # Orbax's own
@pytest.mark.parametrize('damage', [cut, flip, unlink])
@pytest.mark.parametrize('place', ['state/**/d/*', 'state/manifest.ocdbt', 'cursor/d/*'])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, capfd, place, damage):
    state = {'x': jax.numpy.arange(5000.0)}
    checkpointer = checkpoint.Checkpointer(tmp_path, keep=3)
    for step in (1, 2):
        checkpointer.save(step, state, {'step': step})
    checkpointer.close()
    damage(max((tmp_path / '2').glob(place), key=lambda path: path.stat().st_size))
    again = checkpoint.Checkpointer(tmp_path, keep=3)
    step, restored, cursor = again.restore(state)
    assert (step, cursor) == (1, {'step': 1})
    assert_same_arrays(restored, state)
    assert 'warning: checkpoint 2 in' in capfd.readouterr().err
    again.save(2, state, {'step': 2})  # the damaged one is replaced
    again.close()
    assert checkpoint.Checkpointer(tmp_path, keep=3).restore(state)[0] == 2


@pytest.mark.parametrize('damage', [cut, flip])
@pytest.mark.parametrize('place', ['state/**/d/*', checkpoint.CONFIG])
def test_a_damaged_model_is_one_line_that_says_what_to_delete(saved, tmp_path, place, damage):
    folder = tmp_path / 'model'
    shutil.copytree(saved[1], folder)
    damage(max(folder.glob(place), key=lambda path: path.stat().st_size))
    told = r'model.*(is damaged \(.*delete it and|json: invalid JSON|json\.\w+ is no field)'
    with pytest.raises(ValueError, match=told):
        load(folder)


def test_what_the_system_says_while_saving_is_its_own_error(tmp_path):
    """As TensorStore tells it: the text ends with the number."""
    with pytest.raises(OSError) as told, checkpoint._on_disk(tmp_path):
        raise ValueError("RESOURCE_EXHAUSTED: Failed writing [os_error_code='28']")
    assert told.value.errno == errno.ENOSPC and told.value.filename == str(tmp_path)
    with pytest.raises(ValueError, match='of ours'), checkpoint._on_disk(tmp_path):
        raise ValueError('a mistake of ours')


@pytest.mark.parametrize('folder', ['/a/b', 'gs://x/a'])
@pytest.mark.parametrize('base', ['/a/c', 'gs://x/b/c'])
def test_the_way_to_a_base_leads_there(folder, base):
    folder = epath.Path(folder)
    assert checkpoint._at_end_of(checkpoint._seen_from(folder, base), folder) == base


def test_a_state_of_adapters_comes_back_exactly(tmp_path):
    mesh = mesh_of(2, 2, 2)
    how = lora.Adaptation(lora.LoraSettings(2, 4.0, ('out', 'up')), '/base', 'abc', 'none')

    def state_of(seed):
        adapters = lora.init_adapters(tiny_model.CONFIG, how, jax.random.key(seed))
        return init_state(checkpoint.place(adapters, mesh), optax.adamw(1e-3))

    checkpointer = checkpoint.Checkpointer(tmp_path / 'checkpoints', keep=1)
    checkpointer.save(4, state_of(1), {'data': 1})
    checkpointer.close()
    again = checkpoint.Checkpointer(tmp_path / 'checkpoints', keep=1)
    _, state, _ = again.restore(state_of(0))
    again.close()
    assert_same_arrays(state, state_of(1))
    assert state.model.adaptation == how


SAVER = """
import sys
import jax, numpy as np
from train import checkpoint
checkpointer = checkpoint.Checkpointer(sys.argv[1], keep=3)
for step in range(1, 1000):
    state = {'x': jax.numpy.full((1 << 21,), step, 'float32'), 'y': jax.numpy.int32(step)}
    checkpointer.save(step, state, {'step': step})
    print(step, flush=True)
"""


def test_a_process_killed_while_saving_leaves_whole_checkpoints_only(tmp_path):
    folder = tmp_path / 'checkpoints'
    process = subprocess.Popen(
        [sys.executable, '-c', SAVER, str(folder)],
        cwd=ROOT,
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        for line in process.stdout:
            if int(line) == 5:  # 4 is whole, 5 is being written
                time.sleep(0.005)
                process.send_signal(signal.SIGKILL)
                break
    checkpointer = checkpoint.Checkpointer(folder, keep=3)
    template = {'x': jax.numpy.zeros((1 << 21,)), 'y': jax.numpy.int32(0)}
    step, state, cursor = checkpointer.restore(template)
    checkpointer.close()
    assert step >= 4 and cursor == {'step': step} and int(state['y']) == step
    assert (np.asarray(state['x']) == step).all()
    assert all(path.name.isdigit() for path in folder.iterdir() if path.is_dir())
