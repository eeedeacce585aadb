"""Masked thought: the schedule of the rate, and what is replaced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.configs.methods import masked_thought
from tests.support import tiny_model


def test_the_rate_grows_to_its_most_in_two_thirds_of_the_steps():
    rates = [float(masked_thought.rate(t)) for t in (0.0, 1 / 3, 2 / 3, 1.0)]
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.4])


def test_only_trained_tokens_are_replaced_by_trained_tokens_at_the_rate():
    batch = tiny_model.random_batch(0, rows=64, length=64)
    trained = batch.loss_mask > 0
    read = lambda progress: np.asarray(  # noqa: E731
        masked_thought.masked(batch, jax.random.key(3), jnp.float32(progress))
    )
    np.testing.assert_array_equal(read(0.0), batch.tokens)
    changed = read(1.0) != batch.tokens
    assert not changed[~trained].any()
    same = np.square(np.bincount(batch.tokens[trained]) / trained.sum()).sum()  # drawn alike
    expected, count = 0.4 * (1 - same), trained.sum()
    assert abs(changed.sum() / count - expected) < 3 * np.sqrt(expected / count)
    assert set(read(1.0)[changed]) <= set(batch.tokens[trained])
