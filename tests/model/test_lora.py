"""Adapters: no effect at the start, equal to the merged model, and no second copy of the base."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from elenchus.model import kv_cache as cache_lib
from elenchus.model import lora, sharding, weights
from elenchus.train import optimizer as optimizer_lib
from elenchus.train import state as state_lib
from elenchus.train import step as step_lib
from elenchus.train.checkpoints.checkpoint import place
from tests.support import tiny_model

CONFIG = tiny_model.EVERYTHING
ALL = tuple(weights.CONTRACT)
TOKENS = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (2, 7), dtype=np.int32)
POSITIONS = np.broadcast_to(np.arange(7, dtype=np.int32), TOKENS.shape)


def adaptation(rank=3, targets=ALL, alpha=6.0):
    settings = lora.LoraSettings(rank, alpha, targets)
    return lora.Adaptation(settings, '/some/base', 'abc', 'none')


@functools.cache
def base(config=CONFIG):
    return tiny_model.make_model(config)


def fresh(seed=0, config=CONFIG, **kinds):
    return lora.init_adapters(config, adaptation(**kinds), jax.random.key(seed))


def trained(seed=0, **kinds):
    """Adapters as training would leave them: b is no longer zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), x.dtype), fresh(**kinds)
    )


@tiny_model.jit
def logits(model):
    return model.logits(model(TOKENS, POSITIONS)[0])


@tiny_model.jit
def cached_logits(model):
    """Logits of the same tokens, the last two read one by one from a cache."""
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
def test_merged_weights_compute_what_base_and_adapters_do(scan):
    config = dataclasses.replace(CONFIG, scan_layers=scan)
    adapted = lora.attach(base(), trained())
    adapted.config = config
    want = logits(lora.merge(adapted))
    assert float(jnp.abs(want - logits(base())).max()) > 0.1
    np.testing.assert_allclose(logits(adapted), want, atol=2e-5)


def test_decoding_computes_what_the_whole_forward_pass_does():
    adapted = lora.attach(base(), trained())
    np.testing.assert_allclose(cached_logits(adapted), logits(adapted), atol=2e-5)


def test_transposed_matrices_compute_what_they_did(monkeypatch):
    monkeypatch.setattr(weights, 'TRANSPOSED_FROM', 1)
    model = lora.attach(base(), trained())
    turned = weights.transposed(model).unstacked()
    is_one = lambda x: isinstance(x, weights.Transposed)  # noqa: E731
    found = sum(map(is_one, jax.tree.leaves(turned, is_leaf=is_one)))
    assert found == 1 + len(ALL) * model.config.num_layers
    np.testing.assert_allclose(cached_logits(turned), cached_logits(model), atol=2e-5)


def test_merging_gives_full_arrays_of_the_base_s_kind():
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
    assert lora.adaptation(frozen) is None


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


@pytest.mark.parametrize('name', ['adamw', 'muon'])
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


@tiny_model.jit
def grads_of(trained, frozen):
    return step_lib.loss_and_grads(
        trained,
        tiny_model.random_batch(1),
        objective=tiny_model.SFT,
        transform=tiny_model.untouched,
        num_microbatches=1,
        frozen=frozen,
    )[1]


def test_gradients_of_adapters_are_those_of_the_weights_through_the_factors():
    """d/db = scale * a^T dW: the chain rule, with dW from the model of full weights."""
    whole, adapters = base(tiny_model.FLAT), fresh(config=tiny_model.FLAT, targets=('gate',))
    full, grads = grads_of(whole, None), grads_of(adapters, whole)
    want = 2.0 * jnp.einsum('lir,lio->lro', adapters.a['gate'][...], full.blocks.mlp.gate[...])
    np.testing.assert_allclose(grads.b['gate'][...], want, atol=1e-6)


def test_a_mesh_does_not_change_what_an_adapted_model_computes():
    mesh = sharding.make_mesh((2, 2, 2))
    want = logits(lora.attach(base(), trained()))
    with jax.set_mesh(mesh):
        adapters = jax.device_put(trained(), sharding.shardings(trained(), mesh))
        got = logits(lora.attach(place(base(), mesh), adapters))
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize(
    ('rank', 'alpha', 'targets', 'message'),
    [
        (-1, 1.0, ALL, r'lora\.rank=-1 .*0'),
        (4, 0.0, ALL, r'lora\.alpha=0.0 .*nearest: 4'),
        (4, 8.0, (), r'lora\.targets=\(\) .*query'),
        (4, 8.0, ('up', 'up'), r'lora\.targets=.*different'),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(rank, alpha, targets, message):
    with pytest.raises(ValueError, match=message):
        lora.LoraSettings(rank, alpha, targets)


@pytest.mark.parametrize(('kind', 'bound'), [('int8', 0.01), ('nf4', 0.11)])
def test_a_quantized_base_errs_by_no_more_than_its_kind_allows(kind, bound):
    """The error of every matrix in Euclidean norm, and what is left of the bytes."""
    held = weights.quantize(base(), kind)
    again = lora.merge(held)
    for target in ALL:
        old, new = (
            np.asarray(getattr(weights.block_part(m, target), target)[...]) for m in (base(), again)
        )
        assert 0 < np.linalg.norm(new - old) / np.linalg.norm(old) < bound
    size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))  # noqa: E731
    small, large = (size(weights.block_part(m, 'up')) for m in (held, base()))
    assert small < 0.35 * large
    np.testing.assert_array_equal(held.embedding[...], base().embedding[...])


@pytest.mark.parametrize('kind', ['int8', 'nf4'])
def test_adapters_learn_on_a_quantized_base_and_merge_with_it(kind):
    held, adapters = (
        weights.quantize(base(tiny_model.FLAT), kind),
        fresh(config=tiny_model.FLAT, targets=('query', 'down')),
    )
    grads = grads_of(adapters, held)
    want = grads_of(adapters, lora.merge(held))
    for got, exact in zip(jax.tree.leaves(grads), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(got, exact, atol=1e-6)
    assert all(np.abs(x[...]).max() > 0 for x in grads.b.values())


def test_of_adapters_on_a_base_the_base_is_quantized_and_no_more_than_once():
    adapters = trained(targets=('query', 'down'))
    held = weights.quantize(base(), 'int8')
    for model in (base(), held):
        made = weights.quantize(lora.attach(model, adapters), 'int8')
        expected = lora.attach(held, adapters)
        assert jax.tree.structure(made) == jax.tree.structure(expected)
        for one, other in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_quantized_base_is_split_as_it_was_and_its_scales_where_they_can_be():
    mesh = sharding.make_mesh((2, 2, 2))
    held = jax.eval_shape(lambda: weights.quantize(base(), 'int8'))
    specs = sharding.shardings(held, mesh)
    query = specs.blocks.attention.query.get_value()
    assert query.qvalue.spec == P(None, 'fsdp', 'tensor', None)
    assert query.scale.spec == P(None, None, 'tensor', None)
