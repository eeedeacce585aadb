"""PRIME: leave-one-out advantages of outcomes and of implicit rewards."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs import method
from elenchus.configs.methods import prime
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support import method_cases


def context_of(*correct):
    _, context = method_cases.outcome(lambda returns, context: returns, [[0.0]] * len(correct))
    return context._replace(turns=[method_cases.turns(*[{'correct': c} for c in correct])])


def test_outcomes_are_compared_with_the_others():
    returns = np.array([[1.0], [1.0], [0.0], [0.0]])
    values = prime.outcome(returns, context_of(True, True, False, False))
    np.testing.assert_allclose(values[:, 0], [2 / 3, 2 / 3, -2 / 3, -2 / 3])


def test_process_rewards_are_compared_and_summed_to_the_end():
    # Sums from each step on: 3 and 2; 1. The largest is 3, so the rewards are 1/3, 2/3 and 1/3.
    first, second = prime.process([[1.0, 2.0], [1.0]], context_of(True, False))
    # n / (n - 1) = 2; the baseline is the sum of the means, 1/2 and 1/3.
    np.testing.assert_allclose(first, [2 - 2 * 5 / 6, 4 / 3 - 5 / 6], atol=1e-5)
    np.testing.assert_allclose(second, [2 / 3 - 5 / 6], atol=1e-5)


@pytest.mark.parametrize(('right', 'is_kept'), [(0, False), (1, True), (4, True), (5, False)])
def test_groups_that_are_too_easy_or_too_hard_teach_nothing(right, is_kept):
    correct = [True] * right + [False] * (5 - right)
    context, returns = context_of(*correct), np.array(correct, float)[:, None]
    steps = prime.process([[0.1 * i, 0.3] for i in range(5)], context)
    assert bool(np.any(steps)) == is_kept
    assert bool(prime.outcome(returns, context).any()) == is_kept


REWARDS = st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=4), min_size=2, max_size=5)


@given(REWARDS, st.floats(0.01, 100))
def test_only_the_ratios_of_rewards_matter_and_equal_responses_get_nothing(scores, scale):
    correct = [i % 2 == 0 for i in range(len(scores))]
    context = context_of(*correct)
    values = prime.process(scores, context)
    assert [len(v) for v in values] == [len(s) for s in scores]
    assert all(np.isfinite(v).all() for v in values)
    if max(map(abs, np.concatenate(scores))) > 0.1:
        scaled = prime.process([[scale * x for x in row] for row in scores], context)
        for a, b in zip(values, scaled, strict=True):
            np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02)
    same = prime.process([[scores[0][0]]] * len(scores), context)
    np.testing.assert_allclose(np.concatenate(same), 0.0, atol=1e-9)


def test_it_changes_advantages_and_their_scores_alone():
    config = prime.get_config('default')
    s = build.build(RunSettings, config).reinforce
    assert s.reward_rules('actor').has_implicit_scores
    assert not s.reward_rules('actor').needs_step_scores  # no critique is sampled
    assert not s.reward_rules('critic').has_implicit_scores
    assert s.implicit.learning_rate == 2 * s.optimizer.learning_rate
    base = method.lab.get_config('default')
    method_cases.undo(config, base, prime.CHANGES)
    assert build.build(RunSettings, config) == build.build(RunSettings, base)
