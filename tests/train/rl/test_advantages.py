"""Advantages against plain formulas."""

import statistics
import types

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from elenchus.train.rl import advantages
from elenchus.train.rl.rewards import fill_unknown
from tests.support import tiny_model

FLOATS = st.floats(-10, 10, width=32)
GROUPS = st.lists(FLOATS, min_size=2, max_size=8)
STEPS = st.lists(st.lists(FLOATS, min_size=1, max_size=5), min_size=1, max_size=4)
EPSILON = 1e-4


COMPARING = [name for name in advantages.OUTCOMES.functions if not advantages.reads_values(name)]
"""Advantages within a group; the others are rewards, for a value model."""


def outcome(name, rewards):
    """Advantages [G] of the rewards of one turn."""
    settings = types.SimpleNamespace(epsilon=EPSILON)
    returns = np.array(rewards)[:, None]
    context = advantages.GroupContext(settings, (), returns, 0.0, {})
    return advantages.OUTCOMES[name](returns, context)[:, 0]


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@hypothesis.given(GROUPS)
def test_grpo_is_the_distance_from_the_mean_in_deviations(rewards):
    mean, std = statistics.fmean(rewards), statistics.pstdev(rewards)
    close(outcome('grpo', rewards), [(r - mean) / (std + EPSILON) for r in rewards])


@hypothesis.given(GROUPS)
def test_dr_grpo_is_the_distance_from_the_mean(rewards):
    mean = statistics.fmean(rewards)
    close(outcome('dr_grpo', rewards), [r - mean for r in rewards])


@hypothesis.given(GROUPS)
def test_rloo_is_the_distance_from_the_mean_of_the_others(rewards):
    others = [statistics.fmean(rewards[:i] + rewards[i + 1 :]) for i in range(len(rewards))]
    expected = [r - other for r, other in zip(rewards, others, strict=True)]
    close(outcome('rloo', rewards), expected)


@pytest.mark.parametrize('name', COMPARING)
@hypothesis.given(st.integers(2, 32), st.sampled_from([1.0, 0.1, 0.97, 1 / 3, -0.7, 1e8 + 0.1]))
def test_equal_rewards_teach_nothing(name, size, reward):
    """Exactly nothing, although the mean of six times 0.1 is not 0.1."""
    assert not outcome(name, [reward] * size).any()


@hypothesis.given(st.integers(2, 32), st.sampled_from([0.1, 0.97, 1 / 3]))
def test_equal_scores_of_steps_teach_nothing(size, score):
    scores = [[score] * 3, [score]] * size
    for baseline in ('group', 'position'):
        found = advantages.process_normalised(scores, epsilon=EPSILON, baseline=baseline)
        assert not any(steps.any() for steps in found)


@hypothesis.given(st.integers(1, 32), st.integers(1, 32))
def test_an_unknown_reward_beside_equal_ones_is_exactly_theirs(known, unknown):
    filled = fill_unknown([{'format': 0.1}] * known + [{'format': None}] * unknown)
    assert {values['format'] for values in filled} == {0.1}


@pytest.mark.parametrize('name', COMPARING)
def test_advantages_of_a_group_sum_to_zero(name):
    assert abs(outcome(name, [0.0, 1.0, 1.0, 0.0, 0.0]).sum()) < 1e-6


@hypothesis.given(STEPS)
def test_a_step_is_worth_its_own_and_all_later_normalised_rewards(rewards):
    flat = [r for sample in rewards for r in sample]
    mean, std = statistics.fmean(flat), statistics.pstdev(flat)
    expected = [
        [sum((r - mean) / (std + EPSILON) for r in sample[i:]) for i in range(len(sample))]
        for sample in rewards
    ]
    actual = advantages.process_normalised(rewards, epsilon=EPSILON)
    assert [len(a) for a in actual] == [len(r) for r in rewards]
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_no_steps_at_all_have_no_advantages():
    assert [len(a) for a in advantages.process_normalised([[], []], epsilon=EPSILON)] == [0, 0]


