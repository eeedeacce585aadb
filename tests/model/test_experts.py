"""Experts against loops over tokens, in both forms of their products, on meshes and in decoding."""

import dataclasses
import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import config as config_lib
from elenchus.model import experts, lora, memory_estimate, quantization, sharding, transformer
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.train import objective, step
from elenchus.train.planning import compiled, machines, program_cost
from tests.support import slow_cases, tiny_model

CONFIG = dataclasses.replace(
    tiny_model.CONFIG, mlp_dim=8, num_experts=5, experts_per_token=2, normalise_experts=True,
    balance_coef=0.1, tie_embeddings=False,
)  # fmt: skip
SFT = tiny_model.SFT
forms = pytest.mark.parametrize('computes_all', [True, False], ids=['all', 'chosen'])


@pytest.fixture
def use_form(monkeypatch):
    """Chooses the form of the products: every expert on every token, or only the chosen ones."""
    return lambda value: monkeypatch.setattr(experts, 'computes_all', lambda: value)


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


def loss_and_grads(model, batch, **options):
    """(loss, gradients) of a batch; compiled anew, for the form of products that is in force."""
    function = functools.partial(
        step.loss_and_grads, objective=SFT, transform=step.IDENTITY, num_microbatches=1, **options
    )
    return jax.jit(function, compiler_options=tiny_model.QUICK)(model, batch)


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
    with_loss, _, metrics = loss_and_grads(model, batch)
    plain = dataclasses.replace(CONFIG, balance_coef=0.0)
    without = loss_and_grads(tiny_model.make_model(plain), batch)[0]
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
    expected = loss_and_grads(tiny_model.make_model(CONFIG), batch)[:2]
    use_form(computes_all)
    config = dataclasses.replace(CONFIG, **changes)
    actual = loss_and_grads(tiny_model.make_model(config), batch)[:2]
    grads = [jax.tree.leaves(tree[1]) for tree in (actual, expected)]
    tiny_model.assert_trees_close((actual[0], grads[0]), (expected[0], grads[1]), relative=2e-6)


