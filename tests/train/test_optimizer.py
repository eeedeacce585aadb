"""AdamW and Muon: first updates, decay, clipping, schedules."""

import dataclasses
import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from elenchus.model import placement, sharding
from elenchus.train import optimizer as optimizer_lib
from elenchus.train import state as state_lib
from elenchus.train.optimizer import OptimizerSettings
from tests.support import hlo, slow_cases, tiny_model

ADAMW = OptimizerSettings(
    name='adamw',
    learning_rate=0.01,
    adam_learning_rate=0.002,
    schedule='constant',
    warmup_fraction=0.0,
    weight_decay=0.0,
    beta1=0.9,
    beta2=0.95,
    clip_norm=1e9,
)
MUON = dataclasses.replace(ADAMW, name='muon')
MATRICES = {  # (input size, output size) of the matrix that a layer of each weight is
    '.attention.query': (16, 16),
    '.attention.key': (16, 8),
    '.attention.value': (16, 8),
    '.attention.out': (16, 16),
    '.mlp.gate': (16, 24),
    '.mlp.up': (16, 24),
    '.mlp.down': (24, 16),
}
WEIGHTS = {f'.blocks{name}' for name in MATRICES} | {'.embedding', '.head'}


def by_name(tree):
    """{'.blocks.mlp.up': array} of a model or of its gradients."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p).removesuffix('.value'): np.asarray(x) for p, x in leaves}


def random_grads(model, seed=0):
    """Gradients whose matrices have singular values from 0.3 to 1."""
    rng = np.random.default_rng(seed)

    def matrix(inputs, outputs):
        rank = min(inputs, outputs)
        u, v = (np.linalg.qr(rng.standard_normal((n, rank)))[0] for n in (inputs, outputs))
        return (u * np.linspace(0.3, 1, rank)) @ v.T

    def leaf(path, x):
        name = jax.tree_util.keystr(path).removesuffix('.value').removeprefix('.blocks')
        grads = rng.standard_normal(x.shape)
        if name in MATRICES:
            grads = np.stack([matrix(*MATRICES[name]).reshape(x.shape[1:]) for _ in x])
        return jnp.asarray(grads, x.dtype)

    return jax.tree_util.tree_map_with_path(leaf, model)


@functools.partial(tiny_model.jit, static_argnames='settings')
def update(settings, grads, model):
    optimizer = optimizer_lib.make_optimizer(settings, num_steps=10)
    return optimizer.update(grads, optimizer.init(model), model)


def first_update(settings, grads, model):
    """{name: update} of the first step."""
    return by_name(update(settings, grads, model)[0])


@pytest.fixture(scope='module')
def model():
    return tiny_model.make_model(tiny_model.EVERYTHING)


@pytest.fixture(scope='module')
def muon_updates(model):
    """Updates at two settings: as given, and at three times the rate for matrices."""
    tripled = dataclasses.replace(MUON, learning_rate=0.03)
    return [first_update(settings, random_grads(model), model) for settings in (MUON, tripled)]


def test_muon_orthogonalises_every_matrix_of_every_layer(muon_updates):
    """All singular values of the right flattening are near one, times the shape's scale."""
    for name, (inputs, outputs) in MATRICES.items():
        for layer in muon_updates[0][f'.blocks{name}']:
            values = np.linalg.svd(layer.reshape(inputs, outputs), compute_uv=False)
            values = values / (0.01 * max(1, outputs / inputs) ** 0.5)
            assert values.min() > 0.6 and values.max() < 1.3, (name, values)


def test_muon_updates_only_block_matrices_and_adam_the_rest(muon_updates):
    plain, tripled = muon_updates
    for name, change in plain.items():
        factor = 3 if name.removeprefix('.blocks') in MATRICES else 1
        np.testing.assert_allclose(tripled[name], factor * change, rtol=1e-5)
        assert change.any()
    # Adam's first step: its rate times 1 + beta1 / (1 + beta1), for it looks ahead (Nesterov).
    np.testing.assert_allclose(np.abs(plain['.embedding']), 0.002 * (1 + 0.9 / 1.9), rtol=1e-3)


