"""Light-IF: exactly 80 % of the tokens, those with the largest CE - 0.8 H."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import light_if
from tests.support import tiny_model


def test_the_tokens_of_the_smallest_scores_are_not_trained():
    batch = tiny_model.random_batch(0, rows=1, length=8)
    mask = np.array([[0, 1, 1, 1, 1, 1, 0, 0]], np.float32)
    batch = batch._replace(loss_mask=mask)
    loss = np.array([[9, 1.0, 2.0, 0.1, 3.0, 1.0, 9, 9]], np.float32)
    entropy = np.array([[0, 0.0, 2.0, 0.0, 0.0, 0.5, 0, 0]], np.float32)
    # scores 1.0, 0.4, 0.1, 3.0, 0.6: the third one is left out
    factors = np.asarray(light_if.kept(-loss, entropy, batch))
    assert factors[0] == pytest.approx([0, 1.25, 1.25, 0, 1.25, 1.25, 0, 0])


@given(st.integers(0, 100))
def test_the_loss_is_the_mean_over_the_tokens_that_are_kept(seed):
    batch = tiny_model.random_batch(seed)
    rng = np.random.default_rng(seed)
    logprobs, entropy = -rng.random((2, 8, 16)).astype(np.float32) * [[[3]], [[-2]]]
    factors = np.asarray(light_if.kept(logprobs, entropy, batch))
    total = int(batch.loss_mask.sum())
    assert np.count_nonzero(factors) == math.ceil(0.8 * total - 1e-6)
    assert factors.sum() == pytest.approx(total, rel=1e-4)
    assert not factors[batch.loss_mask == 0].any()
