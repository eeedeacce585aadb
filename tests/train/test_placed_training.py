"""Training on meshes, by real arrays: where a state lies, compilations, donated buffers."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from elenchus.model import lora, placement, quantization, sharding, transformer
from elenchus.train import loop, step
from elenchus.train import optimizer as optimizer_lib
from elenchus.train.checkpoints import training_state
from tests.support import compilations, slow_cases, tiny_model
from tests.support.checkpoint_files import assert_same_arrays

MESHES = [(1, 8, 1), (2, 2, 2), (8, 1, 1), (1, 2, 4)]
CONFIG = dataclasses.replace(
    tiny_model.EVERYTHING, num_heads=8, num_kv_heads=4, logits_chunk=6, remat='full'
)
LORA = lora.LoraSettings(2, 4.0, ('query', 'out', 'gate', 'down'))
KINDS = {
    'adamw': {'optimizer': 'adamw'},
    'muon': {'optimizer': 'muon'},
    'adapters': {'optimizer': 'adamw', 'quantize': 'none'},
    'adapters by muon': {'optimizer': 'muon', 'quantize': 'none'},
    'adapters on int8': {'optimizer': 'adamw', 'quantize': 'int8'},
    'adapters on nf4': {'optimizer': 'muon', 'quantize': 'nf4'},
}


STATES = {
    ((2, 2, 2), 'adamw'),
    ((1, 8, 1), 'muon'),
    ((2, 2, 2), 'adapters by muon'),
    ((1, 8, 1), 'adapters on nf4'),
}
STEPS = {((1, 8, 1), 'muon')}
"""The fast tests; the slow ones are all combinations with four meshes.