def on_mesh(config, shape, batch):
    """(loss, gradients) of a batch on a mesh of some of the devices."""
    size = int(np.prod(shape))
    mesh = sharding.make_mesh(shape, jax.devices()[:size])
    with jax.set_mesh(mesh):
        model = tiny_model.make_model(config)
        model = jax.device_put(model, sharding.shardings(model, mesh))
        gate = model.blocks.experts.gate[...]
        parts = (config.num_experts, 8 // shape[2])
        if config.expert_parallel:
            parts = (config.num_experts // shape[2], 8)
        embed = 16 // int(np.prod(shape[1:2] + shape[3:]))
        assert gate.sharding.shard_shape(gate.shape) == (2, parts[0], embed, parts[1])
        batch = jax.device_put(batch, tiny_model.batch_sharding(mesh))
        loss, grads, _ = loss_and_grads(model, batch)
        return float(loss), [np.asarray(leaf) for leaf in jax.tree.leaves(grads)]


@pytest.mark.parametrize(
    ('shape', 'computes_all'),
    [
        ((1, 2, 2), True),
        pytest.param((1, 2, 2), False, marks=pytest.mark.slow),
        pytest.param((2, 1, 1, 2), True, marks=pytest.mark.slow),
        pytest.param((1, 2, 4), False, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_four_devices_compute_what_one_does(use_form, shape, computes_all):
    batch = tiny_model.random_batch(0, rows=4)
    batch = batch._replace(weights=abs(batch.weights))
    use_form(computes_all)
    loss, grads, _ = loss_and_grads(tiny_model.make_model(CONFIG), batch)
    actual = on_mesh(CONFIG, shape, batch)
    assert actual[0] == pytest.approx(float(loss), rel=1e-6)
    tiny_model.assert_trees_close((actual[1],), (jax.tree.leaves(grads),), relative=1e-5)


PARALLEL = dataclasses.replace(CONFIG, num_experts=8, experts_per_token=3, expert_parallel=True)


@pytest.mark.parametrize(
    ('shape', 'computes_all'),
    [
        ((1, 2, 2), False),
        pytest.param((1, 2, 2), True, marks=pytest.mark.slow),
        pytest.param((1, 1, 4), True, marks=pytest.mark.slow),
        pytest.param((1, 2, 4), False, marks=pytest.mark.slow),
        pytest.param((1, 1, 2, 2), False, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_devices_with_whole_experts_compute_what_one_does(use_form, shape, computes_all):
    """On rows that 'tensor' splits between the layers, and on rows that it does not divide."""
    use_form(computes_all)
    for length in (16, 15):
        batch = tiny_model.random_batch(0, rows=4, length=length)
        batch = batch._replace(weights=abs(batch.weights))
        loss, grads, _ = loss_and_grads(tiny_model.make_model(PARALLEL), batch)
        if len(shape) == 4 and length == 15:
            continue  # 'context' must divide rows
        actual = on_mesh(PARALLEL, shape, batch)
        assert actual[0] == pytest.approx(float(loss), rel=1e-6)
        tiny_model.assert_trees_close((actual[1],), (jax.tree.leaves(grads),), relative=1e-5)


def test_experts_that_do_not_divide_are_refused_by_name():
    config = dataclasses.replace(PARALLEL, num_experts=6)
    mesh = sharding.make_mesh((1, 1, 4), jax.devices()[:4])
    model = jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))
    with pytest.raises(ValueError, match=r'experts.* whole_experts=6 does not divide .*: 8'):
        sharding.shardings(model, mesh)


@pytest.mark.slow
def test_training_on_packed_rows_lowers_the_loss():
    batch = tiny_model.random_batch(0, rows=4)._replace(weights=np.ones((4, 16), np.float32))
    model, losses = tiny_model.make_model(CONFIG), []
    update = jax.jit(
        functools.partial(
            step.loss_and_grads, objective=SFT, transform=step.IDENTITY, num_microbatches=2
        ),
        compiler_options=tiny_model.QUICK,
    )
    for _ in range(8):
        loss, grads, metrics = update(model, batch)
        assert np.isfinite(float(metrics['experts/balance']))
        model = jax.tree.map(lambda x, g: x - 0.3 * g, model, grads)
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]


def greedy(model, prompts, length, *, slots):
    """Greedy continuations by the engine, with a cache of unrolled layers."""
    settings = engine.EngineSettings(
        num_slots=slots, max_length=48, chunk_steps=8, prompt_buckets=(8,),
        prefill_batch_sizes=(slots,), decode_batch_sizes=(), decode_cache_lengths=(),
    )  # fmt: skip
    requests = [engine.Request(i, tuple(map(int, p)), length) for i, p in enumerate(prompts)]
    sampler = engine.Engine(settings, stop_ids=(CONFIG.vocab_size,))
    done = sampler.generate(model, requests, method=sampling_methods.Greedy(()), seed=0)
    return [list(completion.tokens) for completion in done]


def test_greedy_continuations_are_those_of_a_full_pass():
    """A token of a prompt, of a decode step and of a packed row takes the same experts."""
    model = tiny_model.make_model(CONFIG)
    prompts = np.random.default_rng(0).integers(1, 48, (3, 6))
    texts = greedy(model, prompts, 20, slots=2)
    sequences = np.concatenate([prompts, texts], axis=1).astype(np.int32)
    positions = np.broadcast_to(np.arange(26, dtype=np.int32), sequences.shape)
    hidden, _ = tiny_model.jit(lambda m, t, p: m(t, p))(model, sequences, positions)
    best = np.asarray(model.logits(hidden)).argmax(-1)
    np.testing.assert_array_equal(best[:, 5:-1], sequences[:, 6:])


@pytest.mark.slow
@pytest.mark.parametrize('config', [CONFIG, PARALLEL], ids=['slices', 'whole'])
@forms
def test_four_devices_sample_what_one_does(use_form, computes_all, config):
    use_form(computes_all)
    jax.clear_caches()  # of programs with the other form
    model = jax.device_get(tiny_model.make_model(config))
    prompts = np.random.default_rng(1).integers(1, 48, (4, 6))
    alone = greedy(jax.tree.map(jnp.asarray, model), prompts, 9, slots=4)
    mesh = sharding.make_mesh((1, 2, 2), jax.devices()[:4])
    with jax.set_mesh(mesh):
        placed = jax.device_put(model, sharding.shardings(model, mesh))
        assert greedy(placed, prompts, 9, slots=4) == alone
    jax.clear_caches()


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
    loss, grads, _ = loss_and_grads(adapters, batch, frozen=model)
    assert float(loss) == pytest.approx(float(loss_and_grads(model, batch)[0]), rel=1e-6)
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


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='needs libtpu')
def test_a_training_step_compiles_for_a_tpu():
    """With the kernel for groups of rows, split over 'fsdp' and 'tensor'."""
    config = dataclasses.replace(
        CONFIG, embed_dim=256, mlp_dim=256, num_heads=4, num_kv_heads=2, head_dim=64,
        dtype='bfloat16', remat='dots', num_experts=8, vocab_size=512,
    )  # fmt: skip
    with compiled.mesh_of(machines.topology('v5e-4'), (1, 2, 2)) as mesh:
        model = jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))
        places = sharding.shardings(model, mesh)
        rows = tiny_model.batch_sharding(mesh)
        placed = lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)  # noqa: E731
        model = jax.tree.map(placed, model, places)
        batch = jax.tree.map(
            lambda x: placed(x, rows), tiny_model.random_batch(0, rows=4, length=256)
        )
        function = functools.partial(
            step.loss_and_grads, objective=objective.SFT, transform=step.IDENTITY,
            num_microbatches=1,
        )  # fmt: skip
        text = jax.jit(function).lower(model, batch).compile().as_text()
    assert 'ragged_dot' in text
    counted = program_cost.program_cost(text).once.flops
    expected = 3 * config_lib.forward_flops(config, tokens=4 * 256, length=128) / 4
    assert 0.8 * expected < counted < 1.6 * expected
