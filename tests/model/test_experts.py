"""Experts against loops over tokens, in both forms of their products, on meshes and in decoding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import config as config_lib
from elenchus.model import experts, lora, memory_estimate, quantization, transformer
from elenchus.train import step
from tests.support import slow_cases, tiny_experts, tiny_model

CONFIG = tiny_experts.CONFIG
use_form = tiny_experts.use_form
forms = pytest.mark.parametrize('computes_all', [True, False], ids=['all', 'chosen'])


def layer_of(config=CONFIG, seed=0):
    """The experts of the first layer of a random model."""
    blocks = tiny_model.make_model(config, seed).blocks
    return jax.tree.map(lambda leaf: leaf[0], blocks.experts)


def looped(layer, x):
    """The update of x [N, D], token by token and expert by expert."""
    router, gate, up, down = (w[...] for w in (layer.router, layer.gate, layer.up, layer.down))
    updates = []

    def mlp(e, x):
        return (jax.nn.silu(x @ gate[e]) * (x @ up[e])) @ down[e]

    for token in x:
        probabilities = jax.nn.softmax(token @ router)
        chosen = [int(e) for e in jnp.argsort(-probabilities)[: layer.count]]
        total = sum(probabilities[e] for e in chosen) if layer.normalise else 1.0
        updates.append(sum(probabilities[e] / total * mlp(e, token) for e in chosen))
    return jnp.stack(updates)


@slow_cases.combinations(
    {(True, True), (False, False)}, computes_all=[True, False], normalise=[True, False]
)
def test_updates_and_gradients_are_those_of_a_loop(use_form, computes_all, normalise):
    use_form(computes_all)
    layer = layer_of(dataclasses.replace(CONFIG, normalise_experts=normalise))
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 5, 16)), 'float32')
    direction = jnp.asarray(np.random.default_rng(2).standard_normal(x.shape), 'float32')

    def of_layer(layer, x):
        return (layer(x)[0] * direction).sum()

    def of_loop(layer, x):
        return (looped(layer, x.reshape(-1, 16)).reshape(x.shape) * direction).sum()

    np.testing.assert_allclose(
        layer(x)[0].reshape(-1, 16), looped(layer, x.reshape(-1, 16)), atol=1e-6
    )
    actual, expected = (jax.grad(f, argnums=(0, 1))(layer, x) for f in (of_layer, of_loop))
    tiny_model.assert_trees_close(actual, expected, relative=1e-6)


@forms
def test_no_token_is_dropped_where_all_choose_the_same_experts(use_form, computes_all):
    use_form(computes_all)
    layer = layer_of()
    x = jnp.asarray(np.random.default_rng(1).random((1, 9, 16)), 'float32')
    layer.router = layer.router.replace(jnp.zeros((16, 5)).at[:, 3].set(1.0).at[:, 1].set(0.5))
    update, use = layer(x, counted=jnp.ones((1, 9)))
    np.testing.assert_allclose(update[0], looped(layer, x[0]), atol=1e-6)
    np.testing.assert_array_equal(use.chosen[0, 0], [0, 9, 0, 9, 0])


def test_the_balance_loss_is_that_of_the_paper_with_two_experts_a_token():
    """k of an even use, E * k / 2 of one that always chooses the same two with certainty."""
    even = experts.ExpertUse(jnp.full((3, 4), 10.0), jnp.full((3, 4), 5.0))
    np.testing.assert_allclose(experts.balance_loss(even), [2.0] * 3)
    same = experts.ExpertUse(jnp.array([20.0, 20, 0, 0]), jnp.array([10.0, 10, 0, 0]))
    np.testing.assert_allclose(experts.balance_loss(same), 4.0)


@pytest.mark.slow
def test_the_loss_counts_the_routers_of_every_layer_without_padding():
    batch, model = tiny_model.random_batch(0, rows=2), tiny_model.make_model(CONFIG)
    with_loss, _, metrics = tiny_experts.loss_and_grads(model, batch)
    plain = dataclasses.replace(CONFIG, balance_coef=0.0)
    without = tiny_experts.loss_and_grads(tiny_model.make_model(plain), batch)[0]
    hidden, use = tiny_model.jit(
        lambda m: m(batch.tokens, batch.positions, segments=batch.segments)
    )(model)
    assert use.chosen.shape == (2, 5) and hidden.shape == (2, 16, 16)
    np.testing.assert_allclose(use.chosen.sum(axis=1), 2 * (batch.segments > 0).sum())
    np.testing.assert_allclose(use.probability.sum(axis=1), (batch.segments > 0).sum(), rtol=1e-5)
    tokens, loads = (batch.segments > 0).sum(), np.asarray(use.chosen)
    expected = np.mean((5 / tokens**2) * (loads * np.asarray(use.probability)).sum(axis=1))
    assert float(with_loss - without) == pytest.approx(0.1 * expected, rel=1e-4)
    assert float(metrics['experts/balance']) == pytest.approx(expected, rel=1e-5)
    assert float(metrics['experts/load_max']) == pytest.approx(
        (loads / loads.mean(axis=1, keepdims=True)).max(), rel=1e-5
    )
    assert float(metrics['experts/unused']) == (loads == 0).mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('changes', 'computes_all'),
    [
        ({'scan_layers': False}, False),
        pytest.param({'scan_layers': False}, True, marks=pytest.mark.slow),
        pytest.param({'remat': 'dots'}, False, marks=pytest.mark.slow),
        pytest.param({'remat': 'dots'}, True, marks=pytest.mark.slow),
        pytest.param(
            {'remat': 'full', 'remat_saved': ('gate', 'up')}, False, marks=pytest.mark.slow
        ),
        ({'remat': 'full', 'remat_saved': ('gate', 'up')}, True),
    ],
    ids=str,
)
def test_gradients_do_not_depend_on_how_they_are_computed(use_form, computes_all, changes):
    batch = tiny_model.random_batch(0, rows=2)
    use_form(True)
    expected = tiny_experts.loss_and_grads(tiny_model.make_model(CONFIG), batch)[:2]
    use_form(computes_all)
    config = dataclasses.replace(CONFIG, **changes)
    actual = tiny_experts.loss_and_grads(tiny_model.make_model(config), batch)[:2]
    grads = [jax.tree.leaves(tree[1]) for tree in (actual, expected)]
    tiny_model.assert_trees_close((actual[0], grads[0]), (expected[0], grads[1]), relative=2e-6)


@pytest.mark.slow
def test_training_on_packed_rows_lowers_the_loss():
    batch = tiny_model.random_batch(0, rows=4)._replace(weights=np.ones((4, 16), np.float32))
    model, losses = tiny_model.make_model(CONFIG), []
    update = jax.jit(
        functools.partial(
            step.loss_and_grads,
            objective=tiny_model.SFT,
            transform=step.IDENTITY,
            num_microbatches=2,
        ),
        compiler_options=tiny_model.QUICK,
    )
    for _ in range(8):
        loss, grads, metrics = update(model, batch)
        assert np.isfinite(float(metrics['experts/balance']))
        model = jax.tree.map(lambda x, g: x - 0.3 * g, model, grads)
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]


def test_greedy_continuations_are_those_of_a_full_pass():
    """A token of a prompt, of a decode step and of a packed row takes the same experts."""
    model = tiny_model.make_model(CONFIG)
    prompts = np.random.default_rng(0).integers(1, 48, (3, 6))
    texts = tiny_experts.greedy(model, prompts, 20, slots=2)
    sequences = np.concatenate([prompts, texts], axis=1).astype(np.int32)
    positions = np.broadcast_to(np.arange(26, dtype=np.int32), sequences.shape)
    hidden, _ = tiny_model.jit(lambda m, t, p: m(t, p))(model, sequences, positions)
    best = np.asarray(model.logits(hidden)).argmax(-1)
    np.testing.assert_array_equal(best[:, 5:-1], sequences[:, 6:])


@pytest.mark.slow
def test_adapters_are_on_attention_alone():
    model = tiny_model.make_model(CONFIG)
    adapted = lambda *targets: lora.init_adapters(  # noqa: E731
        CONFIG,
        lora.Adaptation(lora.LoraSettings(2, 4.0, targets), '/base', 0, 'none'),
        jax.random.key(0),
    )
    adapters = adapted('query', 'out')
    joined = lora.attach(model, adapters)
    batch = tiny_model.random_batch(0, rows=2)
    loss, grads, _ = tiny_experts.loss_and_grads(adapters, batch, frozen=model)
    assert float(loss) == pytest.approx(
        float(tiny_experts.loss_and_grads(model, batch)[0]), rel=1e-6
    )
    assert np.abs(grads.b['query'][...]).max() > 0
    merged = lora.merge(joined)
    assert jax.tree.structure(merged) == jax.tree.structure(model)
    with pytest.raises(ValueError, match=r"'up' is a matrix of .*nearest: \('query',\)"):
        adapted('query', 'up')


def test_quantization_is_refused():
    """Where a model is quantized, as a run checks its config."""
    with pytest.raises(ValueError, match=r"quantize='int8' is not supported with .*num_experts=5"):
        quantization.quantize(tiny_model.make_model(CONFIG), 'int8')


def test_parameters_count_all_experts_and_operations_only_the_chosen_ones():
    model = jax.eval_shape(lambda: transformer.init_model(CONFIG, jax.random.key(0)))
    size = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert config_lib.num_parameters(CONFIG) == size
    matrices = 3 * 16 * 8 * CONFIG.num_layers
    assert config_lib.num_active_parameters(CONFIG) == size - 3 * matrices
    more = dataclasses.replace(CONFIG, num_experts=9)
    flops = [config_lib.forward_flops(c, tokens=7, length=4) for c in (CONFIG, more)]
    assert flops[1] - flops[0] == 2 * 7 * CONFIG.num_layers * 16 * 4  # of the router
    layers = [memory_estimate.layer_parameters(c) for c in (CONFIG, more)]
    assert layers[1] - layers[0] == 4 * (3 * 16 * 8 + 16)


def test_numbers_of_experts_go_together():
    for changes, message in (
        (
            {'experts_per_token': 6},
            'experts_per_token=6 must be from 1 to num_experts=5; .*: 5',
        ),
        (
            {'experts_per_token': 0},
            'experts_per_token=0 must be from 1 to num_experts=5; .*: 1',
        ),
        ({'num_experts': 0}, r'experts_per_token=2 must be from 0 to num_experts=0; nearest: 0'),
        (
            {'num_experts': 0, 'experts_per_token': 0},
            'model.normalise_experts=True is of models with experts, .* nearest: False',
        ),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(CONFIG, **changes)