A step of all weights by Muon; a restored state runs the program of that step.
"""


def make_optimizer(name):
    settings = optimizer_lib.OptimizerSettings(
        name=name, learning_rate=0.01, adam_learning_rate=0.01, schedule='constant',
        warmup_fraction=0.0, weight_decay=0.1, beta1=0.9, beta2=0.95, clip_norm=1.0,
    )  # fmt: skip
    return optimizer_lib.make_optimizer(settings, num_steps=10)


def make_models(kind, *, seed=0):
    """(trained part, frozen base) of a kind of training, on the mesh in force."""
    here = placement.current()
    model = here.place(tiny_model.make_model(CONFIG, seed))
    quantize = KINDS[kind].get('quantize')
    if quantize is None:
        return model, None
    adaptation = lora.Adaptation(LORA, '/base', 0, quantize)
    adapters = lora.init_adapters(CONFIG, adaptation, jax.random.key(1))
    return adapters, quantization.quantize(model, quantize)


def device_bytes(tree):
    """Bytes of a tree on the first device."""
    first = jax.devices()[0]
    shards = (s for x in jax.tree.leaves(tree) for s in x.addressable_shards)
    return sum(s.data.nbytes for s in shards if s.device == first)


def moments(opt_state, trained):
    """Trees of the optimizer state with one array for each trained weight, or for some of them."""
    is_moment = lambda x: isinstance(x, type(trained))  # noqa: E731
    return [x for x in jax.tree.leaves(opt_state, is_leaf=is_moment) if is_moment(x)]


def assert_moments_lie_like_weights(opt_state, trained):
    trees = moments(opt_state, trained)
    assert trees
    named = {jax.tree_util.keystr(p): x for p, x in jax.tree_util.tree_leaves_with_path(trained)}
    for tree in trees:
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            assert x.sharding == named[jax.tree_util.keystr(path)].sharding, path


@functools.cache
def train_step(kind):
    return step.make_train_step(
        objective=tiny_model.GSPO,
        optimizer=make_optimizer(KINDS[kind]['optimizer']),
        transform=tiny_model.untouched,
        num_microbatches=2,
        skip_nonfinite=True,
    )


def batch(seed):
    return loop.to_device(tiny_model.random_batch(seed, rows=16))


@pytest.fixture
def mesh(shape):
    with jax.set_mesh(sharding.make_mesh(shape)) as mesh:
        yield mesh


@slow_cases.combinations(STATES, shape=MESHES, kind=list(KINDS))
def test_a_new_training_state_is_sharded_and_leaves_its_model_alone(mesh, kind):
    trained, _ = make_models(kind)
    state = loop.init_train_state(trained, make_optimizer(KINDS[kind]['optimizer']))
    assert_moments_lie_like_weights(state.opt_state, trained)
    expected = device_bytes(trained)
    for tree in moments(state.opt_state, trained):
        assert device_bytes(tree) <= expected
    sizes = [x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(state)]
    assert sizes == [x.shape for x in map(first_shard, jax.tree.leaves(state))]
    jax.tree.map(lambda x: x.delete(), state)
    assert not any(x.is_deleted() for x in jax.tree.leaves(trained))


def first_shard(x):
    return x.addressable_shards[0].data


@slow_cases.combinations(STEPS, shape=MESHES, kind=list(KINDS))
def test_a_train_step_compiles_once_and_updates_its_state_in_place(mesh, kind):
    trained, frozen = make_models(kind)
    optimizer = make_optimizer(KINDS[kind]['optimizer'])
    state, take = loop.init_train_state(trained, optimizer), train_step(kind)
    places = [x.sharding for x in jax.tree.leaves(state)]
    batches = [batch(seed) for seed in range(3)]
    with compilations.count_compilations() as events:
        state, _ = take(state, batches[0], frozen)
    assert len(events) == 1
    before = [first_shard(x).unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    with compilations.count_compilations() as events:
        for rows in batches[1:]:
            previous = state
            state, metrics = take(state, rows, frozen)
            assert all(x.is_deleted() for x in jax.tree.leaves(previous))
    assert not events, 'the step compiled again'
    assert [x.sharding for x in jax.tree.leaves(state)] == places
    after = [first_shard(x).unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    assert sorted(before) == sorted(after)
    assert all(x.sharding.is_fully_replicated for x in metrics.values())


@slow_cases.combinations(STEPS, shape=MESHES, kind=['adamw', 'muon', 'adapters on int8'])
def test_a_restored_state_is_sharded_and_continues_with_the_same_program(mesh, tmp_path, kind):
    trained, frozen = make_models(kind)
    optimizer, take = make_optimizer(KINDS[kind]['optimizer']), train_step(kind)
    init = functools.partial(loop.init_train_state, trained, optimizer)
    state, _ = take(init(), batch(0), frozen)
    checkpointer = training_state.Checkpointer(tmp_path, keep=1)
    checkpointer.save(1, state, {})
    checkpointer.close()
    reader = training_state.Checkpointer(tmp_path, keep=1)
    _, restored, _ = reader.restore(placement.current().abstract(jax.eval_shape(init)))
    reader.close()
    assert_same_arrays(restored, state)
    assert [x.sharding for x in jax.tree.leaves(restored)] == [
        x.sharding for x in jax.tree.leaves(state)
    ]
    with compilations.count_compilations() as events:
        restored, _ = take(restored, batch(1), frozen)
    assert not events
    state, _ = take(state, batch(1), frozen)
    assert_same_arrays(restored, state)


def test_rows_that_do_not_divide_over_the_mesh_are_refused_when_they_are_placed():
    with (
        jax.set_mesh(sharding.make_mesh((1, 8, 1))),
        pytest.raises(ValueError, match='tokens.*batch=12 .* size 8; nearest multiple: 16'),
    ):
        loop.to_device(tiny_model.random_batch(0, rows=12))


@slow_cases.combinations({((2, 2, 2),)}, shape=MESHES)
def test_weights_of_every_way_to_make_a_model_lie_at_their_placement(mesh):
    here = placement.current()
    created = transformer.init_model(CONFIG, jax.random.key(0))
    adaptation = lora.Adaptation(LORA, '/base', 0, 'none')
    adapters = lora.init_adapters(CONFIG, adaptation, jax.random.key(0))
    merged = lora.merge(lora.attach(created, adapters))
    quantized = [quantization.quantize(created, kind) for kind in ('int8', 'nf4')]
    for tree in (created, adapters, merged, *quantized):
        wanted = jax.tree.leaves(here.shardings(tree))
        assert [x.sharding for x in jax.tree.leaves(tree)] == wanted
    np.testing.assert_array_equal(merged.blocks.mlp.up[...], created.blocks.mlp.up[...])
