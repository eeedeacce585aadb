"""Adapters: no effect at first, equal to the merged model, no second copy of the base."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from elenchus.model import block_weights, lora, projection, sharding
from elenchus.model import kv_cache as cache_lib
from elenchus.model.placement import Placement
from elenchus.train import optimizer as optimizer_lib
from elenchus.train import state as state_lib
from elenchus.train import step as step_lib
from tests.support import tiny_adapters, tiny_model
from tests.support.tiny_adapters import base, fresh, trained

CONFIG = tiny_adapters.CONFIG
ALL_TARGETS = tiny_adapters.ALL_TARGETS
TOKENS = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (2, 7), dtype=np.int32)
POSITIONS = np.broadcast_to(np.arange(7, dtype=np.int32), TOKENS.shape)


@tiny_model.jit
def logits(model):
    return model.logits(model(TOKENS, POSITIONS)[0])


@tiny_model.jit
def cached_logits(model):
    """Logits of the same tokens; the last two are decoded one by one with a cache."""
    cache = cache_lib.init_cache(model.config, batch=2, length=7)
    parts = []
    for start, end in ((0, 5), (5, 6), (6, 7)):
        hidden, cache = model(TOKENS[:, start:end], POSITIONS[:, start:end], cache=cache)
        parts.append(model.logits(hidden))
    return jnp.concatenate(parts, axis=1)


def buffers(tree):
    return {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}


def test_fresh_adapters_change_nothing():
    np.testing.assert_array_equal(logits(lora.attach(base(), fresh())), logits(base()))


@pytest.mark.parametrize('scan', [True, False], ids=['scanned', 'unrolled'])
def test_merged_weights_equal_base_and_adapters(scan):
    config = dataclasses.replace(CONFIG, scan_layers=scan)
    adapted = lora.attach(base(), trained())
    adapted.config = config
    want = logits(lora.merge(adapted))
    assert float(jnp.abs(want - logits(base())).max()) > 0.1
    np.testing.assert_allclose(logits(adapted), want, atol=2e-5)


@pytest.mark.slow
def test_decoding_equals_the_full_forward_pass():
    adapted = lora.attach(base(), trained())
    np.testing.assert_allclose(cached_logits(adapted), logits(adapted), atol=2e-5)


@pytest.mark.slow
def test_transposed_matrices_compute_the_same_logits(monkeypatch):
    monkeypatch.setattr(block_weights, 'MIN_TRANSPOSED_SIZE', 1)
    model = lora.attach(base(), trained())
    transposed = block_weights.transpose_weights(model).unstacked()
    is_transposed = lambda x: isinstance(x, projection.Transposed)  # noqa: E731
    count = sum(map(is_transposed, jax.tree.leaves(transposed, is_leaf=is_transposed)))
    assert count == 1 + len(ALL_TARGETS) * model.config.num_layers
    np.testing.assert_allclose(cached_logits(transposed), cached_logits(model), atol=2e-5)


def test_merging_gives_plain_arrays_of_the_base_s_dtype():
    merged = lora.merge(lora.attach(base(), trained(targets=('query', 'down'))))
    assert jax.tree.structure(merged) == jax.tree.structure(base())
    changed = [
        jax.tree_util.keystr(path)
        for (path, new), old in zip(
            jax.tree_util.tree_leaves_with_path(merged), jax.tree.leaves(base()), strict=True
        )
        if not np.array_equal(new, old)
    ]
    assert changed == ['.blocks.attention.query.value', '.blocks.mlp.down.value']


def test_two_players_on_one_base_hold_its_arrays_once():
    actor, critic = (lora.attach(base(), trained(seed, targets=('query', 'up'))) for seed in (1, 2))
    for player in (actor, critic):
        assert buffers(base()) <= buffers(player)
        assert len(buffers(player) - buffers(base())) == 4
    assert buffers(actor) & buffers(critic) == buffers(base())
    assert float(jnp.abs(logits(actor) - logits(critic)).max()) > 0.1


def test_splitting_undoes_attaching_without_a_copy():
    adapters = trained(targets=('out', 'gate'))
    again, frozen = lora.split(lora.attach(base(), adapters))
    assert jax.tree.structure((again, frozen)) == jax.tree.structure((adapters, base()))
    assert buffers(again) == buffers(adapters) and buffers(frozen) == buffers(base())
    assert lora.split(base()) == (base(), None)
    assert lora.adaptation_of(frozen) is None


def test_a_target_s_noise_does_not_depend_on_the_other_targets():
    np.testing.assert_array_equal(fresh().a['up'][...], fresh(targets=('up',)).a['up'][...])
    assert not np.array_equal(fresh().a['up'][...], fresh().a['gate'][...])
    assert not np.array_equal(fresh().a['up'][0], fresh().a['up'][1])


def test_adapters_are_split_over_a_mesh_as_their_base_is():
    mesh = sharding.make_mesh((2, 2, 2))
    specs = sharding.shardings(fresh(), mesh)
    assert specs.a['query'].get_value().spec == P(None, 'fsdp', None)
    assert specs.b['query'].get_value().spec == P(None, None, 'tensor', None)
    assert specs.a['out'].get_value().spec == P(None, 'tensor', None, None)
    assert specs.b['out'].get_value().spec == P(None, None, 'fsdp')


@pytest.mark.parametrize('name', ['adamw', pytest.param('muon', marks=pytest.mark.slow)])
def test_a_step_changes_adapters_alone_and_keeps_state_of_nothing_else(name):
    settings = optimizer_lib.OptimizerSettings(
        name, 0.05, 0.05, 'constant', 0.0, 0.1, 0.9, 0.95, 1.0
    )
    optimizer = optimizer_lib.make_optimizer(settings, num_steps=4)
    whole, adapters = (
        base(tiny_model.FLAT),
        fresh(config=tiny_model.FLAT, targets=('query', 'out', 'down')),
    )
    state = state_lib.init_state(adapters, optimizer)
    before = [np.asarray(x) for x in jax.tree.leaves(whole)]
    largest = max(x.size for x in jax.tree.leaves(adapters))
    assert all(x.size <= largest for x in jax.tree.leaves(state))
    step = step_lib.make_train_step(
        objective=tiny_model.SFT,
        optimizer=optimizer,
        transform=tiny_model.untouched,
        num_microbatches=1,
        skip_nonfinite=False,
    )
    batch = tiny_model.random_batch(0)
    losses = []
    for _ in range(4):
        state, metrics = step(state, batch, whole)
        losses.append(float(metrics['loss/total']))
    assert losses[-1] < losses[0]
    assert isinstance(state.model, lora.Adapters)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(state.model))
    for was, now in zip(before, jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.slow
def test_gradients_of_adapters_are_those_of_the_weights_through_the_factors():
    """d/db = scale * a^T dW: the chain rule, with dW from the model of full weights."""
    whole, adapters = base(tiny_model.FLAT), fresh(config=tiny_model.FLAT, targets=('gate',))
    full, grads = tiny_adapters.loss_grads(whole, None), tiny_adapters.loss_grads(adapters, whole)
    want = 2.0 * jnp.einsum('lir,lio->lro', adapters.a['gate'][...], full.blocks.mlp.gate[...])
    np.testing.assert_allclose(grads.b['gate'][...], want, atol=1e-6)


@pytest.mark.slow
def test_a_mesh_does_not_change_the_logits_of_an_adapted_model():
    mesh = sharding.make_mesh((2, 2, 2))
    want = logits(lora.attach(base(), trained()))
    with jax.set_mesh(mesh):
        adapters = jax.device_put(trained(), sharding.shardings(trained(), mesh))
        got = logits(lora.attach(Placement(mesh).place(base()), adapters))
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize(
    ('rank', 'alpha', 'targets', 'message'),
    [
        (-1, 1.0, ALL_TARGETS, r'lora\.rank=-1 .*nearest: 0'),
        (4, 0.0, ALL_TARGETS, r'lora\.alpha=0.0 .*nearest: 0\.001'),
        (4, 8.0, (), r'lora\.targets=\(\) .*query'),
        (4, 8.0, ('up', 'up'), r'lora\.targets=.*duplicates'),
    ],
)
def test_invalid_settings_are_refused_by_name(rank, alpha, targets, message):
    with pytest.raises(ValueError, match=message):
        lora.LoraSettings(rank, alpha, targets)
