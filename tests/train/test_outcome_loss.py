"""Log sigmoid of a margin: over a sequence it is the cross-entropy of an outcome."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data.records import Batch
from elenchus.train import objective, preferences

SHAPE = (2, 6)
SEGMENTS = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 0, 0]], np.int32)
NUMBER = st.floats(-3, 3, width=32)


def batch_of(ref, outcomes, mask):
    """A batch of three sequences with these outcomes, +1 or -1."""
    zeros = {name: np.zeros(SHAPE, np.int32) for name in Batch._fields}
    signs = np.array([[0, outcomes[0], outcomes[1]], [0, outcomes[2], 0]], np.float32)
    weights = np.take_along_axis(signs, SEGMENTS, axis=1)
    fields = {'loss_mask': mask, 'weights': weights, 'ref_logprobs': ref, 'segments': SEGMENTS}
    return Batch(**zeros | fields)


def loss_of(logprobs, batch, beta):
    sums = objective.loss(
        objective.outcome(beta), batch, logprobs=logprobs, entropy=jnp.zeros(SHAPE)
    )
    return sums.total / sums.weight


def cross_entropy(logprobs, batch, beta):
    """- mean over sequences of y log p + (1 - y) log (1 - p), p = sigmoid(beta log-ratio)."""
    losses = []
    for row, segment in ((0, 1), (0, 2), (1, 1)):
        inside = (SEGMENTS[row] == segment) * batch.loss_mask[row]
        p = jax.nn.sigmoid(beta * jnp.sum(inside * (logprobs - batch.ref_logprobs)[row]))
        right = batch.weights[row][SEGMENTS[row] == segment][0] > 0
        losses.append(-jnp.log(p if right else 1 - p))
    return sum(losses) / len(losses)


@given(
    *(st.lists(NUMBER, min_size=12, max_size=12) for _ in range(2)),
    st.lists(st.sampled_from([1.0, -1.0]), min_size=3, max_size=3),
    st.sampled_from([0.05, 1.0]),
)
@pytest.mark.slow
def test_value_and_gradient_are_those_of_the_cross_entropy(logprobs, ref, outcomes, beta):
    mask = (SEGMENTS > 0).astype(np.float32)
    mask[:, 0] = 0
    logprobs, ref = (np.reshape(x, SHAPE).astype(np.float32) for x in (logprobs, ref))
    batch = batch_of(ref, outcomes, mask)
    expected = jax.value_and_grad(cross_entropy)(logprobs, batch, beta)
    actual = jax.value_and_grad(loss_of)(logprobs, batch, beta)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_a_model_that_equals_its_reference_says_one_half():
    batch = batch_of(np.zeros(SHAPE, np.float32), [1, -1, 1], (SEGMENTS > 0).astype(np.float32))
    assert float(loss_of(jnp.zeros(SHAPE), batch, 0.05)) == pytest.approx(np.log(2))


def test_a_margin_needs_a_beta_and_reads_the_reference():
    learnt = objective.outcome(0.05)
    assert learnt.reads_reference and not learnt.ignores_zero_weight_tokens
    with pytest.raises(ValueError, match='beta=0'):
        dataclasses.replace(learnt, beta=0.0)
    dpo = objective.of_pairs(preferences.published('dpo', beta=0.1))
    for other in (objective.GRPO, dpo):
        with pytest.raises(ValueError, match='beta=0.1'):
            dataclasses.replace(other, beta=0.1)