def test_muon_treats_every_layer_separately(model, muon_updates):
    changed, others = random_grads(model), random_grads(model, seed=1)
    changed.blocks = jax.tree.map(lambda a, b: a.at[1].set(b[1]), changed.blocks, others.blocks)
    before, after = muon_updates[0], first_update(MUON, changed, model)
    for name in MATRICES:
        np.testing.assert_array_equal(before[f'.blocks{name}'][0], after[f'.blocks{name}'][0])
        assert not np.allclose(before[f'.blocks{name}'][1], after[f'.blocks{name}'][1])


@pytest.mark.slow
def test_muon_treats_every_expert_separately():
    config = dataclasses.replace(
        tiny_model.CONFIG, num_layers=1, mlp_dim=8, num_experts=3, experts_per_token=1
    )
    model = tiny_model.make_model(config)
    grads, others = random_grads(model), random_grads(model, seed=1)
    before = first_update(MUON, grads, model)
    replaced = jax.tree.map(lambda a, b: a.at[:, 2].set(b[:, 2]), grads.blocks, others.blocks)
    grads.blocks.experts = replaced.experts
    after = first_update(MUON, grads, model)
    for name in ('gate', 'up', 'down'):
        x, y = (update[f'.blocks.experts.{name}'] for update in (before, after))
        np.testing.assert_array_equal(x[:, :2], y[:, :2])
        assert not np.allclose(x[:, 2], y[:, 2])


def test_adamw_takes_a_first_step_of_the_learning_rate(model):
    grads = random_grads(model)
    for name, update in first_update(ADAMW, grads, model).items():
        np.testing.assert_allclose(update, -0.01 * np.sign(by_name(grads)[name]), rtol=1e-3)


@pytest.mark.parametrize('settings', [ADAMW, MUON], ids=['adamw', 'muon'])
def test_weight_decay_reaches_weights_and_never_norms_or_biases(model, settings):
    zeros = jax.tree.map(jnp.zeros_like, model)
    settings = dataclasses.replace(settings, weight_decay=0.1)
    decayed = {name for name, x in first_update(settings, zeros, model).items() if x.any()}
    matrices = {f'.blocks{name}' for name in MATRICES}
    assert decayed == (WEIGHTS if settings.name == 'adamw' else matrices)


