"""Weights stored in bfloat16 move as those in float32 do, at every learning rate."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import lora
from elenchus.train import master_weights, objective, optimizer, step
from elenchus.train.loop import init_train_state
from tests.support import tiny_model

CONFIG = dataclasses.replace(tiny_model.FLAT, dtype='bfloat16')
SETTINGS = optimizer.OptimizerSettings(
    name='adamw',
    learning_rate=1e-6,
    adam_learning_rate=1e-6,
    schedule='constant',
    warmup_fraction=0.0,
    weight_decay=0.0,
    beta1=0.9,
    beta2=0.999,
    clip_norm=1.0,
)


def flat(tree):
    return np.concatenate([np.asarray(x, np.float32).ravel() for x in jax.tree.leaves(tree)])


@functools.cache
def train(param_dtype, name, rate, num_steps):
    """(weights before, weights after, state) of a few steps on one batch, all from bfloat16."""
    model = tiny_model.make_model(dataclasses.replace(CONFIG, param_dtype='bfloat16'))
    model = jax.tree.map(lambda x: x.astype(param_dtype), model)
    settings = dataclasses.replace(SETTINGS, name=name, learning_rate=rate, adam_learning_rate=rate)
    update = optimizer.make_optimizer(settings, num_steps=num_steps)
    train_step = step.make_train_step(
        objective=objective.SFT, optimizer=update, transform=step.IDENTITY, num_microbatches=1,
        skip_nonfinite=False,
    )  # fmt: skip
    state, before = init_train_state(model, update), flat(model)
    for _ in range(num_steps):
        state, _ = train_step(state, tiny_model.random_batch(0), None)
    return before, flat(state.model), state


def test_norms_of_weights_in_bfloat16_are_sums_in_float32():
    """In bfloat16 the squares of a small matrix would vanish beside those of a large one."""
    model = tiny_model.make_model(dataclasses.replace(CONFIG, param_dtype='bfloat16'))
    update = optimizer.make_optimizer(SETTINGS, num_steps=1)
    train_step = step.make_train_step(
        objective=objective.SFT, optimizer=update, transform=step.IDENTITY, num_microbatches=1,
        skip_nonfinite=False,
    )  # fmt: skip
    state, metrics = train_step(init_train_state(model, update), tiny_model.random_batch(0), None)
    assert metrics['params/norm'] == pytest.approx(np.linalg.norm(flat(state.model)), rel=1e-5)
    parts = {name: float(x) for name, x in metrics.items() if name.startswith('grads/')}
    norm, _ = parts.pop('grads/norm'), parts.pop('grads/finite')
    assert norm == pytest.approx(np.linalg.norm(list(parts.values())), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_every_weight_moves_at_a_rate_of_fine_tuning(name):
    """With bfloat16 weights alone, 0.19 % of them would move."""
    before, _, state = train('bfloat16', name, 1e-6, 50)
    assert isinstance(state.opt_state, master_weights.MasterState)
    masters = flat(state.opt_state.masters)
    reference_before, reference, _ = train('float32', name, 1e-6, 50)
    np.testing.assert_array_equal(before, reference_before)
    moved = reference != reference_before
    assert moved.mean() > 0.9 and (masters != before)[moved].mean() > 0.99
    # Gradients are rounded to bfloat16, so the two paths are not the same to the bit.
    distance = np.linalg.norm(masters - reference) / np.linalg.norm(reference - before)
    assert distance < 0.2
    assert {x.dtype for x in jax.tree.leaves(state.opt_state) if x.ndim} == {np.dtype('float32')}


@pytest.mark.slow
def test_the_stored_weights_are_the_rounded_masters():
    before, after, state = train('bfloat16', 'adamw', 1e-4, 30)
    assert (after != before).mean() > 0.3
    masters = jax.tree.map(lambda x: x.astype('bfloat16'), state.opt_state.masters)
    np.testing.assert_array_equal(after, flat(masters))


def test_float32_weights_have_no_masters_and_the_state_that_they_had():
    update = optimizer.make_optimizer(SETTINGS, num_steps=1)
    model = tiny_model.make_model(tiny_model.FLAT)
    state = jax.eval_shape(update.init, model)
    assert not isinstance(state, master_weights.MasterState)
    arrays = [x for x in jax.tree.leaves(state) if x.ndim]
    assert len(arrays) == 2 * len(jax.tree.leaves(model))  # Adam's two moments


def test_adapters_are_in_float32_whatever_their_base_is():
    config = dataclasses.replace(CONFIG, param_dtype='bfloat16')
    adaptation = lora.Adaptation(lora.LoraSettings(2, 4.0, ('query',)), '', '', 'none')
    adapters = jax.eval_shape(lambda: lora.init_adapters(config, adaptation, jax.random.key(0)))
    assert {x.dtype for x in jax.tree.leaves(adapters)} == {jnp.dtype('float32')}
