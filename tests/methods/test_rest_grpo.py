"""ReST-GRPO: groups of little spread are not trained."""

import numpy as np
import pytest

from elenchus.configs.methods import rest_grpo
from elenchus.train.rl import advantages
from tests.support import method_cases


@pytest.mark.parametrize(
    ('rewards', 'is_kept'),
    [([0.0, 1.0], True), ([0.5, 0.599], False), ([0.5, 0.601], True), ([1.0, 1.0], False)],
)
def test_a_group_is_kept_by_the_deviation_of_its_rewards(rewards, is_kept):
    returns = np.array(rewards)[:, None]
    values, context = method_cases.outcome(rest_grpo.spread, returns)
    assert values.any() == is_kept
    if is_kept:  # as GRPO has it
        np.testing.assert_allclose(values, advantages.OUTCOMES['grpo'](returns, context), 1e-6)
