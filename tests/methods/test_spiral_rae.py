"""RAE: the returns of a role against the running mean of the role's earlier returns."""

import numpy as np
import pytest

from elenchus.configs.methods import spiral_rae
from tests.support import method_cases

ROLES = ('attempt', 'refinement')


def test_the_baseline_is_read_before_it_is_updated():
    values, context = method_cases.outcome(spiral_rae.baseline, [[1.0], [0.0]])
    assert values.tolist() == [[1.0], [0.0]]
    state = spiral_rae.baseline.update(np.array([[1.0], [0.0]]), context)
    assert state == {'attempt': pytest.approx(0.95 * 0.05)}  # 0.05, then 0.95 * 0.05
    values, _ = method_cases.outcome(spiral_rae.baseline, [[1.0], [0.0]], state={'attempt': 0.25})
    assert values.tolist() == [[0.75], [-0.25]]


def test_a_roles_rewards_move_its_own_baseline_alone():
    returns = np.array([[0.0, 1.0], [0.0, 1.0]])
    _, context = method_cases.outcome(spiral_rae.baseline, returns, roles=ROLES)
    state = spiral_rae.update(returns, context)
    assert state['attempt'] == 0 and state['refinement'] == pytest.approx(0.0975)
    assert context.state == {}  # the old one stays


def test_the_baseline_tends_to_the_mean_return():
    state = {}
    for _ in range(200):
        _, context = method_cases.outcome(spiral_rae.baseline, [[0.3]], state=state)
        state = spiral_rae.update(np.array([[0.3]]), context)
    assert state['attempt'] == pytest.approx(0.3, abs=1e-4)


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_an_attempt_that_stands_for_its_refinement_counts_once_and_as_an_attempt(order):
    """Whichever sample is the first: the column of refinements has an attempt in it."""
    returns = np.array([[0.0, 1.0], [1.0, 1.0]])
    _, context = method_cases.outcome(spiral_rae.baseline, returns, roles=ROLES)
    first, second = context.turns
    turns = [[column[i] for i in order] for column in (first, [second[0], first[1]])]
    state = spiral_rae.update(returns[list(order)], context._replace(turns=turns))
    assert state['refinement'] == pytest.approx(0.05)
    assert state['attempt'] == pytest.approx(0.05 if order == (0, 1) else 0.05 * 0.95)
    values = spiral_rae.baseline(
        returns[list(order)], context._replace(turns=turns, state={'attempt': 0.5})
    )
    assert values[order.index(1)].tolist() == [0.5, 0.5]