def test_gradients_are_clipped_to_the_norm_all_together(model):
    """Adam forgets the scale of its gradients, so Adam's state shows what reached it."""
    grads = random_grads(model)
    _, state = update(dataclasses.replace(ADAMW, clip_norm=0.5), grads, model)
    moments = [x for x in jax.tree.leaves(state) if x.ndim > 0]
    firsts = moments[: len(moments) // 2]
    norm = np.sqrt(sum(float(jnp.sum(x**2)) for x in firsts)) / (1 - ADAMW.beta1)
    assert norm == pytest.approx(0.5, rel=1e-5)


@pytest.mark.slow
@slow_cases.combinations(
    {((1, 2, 4), 2)},
    shape=[(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)],
    num_layers=[2, 8],
)
def test_muon_on_a_mesh_sends_each_number_twice_and_keeps_its_values(shape, num_layers):
    """Whole layers are brought to a device and back; the products themselves send nothing."""
    config = dataclasses.replace(
        tiny_model.EVERYTHING, num_layers=num_layers, num_heads=8, num_kv_heads=4
    )
    model, grads = (tiny_model.make_model(config, seed) for seed in (0, 1))
    optimizer = optimizer_lib.make_optimizer(MUON, num_steps=10)
    expected = jax.jit(optimizer.update)(grads, optimizer.init(model), model)
    here = placement.Placement(sharding.make_mesh(shape))
    placed = here.place(model)
    state = here.init(optimizer.init, placed)
    program = here.jit(lambda grads, state, params: optimizer.update(grads, state, params))
    actual = program(here.place(grads), state, placed)
    tiny_model.assert_trees_close(actual, expected, relative=1e-5)
    compiled = program.lower(here.place(grads), state, placed).compile()
    moved = hlo.collectives(compiled.as_text())
    matrices = sum(x.nbytes for n, x in by_name(model).items() if n.startswith('.blocks'))
    padded = matrices * max(1, 8 / num_layers)  # fewer layers than devices: some work on zeros
    sent = sum(c.bytes for c in moved if np.prod(c.shape) > 1)
    # All layers' gradients pass through each device at most twice; on 'data' alone they are
    # there already, and only the results are gathered.
    assert sent <= 2 * padded, [c for c in moved if np.prod(c.shape) > 1]
    assert {c.kind for c in moved if np.prod(c.shape) > 1} <= {'all-to-all', 'all-gather'}


@pytest.mark.parametrize(
    ('schedule', 'warmup', 'expected'),
    [
        ('constant', 0.0, {0: 2.0, 50: 2.0, 100: 2.0}),
        ('cosine', 0.0, {0: 2.0, 50: 1.0, 100: 0.0}),
        ('linear', 0.1, {0: 2 / 11, 5: 12 / 11, 10: 2.0, 55: 1.0, 100: 0.0}),
        ('cosine', 0.2, {0: 2 / 21, 10: 22 / 21, 20: 2.0, 60: 1.0, 100: 0.0}),
        ('constant', 0.5, {0: 2 / 51, 25: 52 / 51, 50: 2.0, 100: 2.0}),
    ],
)
def test_schedules_reach_their_values(schedule, warmup, expected):
    settings = dataclasses.replace(ADAMW, schedule=schedule, warmup_fraction=warmup)
    rate = optimizer_lib.make_schedule(settings, 2.0, num_steps=100)
    rates = {step: float(rate(step)) for step in expected}
    assert rates == pytest.approx(expected, abs=1e-6)


@hypothesis.given(
    schedule=st.sampled_from(['constant', 'linear', 'cosine']),
    warmup=st.floats(0, 0.99),
    num_steps=st.integers(1, 100),
)
@hypothesis.example('linear', 0.99, 1)
@hypothesis.example('cosine', 0.99, 2)
@hypothesis.example('linear', 0.0, 1)
def test_every_update_of_every_schedule_has_a_rate_above_zero(schedule, warmup, num_steps):
    settings = dataclasses.replace(ADAMW, schedule=schedule, warmup_fraction=warmup)
    rate = optimizer_lib.make_schedule(settings, 2.0, num_steps=num_steps)
    rates = np.array([rate(step) for step in range(num_steps)])
    assert (rates > 0).all() and (rates <= 2.0 + 1e-6).all()
    rising = int(warmup * num_steps)
    assert (np.diff(rates[: rising + 1]) > 0).all() and rates[rising] == pytest.approx(2.0)
    assert (np.diff(rates[rising:]) <= 1e-7).all()


def test_the_first_update_under_warm_up_moves_the_weights(model):
    settings = dataclasses.replace(ADAMW, warmup_fraction=0.5)
    for name, change in first_update(settings, random_grads(model), model).items():
        assert np.abs(change).min() > 0.001, name  # a sixth of the rate, 0.01


@pytest.mark.parametrize('settings', [ADAMW, MUON], ids=['adamw', 'muon'])
def test_the_optimizer_state_keeps_its_structure_shapes_and_types(model, settings):
    optimizer = optimizer_lib.make_optimizer(settings, num_steps=10)
    before = jax.eval_shape(lambda m: state_lib.init_state(m, optimizer).opt_state, model)
    after = jax.eval_shape(lambda m, s: optimizer.update(m, s, m)[1], model, before)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    shapes = lambda tree: [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]  # noqa: E731
    assert shapes(before) == shapes(after)


@pytest.mark.parametrize(
    ('changes', 'field'),
    [
        ({'warmup_fraction': 1.0}, 'warmup_fraction=1.0'),
        ({'learning_rate': 0.0}, 'learning_rate=0.0'),
        ({'learning_rate': float('nan')}, 'learning_rate=nan'),
        ({'adam_learning_rate': float('inf')}, 'adam_learning_rate=inf'),
        ({'beta1': 1.0}, 'beta1=1.0'),
        ({'beta2': True}, 'beta2=True'),
        ({'clip_norm': -1.0}, 'clip_norm=-1.0'),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, field):
    with pytest.raises(ValueError, match=rf'optimizer\.{field}'):
        dataclasses.replace(ADAMW, **changes)