def test_a_floor_keeps_the_noise_of_nearly_equal_rewards_small():
    """Mean 0.995, deviation 0.005: in deviations +-1, in tenths of the floor +-0.1."""
    rewards = [[0.99, 1.0], [1.0, 0.99]]
    close(advantages.process_normalised(rewards, epsilon=0.0), [[0, 1], [0, -1]])
    floored = advantages.process_normalised(rewards, epsilon=0.0, std_floor=0.05)
    close(floored, [[0, 0.1], [0, -0.1]])
    wide = [[0.0, 1.0], [1.0, 0.0]]
    close(advantages.process_normalised(wide, epsilon=0.0, std_floor=0.05), [[0, 1], [0, -1]])


def test_by_position_a_step_is_compared_with_the_same_step_of_the_others():
    """First steps: mean 0.5, deviation 0.5; second: 0.4 and 0.2; the third has no other."""
    rewards = [[1.0, 0.2], [0.0, 0.6, 0.9]]
    one, other = advantages.process_normalised(rewards, epsilon=1e-9, baseline='position')
    close(one, [0, -1])
    close(other, [0, 1, 0])
    assert [len(a) for a in advantages.process_normalised([[], []], epsilon=1.0)] == [0, 0]


@hypothesis.given(STEPS, st.integers(0, 99))
def test_permuted_rewards_are_the_same_ones_in_other_places(rewards, seed):
    drawn = advantages.permuted(rewards, np.random.default_rng(seed))
    assert [len(d) for d in drawn] == [len(r) for r in rewards]
    assert sorted(sum(drawn, [])) == sorted(sum(rewards, []))


@hypothesis.given(st.lists(st.tuples(FLOATS, st.integers(1, 4)), max_size=5))
def test_every_token_of_a_step_has_its_steps_value(steps):
    values = [value for value, _ in steps]
    ends = tuple(int(end) for end in np.cumsum([size for _, size in steps]))
    expected = [value for value, size in steps for _ in range(size)]
    np.testing.assert_array_equal(advantages.over_tokens(values, ends), np.float32(expected))


@hypothesis.given(st.lists(FLOATS, max_size=6), FLOATS)
def test_step_differences_are_the_change_of_value_by_each_step(values, start):
    actual = advantages.step_differences(values, start=start)
    assert len(actual) == len(values)
    close(actual, [b - a for a, b in zip([start, *values], values, strict=False)])
    assert actual.sum() == pytest.approx((values or [start])[-1] - start, abs=1e-3)


@hypothesis.given(st.lists(FLOATS, min_size=1, max_size=4), st.floats(0, 1))
def test_a_turn_returns_its_own_and_later_discounted_rewards(rewards, discount):
    expected = [
        sum(discount ** (j - i) * rewards[j] for j in range(i, len(rewards)))
        for i in range(len(rewards))
    ]
    close(advantages.discounted(rewards, discount=discount), expected)


@hypothesis.given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1), st.floats(1, 5))
def test_importance_is_truncated_only_above(pairs, cap):
    trainer, sampler = np.array(pairs).T
    actual = advantages.truncated_importance(trainer, sampler, cap=cap)
    np.testing.assert_allclose(actual, np.minimum(np.exp(trainer - sampler), cap), rtol=1e-5)
    assert not advantages.truncated_importance(np.array([-np.inf]), np.zeros(1), cap=cap).any()


def test_values_are_placed_at_the_tokens_of_their_turn_and_step():
    """Turn 2 is trained in two steps, turn 3 is of another player, turn 4 is trained in one."""
    turns = np.array([[1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 0]])
    steps = np.array([[0, 0, 0, 1, 1, 2, 0, 1, 0, 1, 0]])
    blank = tiny_model.random_batch(0, rows=1, length=11)
    batch = blank._replace(turns=turns, steps=steps)
    actual = advantages.at_tokens(batch, [{2: np.array([0.5, -1.0]), 4: np.array([2.0])}])
    np.testing.assert_allclose(actual, [[0, 0, 0, 0.5, 0.5, -1, 0, 0, 0, 2, 0]])
