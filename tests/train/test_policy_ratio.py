"""Ratios and KL penalties stay finite, and so do gradients, however far the policy has drifted."""

import dataclasses
import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from elenchus.data.records import Batch
from elenchus.train import objective as objective_lib
from elenchus.train import policy_ratio
from tests.support import tiny_model

T = 1024
PRESETS = objective_lib.PRESETS | {'dr_grpo': objective_lib.dr_grpo(T)}
OBJECTIVES = {
    f'{name}-{kl}': dataclasses.replace(preset, kl=kl, kl_coef=0.0 if kl == 'none' else 0.04)
    for name, preset in PRESETS.items()
    for kl in (('none', 'k1', 'k2', 'k3') if name == 'rloo' else ('k3',))
}
DRIFTS = {
    'a little on every token': (-1.0, -1.09),
    'less likely by a little': (-1.09, -1.0),
    'far on every token': (-1.0, -95.0),
    'far less likely': (-95.0, -1.0),
    'excluded by the old policy': (-1.0, -np.inf),
}


def batch_of(weight, *, old, ref=-1.0):
    zeros, ones = np.zeros((1, T), np.float32), np.ones((1, T), np.int32)
    return Batch(
        tokens=ones, loss_mask=zeros + 1, weights=zeros + weight, old_logprobs=zeros + old,
        ref_logprobs=zeros + ref, steps=ones, turns=ones, roles=3 * ones,
        positions=np.arange(T, dtype=np.int32)[None], segments=ones,
    )  # fmt: skip


@functools.partial(tiny_model.jit, static_argnames='objective')
def loss_and_grads(objective, batch, logprobs):
    def loss(logprobs):
        sums = objective_lib.loss(objective, batch, logprobs=logprobs, entropy=0 * logprobs)
        # As a step divides: the divisor is 0 where every token is excluded.
        return sums.total / jnp.maximum(sums.weight, 1e-8), sums.metrics

    return jax.value_and_grad(loss, has_aux=True)(logprobs)


@pytest.mark.parametrize('name', OBJECTIVES)
def test_no_drift_makes_a_loss_or_gradient_infinite(name):
    for where, (logp, old) in DRIFTS.items():
        for weight in (1.0, -1.0):
            for ref in (-1.0, -95.0, -np.inf):
                batch = batch_of(weight, old=old, ref=ref)
                logprobs = np.full((1, T), logp, np.float32)
                (value, metrics), grads = loss_and_grads(OBJECTIVES[name], batch, logprobs)
                assert np.isfinite(value) and np.isfinite(grads).all(), (where, weight, ref)
                assert np.isfinite(list(metrics.values())).all(), (where, weight, ref, metrics)


def test_a_single_far_token_leaves_the_k3_penalty_of_the_others():
    objective = dataclasses.replace(objective_lib.GRPO, kl='k3', kl_coef=0.04)
    logprobs = np.full((1, T), -1.5, np.float32)
    plain, grads = loss_and_grads(objective, batch_of(0.0, old=-1.5), logprobs)
    logprobs = logprobs.copy()  # JAX may still read the first one
    logprobs[0, 5] = -95
    (value, metrics), far = loss_and_grads(objective, batch_of(0.0, old=-1.5), logprobs)
    assert metrics['loss/kl_clamped'] == 1 and plain[1]['loss/kl_clamped'] == 0
    np.testing.assert_array_equal(np.delete(far, 5), np.delete(grads, 5))
    assert far[0, 5] == 0 and value > plain[0]


@pytest.mark.parametrize(('kind', 'count'), [('token', 1), ('sequence', 0), ('product', T)])
def test_the_share_of_clamped_ratios_is_counted(kind, count):
    objective = dataclasses.replace(objective_lib.GRPO, ratio=kind)
    logprobs = np.full((1, T), -1.0, np.float32)
    logprobs[0, 7] = -22.0
    (_, metrics), _ = loss_and_grads(objective, batch_of(1.0, old=-1.0), logprobs)
    assert metrics['loss/ratio_clamped'] == count


@hypothesis.given(st.lists(st.floats(-19, 19, width=32), min_size=1, max_size=6))
def test_within_the_limits_nothing_is_changed(log_ratios):
    values = np.array([log_ratios], np.float32)
    segments = np.ones(values.shape, np.int32)
    length = np.full(values.shape, len(log_ratios), np.float32)
    token = policy_ratio.importance_ratio('token', values, segments=segments, length=length)
    np.testing.assert_allclose(token.values, np.exp(np.float64(values)), rtol=1e-5)
    assert not np.any(token.clamped)
    for kind, expected in (('k1', -values), ('k2', values**2 / 2)):
        penalty = policy_ratio.kl_penalty(kind, values)
        np.testing.assert_allclose(penalty.values, expected, rtol=1e-6)
    k3 = np.exp(np.float64(values)) - values - 1
    penalty = policy_ratio.kl_penalty('k3', values)
    np.testing.assert_allclose(penalty.values, np.minimum(k3, 10), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(penalty.clamped, k3 > 10)
