"""Tokens that truncation makes impossible: no gradient, no ratio, no gap, and counted."""

import numpy as np
import pytest

from elenchus.train import objective, step
from tests.train.test_objective import GRPO, METHODS, loss_and_grads, make_case


def test_the_gap_is_over_loss_tokens_that_are_not_excluded():
    batch, logprobs, entropy = make_case(1)
    trained = batch.loss_mask > 0
    away = np.where(trained, batch.old_logprobs + 0.25, 9).astype(np.float32)
    row, column = np.argwhere(trained)[0]
    away[row, column] = -np.inf
    sums = objective.loss(GRPO, batch, logprobs=away, entropy=entropy)
    sums = step.with_sampler_gap(sums, batch, away)
    assert sums.metrics['sampler/gap'] == pytest.approx(0.25 * (trained.sum() - 1), rel=1e-5)
    assert sums.maxima['sampler/gap_max'] == pytest.approx(0.25, rel=1e-5)


@pytest.mark.parametrize('method', [name for name, o in METHODS.items() if o.has_ratio])
def test_a_token_that_was_impossible_is_excluded_as_one_that_is(method):
    """Top-k keeps other tokens after an update: then the old log-probability alone is -inf."""
    batch, logprobs, entropy = make_case(1)
    place = tuple(np.argwhere(batch.loss_mask > 0)[0])
    old, now = batch.old_logprobs.copy(), logprobs.copy()
    old[place] = now[place] = -np.inf
    was = loss_and_grads(METHODS[method], batch._replace(old_logprobs=old), logprobs, entropy)
    value, weight, metrics, grads = loss_and_grads(METHODS[method], batch, now, entropy)
    assert (was[0], was[1]) == (value, weight) and metrics['loss/excluded'] == 1
    assert was[2] == metrics
    np.testing.assert_array_equal(was[3], grads)
