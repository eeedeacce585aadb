"""PBSO: bounded returns, and advantages over all positions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from elenchus.configs.methods import reform_pbso
from tests.support import method_cases

ROLES = ('attempt', 'refinement')
UNIT = arrays.arrays(np.float64, (4, 2), elements=st.floats(0, 1, width=32))


def bounded(rewards, *, discount=1.0):
    values, _ = method_cases.outcome(
        reform_pbso.bounded, rewards, roles=ROLES, rewards_=rewards, discount=discount
    )
    return values


def test_a_return_is_kept_within_the_bounds_of_a_reward():
    """Unbounded, the first sample's attempt would return 2."""
    returns = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])  # of rewards (1, 1), (0, 1), (0, 0)
    expected = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    values = bounded(returns)
    np.testing.assert_allclose(values, (expected - 2 / 3) / np.sqrt(2 / 9), 1e-5)


@given(UNIT)
def test_without_discount_a_turn_returns_its_own_reward(rewards):
    values = bounded(rewards, discount=0.0)
    expected = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    np.testing.assert_allclose(values, expected, atol=1e-6)


@given(UNIT)
def test_the_advantages_of_all_positions_sum_to_zero(rewards):
    assert abs(bounded(rewards).sum()) < 1e-6
