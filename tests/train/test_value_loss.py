"""The two losses of PPO against NumPy: clipped ratio of the policy, clipped error of the values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.data.records import Batch
from elenchus.train import objective

SHAPE = (4, 9)
CLIP = 0.2


def tensors(seed):
    """(mask, old, new, weights): some tokens moved by less than the clip, some by more."""
    rng = np.random.default_rng(seed)
    mask = (rng.random(SHAPE) < 0.7).astype(np.float32)
    mask[:, 0] = 0
    old, weights = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    return mask, old, (old + 0.3 * rng.normal(size=SHAPE)).astype(np.float32), weights


def loss_of(chosen, mask, old, weights):
    """Function of log-probabilities, or of values: (loss, metrics)."""
    fields = {'loss_mask': mask, 'old_logprobs': old, 'weights': weights}
    fields['segments'] = np.ones(SHAPE, np.int32)
    zeros = np.zeros(SHAPE, np.int32)
    batch = Batch(**{name: fields.get(name, zeros) for name in Batch._fields})

    def loss(new):
        sums = objective.loss(chosen, batch, logprobs=new, entropy=jnp.zeros(SHAPE))
        return sums.total / sums.weight, sums.metrics

    return loss


@pytest.mark.parametrize('clip', [CLIP, 0.0])
@pytest.mark.parametrize('seed', range(3))
def test_the_loss_of_values_is_the_larger_of_two_squared_errors(seed, clip):
    mask, old, values, returns = tensors(seed)
    near = np.clip(values, old - clip, old + clip) if clip else values
    errors, clipped_errors = (values - returns) ** 2, (near - returns) ** 2
    expected = 0.5 * (np.maximum(errors, clipped_errors) * mask).sum() / mask.sum()
    # A clipped value is a constant; where both are equal it is not clipped.
    gradient = np.where(clipped_errors > errors, 0.0, values - returns) * mask / mask.sum()
    function = jax.value_and_grad(loss_of(objective.value(clip), mask, old, returns), has_aux=True)
    (loss, metrics), actual = function(values)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(actual, gradient, atol=1e-6)
    share = ((clipped_errors > errors) * mask).sum()
    assert float(metrics['value/clipped']) == share and bool(share) == bool(clip)


@pytest.mark.parametrize('seed', range(3))
def test_the_loss_of_the_policy_is_the_larger_of_two_surrogates(seed):
    mask, old, logprobs, advantages = tensors(seed)
    ratio = np.exp(logprobs - old)
    losses = (-advantages * ratio, -advantages * np.clip(ratio, 1 - CLIP, 1 + CLIP))
    expected = (np.maximum(*losses) * mask).sum() / mask.sum()
    chosen = losses[0] >= losses[1]
    gradient = np.where(chosen, losses[0], 0.0) * mask / mask.sum()
    ppo = dataclasses.replace(objective.GRPO, average='token')
    loss, actual = jax.value_and_grad(lambda new: loss_of(ppo, mask, old, advantages)(new)[0])(
        logprobs
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(actual, gradient, atol=1e-6)
    assert (mask * ~chosen).any()


def test_tokens_without_a_loss_may_hold_anything():
    mask, old, values, returns = tensors(0)
    function = loss_of(objective.value(CLIP), mask, old, returns)
    odd = np.where(mask > 0, values, 1e30).astype(np.float32)
    np.testing.assert_array_equal(function(odd)[0], function(values)[0])


def test_rows_without_weights_still_count_in_a_loss_of_values():
    assert not objective.value(CLIP).ignores_zero_weight_tokens
    assert not objective.value(CLIP).reads_reference
