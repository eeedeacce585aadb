"""Which divergence the KL terms of the objective descend, on a softmax over a few tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.data.records import Batch
from elenchus.train import objective as objective_lib

SIZE = 5
LOGITS, REFERENCE = (
    1.5 * np.random.default_rng(0).normal(size=(2, SIZE)).astype(np.float32)
)  # fmt: skip


def expected_gradient(kind):
    """The loss's gradient with respect to the logits, averaged over samples of the policy.

    Every token of the vocabulary is a sample; its probability is its share of the average.
    """
    objective = dataclasses.replace(objective_lib.REINFORCE, average='token', kl=kind, kl_coef=1.0)
    ones = np.ones((1, SIZE), np.int32)
    probabilities = np.asarray(jax.nn.softmax(LOGITS))[None]
    zeros = np.zeros((1, SIZE), np.float32)
    batch = Batch(
        tokens=np.arange(SIZE, dtype=np.int32)[None],
        loss_mask=probabilities,
        weights=zeros,
        old_logprobs=zeros,
        ref_logprobs=np.asarray(jax.nn.log_softmax(REFERENCE))[None],
        steps=ones,
        turns=ones,
        roles=ones,
        positions=ones,
        segments=ones,
    )

    def loss(logits):
        logprobs = jax.nn.log_softmax(logits)[None]
        sums = objective_lib.loss(objective, batch, logprobs=logprobs, entropy=zeros)
        return sums.total / sums.weight

    return jax.grad(loss)(LOGITS)


def divergence_gradient(*, reverse):
    """The gradient of KL(pi || ref), or of KL(ref || pi), from its definition."""

    def divergence(logits):
        policy, reference = jax.nn.log_softmax(logits), jax.nn.log_softmax(REFERENCE)
        first, second = (policy, reference) if reverse else (reference, policy)
        return jnp.sum(jnp.exp(first) * (first - second))

    return jax.grad(divergence)(LOGITS)


@pytest.mark.parametrize(('kind', 'reverse'), [('k2', True), ('k3', False)])
def test_k2_descends_the_reverse_and_k3_the_forward_divergence(kind, reverse):
    actual = expected_gradient(kind)
    np.testing.assert_allclose(actual, divergence_gradient(reverse=reverse), atol=1e-5)
    other = divergence_gradient(reverse=not reverse)
    assert np.abs(actual - other).max() > 0.05


def test_k1_in_a_loss_would_have_no_gradient():
    """It is subtracted from the reward instead: the expected score function is zero."""
    np.testing.assert_allclose(expected_gradient('k1'), 0.0, atol=1e-6)
    policy = jax.nn.softmax(LOGITS)
    score = jnp.sum(policy[:, None] * jax.jacobian(jax.nn.log_softmax)(LOGITS), axis=0)
    np.testing.assert_allclose(score, 0.0, atol=1e-6)
