import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from elenchus.model import kv_cache, sharding
from elenchus.train import optimizer as optimizer_lib
from elenchus.train import state as state_lib
from elenchus.train import step as step_lib
from tests.support import tiny_model

CONFIG = dataclasses.replace(tiny_model.EVERYTHING, logits_chunk=6, remat='dots')
SHAPES = [(2, 2, 2), pytest.param((1, 4, 2), marks=pytest.mark.slow)]
SETTINGS = optimizer_lib.OptimizerSettings(
    name='adamw',
    learning_rate=0.01,
    adam_learning_rate=0.01,
    schedule='constant',
    warmup_fraction=0.0,
    weight_decay=0.1,
    beta1=0.9,
    beta2=0.95,
    clip_norm=1.0,
)


def keep_grads():
    """Passes gradients on and stores them in its state, where a test can read them."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params), lambda grads, *_: (grads, grads)
    )


def train_step(mesh):
    """(loss, gradients, weights) after one step of two microbatches, on a mesh or without one."""
    optimizer = optax.chain(keep_grads(), optax.clip_by_global_norm(1.0), optax.sgd(0.5))
    state = state_lib.init_state(tiny_model.make_model(CONFIG), optimizer)
    batch = tiny_model.random_batch(0, rows=16)
    # With weights of both signs the loss is a small difference of large sums, and its rounding says
    # nothing about the mesh.
    batch = batch._replace(weights=abs(batch.weights))
    if mesh is not None:
        state = jax.device_put(state, sharding.shardings(state, mesh))
        batch = jax.device_put(batch, tiny_model.batch_sharding(mesh))
    step = step_lib.make_train_step(
        objective=tiny_model.GSPO,
        optimizer=optimizer,
        transform=tiny_model.untouched,
        num_microbatches=2,
        skip_nonfinite=False,
    )
    compiled = step.lower(state, batch).compile(tiny_model.QUICK)
    state, metrics = compiled(state, batch)
    return metrics['loss/total'], state.opt_state[0], state.model


@pytest.fixture(scope='module')
def alone():
    return train_step(None)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_a_train_step_on_a_mesh_equals_the_one_on_a_single_device(alone, shape, capfd):
    """Loss, gradients and resulting weights; rows, weights and vocabulary are split.

    Nothing is replicated because the partitioner knows no better way.
    """
    mesh = sharding.make_mesh(shape)
    with jax.set_mesh(mesh):
        actual = train_step(mesh)
    up = actual[2].blocks.mlp.up[...]
    assert up.sharding.shard_shape(up.shape) == (2, 16 // shape[1], 24 // shape[2])
    assert float(actual[0]) == pytest.approx(float(alone[0]), rel=1e-6)
    tiny_model.assert_trees_close(actual, alone, relative=4e-6)  # gradients and weights round more
    assert 'Involuntary full rematerialization' not in capfd.readouterr().err


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_the_optimizer_state_is_sharded_like_the_weights(name):
    optimizer = optimizer_lib.make_optimizer(dataclasses.replace(SETTINGS, name=name), num_steps=10)
    mesh = sharding.make_mesh((2, 2, 2))
    state = jax.eval_shape(lambda: state_lib.init_state(tiny_model.make_model(CONFIG), optimizer))
    specs = sharding.shardings(state, mesh)
    assert jax.tree.structure(specs) == jax.tree.structure(state)
    assert specs.step.spec == P()
    for path, leaf in jax.tree_util.tree_leaves_with_path(specs.opt_state):
        if jax.tree_util.keystr(path).endswith('.blocks.attention.out.value'):
            assert leaf.spec == P(None, 'tensor', None, 'fsdp')


def test_shardings_follow_the_names_of_dimensions():
    mesh = sharding.make_mesh((2, 2, 2))
    leaves = jax.tree_util.tree_leaves_with_path(
        sharding.shardings(tiny_model.make_model(CONFIG), mesh)
    )
    specs = {jax.tree_util.keystr(path): leaf.spec for path, leaf in leaves}
    assert specs['.embedding.value'] == P('tensor', 'fsdp')
    assert specs['.blocks.attention.query.value'] == P(None, 'fsdp', 'tensor', None)
    assert specs['.blocks.mlp.down.value'] == P(None, 'tensor', 'fsdp')
    assert specs['.final_norm.scale.value'] == P('fsdp')
    rows = sharding.spec((8, 3), ('batch', None), mesh=mesh.abstract_mesh)
    assert rows == P(('data', 'fsdp'), None)


def test_a_cache_on_a_mesh_is_split_by_row_and_head():
    mesh = sharding.make_mesh((2, 2, 2))
    with jax.set_mesh(mesh):
        cache = jax.jit(lambda: kv_cache.init_cache(CONFIG, batch=8, length=5))()
    keys = cache.layers[0][0]
    assert keys.sharding.shard_shape(keys.shape) == (2, 1, 5, 4)


def test_without_a_mesh_nothing_is_constrained():
    x = np.ones((4, 3))
    assert sharding.constrain(x, ('batch', None)) is x


def test_constrain_keeps_a_dimension_whole_that_does_not_divide():
    with jax.set_mesh(sharding.make_mesh((2, 2, 2))):
        x = jax.jit(lambda: sharding.constrain(jnp.ones((3, 6)), ('batch', 'mlp')))()
    assert x.sharding.shard_shape(x.shape) == (3, 3)


@pytest.mark.parametrize('shape', [(8, 1, 1), (-1, 1, 1), (2, -1, 2), (1, 1, -1)], ids=str)
def test_a_mesh_covers_all_devices_and_fills_in_the_missing_size(shape):
    mesh = sharding.make_mesh(shape)
    assert mesh.size == jax.device_count() == 8
    assert mesh.axis_names == sharding.AXES
    assert all(n in (-1, m) for n, m in zip(shape, mesh.axis_sizes, strict=True))


@pytest.mark.parametrize('shape', [(3, 1, 1), (3, -1, 1), (2, 2, 1), (16, 1, 1)], ids=str)
def test_a_mesh_that_does_not_divide_the_devices_is_refused_by_name(shape):
    with pytest.raises(ValueError, match=r'mesh=\(.*8 devices.*nearest.*\(8, 1, 1\)'):
        sharding.make_mesh(shape)


@pytest.mark.parametrize('shape', [(8, 1), (0, 8, 1), (-1, -1, 1), (-2, 1, 1)], ids=str)
def test_a_mesh_without_exactly_three_sizes_is_refused_by_name(shape):
    with pytest.raises(ValueError, match=r'mesh=\(.*three sizes'):
        sharding.make_mesh(shape)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'mlp_dim': 25}, r'mlp\.\w+ .*mlp=25 .*tensor.* 2; nearest multiple: 24'),
        ({'vocab_size': 47}, r'embedding .*vocab=47 .*tensor.* 2; nearest multiple: 48'),
        ({'num_kv_heads': 3, 'num_heads': 6}, r'attention\.key\w* .*kv_heads=3 .*tensor.* 2'),
    ],
    ids=['mlp', 'vocab', 'kv_heads'],
)
def test_a_dimension_that_does_not_divide_is_refused_by_name(changes, message):
    config = dataclasses.replace(CONFIG, **changes)
    model = jax.eval_shape(lambda: tiny_model.make_model(config))
    with pytest.raises(ValueError, match=message):
        sharding.shardings(model, sharding.make_mesh((2, 2, 2)))
