"""Saved models: loaded exactly on any mesh, complete or absent, and checked."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from orbax.checkpoint import v1 as ocp

from elenchus.model import sharding
from elenchus.model.placement import Placement
from elenchus.train.checkpoints import saved_models
from tests.support import tiny_model
from tests.support.checkpoint_files import assert_same_arrays, flip_bit, truncate

# On a damaged file Orbax closes its event loop while other reads are still running.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')

FINGERPRINT = 'abc'


def mesh_of(*shape):
    return sharding.make_mesh(shape)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """(model, folder): saved from a mesh with every kind of axis."""
    model = Placement(mesh_of(2, 2, 2)).place(tiny_model.make_model(tiny_model.EVERYTHING))
    folder = tmp_path_factory.mktemp('saved') / 'model'
    saved_models.save_model(folder, model, tokenizer_fingerprint=FINGERPRINT)
    return model, folder


def load(folder, config=tiny_model.EVERYTHING, mesh=None, fingerprint=FINGERPRINT):
    mesh = mesh or mesh_of(8, 1, 1)
    return saved_models.load_model(folder, config, mesh=mesh, tokenizer_fingerprint=fingerprint)


@pytest.mark.parametrize('shape', [(2, 2, 2), pytest.param((1, 4, 2), marks=pytest.mark.slow)])
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
    config = dataclasses.replace(
        tiny_model.EVERYTHING, num_layers=1, mlp_dim=8, dtype='bfloat16', max_length=128
    )
    actual = saved_models.saved_config(folder, config)
    assert actual == dataclasses.replace(tiny_model.EVERYTHING, dtype='bfloat16', max_length=128)
    with pytest.raises(ValueError, match='vocab_size=96, but .* vocab_size='):
        saved_models.saved_config(folder, dataclasses.replace(tiny_model.EVERYTHING, vocab_size=96))
    with pytest.raises(ValueError, match='no model at'):
        saved_models.saved_config(folder.parent, config)


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
    with pytest.raises(
        ValueError, match='was trained with tokenizer abc, but the config gives xyz'
    ):
        load(saved[1], fingerprint='xyz')


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='no model at'):
        load(tmp_path / 'nothing')


def test_descriptions_from_before_a_field_was_added_are_read(tmp_path):
    fields = dataclasses.asdict(tiny_model.CONFIG)
    earlier = {n: v for n, v in fields.items() if n not in saved_models.EARLIER_DEFAULTS}
    assert len(earlier) == 19
    description = {'model': earlier, 'tokenizer': FINGERPRINT}
    (tmp_path / saved_models.DESCRIPTION).write_text(json.dumps(description))
    assert saved_models.read_description(tmp_path) == (tiny_model.CONFIG, FINGERPRINT)


def test_saving_again_replaces_the_model(saved, tmp_path):
    model, _ = saved
    other = jax.tree.map(lambda x: x + 1, model)
    for one in (model, other):
        saved_models.save_model(tmp_path / 'model', one, tokenizer_fingerprint=FINGERPRINT)
    assert_same_arrays(load(tmp_path / 'model'), other)


def test_parameters_without_their_description_do_not_count_as_a_model(saved, tmp_path):
    """An interrupted save leaves this: the description is written last."""
    model, _ = saved
    saved_models.save_model(tmp_path / 'model', model, tokenizer_fingerprint=FINGERPRINT)
    (tmp_path / 'model' / saved_models.DESCRIPTION).unlink()
    with pytest.raises(ValueError, match='no model at'):
        load(tmp_path / 'model')
    saved_models.save_model(tmp_path / 'model', model, tokenizer_fingerprint=FINGERPRINT)
    assert_same_arrays(load(tmp_path / 'model'), model)


@pytest.mark.filterwarnings('ignore:Sharding info not provided')
def test_a_saved_model_can_be_read_without_this_project(saved):
    model, folder = saved
    description = json.loads((folder / saved_models.DESCRIPTION).read_text())
    assert description.pop('fingerprint') > 0
    fields = json.loads(json.dumps(dataclasses.asdict(model.config)))
    assert description == {'model': fields, 'tokenizer': FINGERPRINT}
    assert saved_models.read_description(folder) == (model.config, FINGERPRINT)
    with jax.set_mesh(mesh_of(8, 1, 1)):
        parameters = ocp.load(folder)
    np.testing.assert_array_equal(parameters['embedding'], np.asarray(model.embedding[...]))


@pytest.mark.parametrize('damage', [truncate, flip_bit])
@pytest.mark.parametrize('place', ['state/**/d/*', saved_models.DESCRIPTION])
def test_a_damaged_model_is_a_one_line_error_with_a_remedy(saved, tmp_path, place, damage):
    folder = tmp_path / 'model'
    shutil.copytree(saved[1], folder)
    damage(max(folder.glob(place), key=lambda path: path.stat().st_size))
    mistake = (
        r'is damaged \(.*delete it and|json: invalid JSON|json\.\w+ of ModelConfig; did you mean'
    )
    message = rf'model.*({mistake})'
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize('folder', ['/a/b', 'gs://x/a'])
@pytest.mark.parametrize('base', ['/a/c', 'gs://x/b/c'])
def test_the_relative_path_of_a_base_resolves_to_it(folder, base):
    folder = epath.Path(folder)
    assert saved_models._resolve_path(saved_models._relative_path(folder, base), folder) == base
