"""Qwen2.5-Math: the score orders responses of equal correctness."""

import math

from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import qwen2p5_math
from tests.support import method_cases

SCORES = st.floats(0, 1, width=32)


def reward(score, correct):
    (value,) = qwen2p5_math.shaped(method_cases.turns({'score': score, 'correct': correct}))
    return value


def test_worked_values():
    logit = 2.0
    score = 1 / (1 + math.exp(-logit))
    assert math.isclose(reward(score, True), 1 / (1 + math.exp(-0.5 * logit)))
    assert math.isclose(reward(score, False), 1 / (1 + math.exp(-0.5 * logit)) - 1)
    assert (reward(0.5, True), reward(1.0, True), reward(0.0, False)) == (0.5, 1.0, -1.0)
    assert (reward(None, True), reward(None, False)) == (0.5, -0.5)


@given(SCORES, SCORES)
def test_every_right_response_earns_at_least_as_much_as_a_wrong_one(right, wrong):
    assert reward(right, True) >= 0 >= reward(wrong, False)
    if right < wrong:
        assert reward(right, True) <= reward(wrong, True)


def test_the_critic_scores_because_the_reward_reads_it():
    assert qwen2p5_math.shaped.reads_scores
