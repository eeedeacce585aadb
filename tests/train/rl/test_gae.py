"""GAE of tokens against a loop over each episode, its limits, and rewards at the ends of steps."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data.records import Batch
from elenchus.train.rl import gae

SETTINGS = gae.ValueSettings(gamma=1.0, gae_lambda=0.95, whiten=False, clip=0.2, learning_rate=1e-3)
ROWS, LENGTH = 3, 14
SHARES = st.floats(0, 1)


def batch_of(seed):
    """Rows of packed sequences of several turns, with gaps that are not trained; and numbers."""
    rng = np.random.default_rng(seed)
    segments = np.sort(rng.integers(0, 4, (ROWS, LENGTH)), axis=1)
    turns = np.sort(rng.integers(1, 4, (ROWS, LENGTH)), axis=1)
    fields = {
        'loss_mask': (rng.random((ROWS, LENGTH)) < 0.7).astype(np.float32) * (segments > 0),
        'segments': segments,
        'turns': turns,
    }
    zeros = np.zeros((ROWS, LENGTH), np.int32)
    batch = Batch(**{name: fields.get(name, zeros) for name in Batch._fields})
    return batch, *rng.normal(size=(2, ROWS, LENGTH)).astype(np.float32)


def episodes_of(batch):
    """(row, columns) of the trained tokens of each sequence."""
    for row, segment in itertools.product(range(ROWS), (1, 2, 3)):
        columns = np.flatnonzero((batch.segments[row] == segment) & (batch.loss_mask[row] > 0))
        if columns.size:
            yield row, columns


def reference(settings, batch, rewards, values, *, turn_discount):
    """Advantages and returns by the published recursion, one episode after the other."""
    advantages = np.zeros((ROWS, LENGTH))
    for row, columns in episodes_of(batch):
        last = 0.0
        for i in reversed(range(len(columns))):
            t = columns[i]
            is_last = i == len(columns) - 1
            following = 0.0 if is_last else values[row, columns[i + 1]]
            gamma = settings.gamma
            if not is_last and batch.turns[row, columns[i + 1]] != batch.turns[row, t]:
                gamma *= turn_discount
            delta = rewards[row, t] + gamma * following - values[row, t]
            last = delta + gamma * settings.gae_lambda * last
            advantages[row, t] = last
    return advantages, advantages + values * (batch.loss_mask > 0)


@given(st.integers(0, 10**6), SHARES, SHARES, SHARES)
def test_every_token_has_the_advantage_and_the_return_of_the_recursion(seed, gamma, lam, discount):
    settings = dataclasses.replace(SETTINGS, gamma=gamma, gae_lambda=lam)
    batch, rewards, values = batch_of(seed)
    actual = gae.estimate(settings, batch, rewards, values=values, turn_discount=discount)
    expected = reference(settings, batch, rewards, values, turn_discount=discount)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert not one[batch.loss_mask == 0].any()


@given(st.integers(0, 10**6))
def test_with_lambda_and_gamma_1_it_is_the_return_less_the_value(seed):
    settings = dataclasses.replace(SETTINGS, gae_lambda=1.0)
    batch, rewards, values = batch_of(seed)
    actual = gae.estimate(settings, batch, rewards, values=values, turn_discount=1.0)
    for row, columns in episodes_of(batch):
        to_go = rewards[row, columns][::-1].cumsum()[::-1]
        np.testing.assert_allclose(actual.returns[row, columns], to_go, atol=1e-5)
        difference = to_go - values[row, columns]
        np.testing.assert_allclose(actual.advantages[row, columns], difference, atol=1e-5)


@given(st.integers(0, 10**6), SHARES)
def test_with_lambda_0_it_is_the_error_one_step_ahead(seed, gamma):
    settings = dataclasses.replace(SETTINGS, gae_lambda=0.0, gamma=gamma)
    batch, rewards, values = batch_of(seed)
    actual = gae.estimate(settings, batch, rewards, values=values, turn_discount=1.0)
    for row, columns in episodes_of(batch):
        v, r = values[row, columns], rewards[row, columns]
        error = r + gamma * np.append(v[1:], 0.0) - v
        np.testing.assert_allclose(actual.advantages[row, columns], error, atol=1e-5)


@given(st.integers(0, 10**6), SHARES)
def test_values_that_are_right_leave_no_advantage_whatever_lambda_is(seed, lam):
    settings = dataclasses.replace(SETTINGS, gae_lambda=lam)
    batch, rewards, values = batch_of(seed)
    for row, columns in episodes_of(batch):
        values[row, columns] = rewards[row, columns][::-1].cumsum()[::-1]
    actual = gae.estimate(settings, batch, rewards, values=values, turn_discount=1.0)
    np.testing.assert_allclose(actual.advantages, 0.0, atol=1e-5)


@given(st.integers(0, 10**6))
def test_what_is_not_trained_changes_nothing(seed):
    batch, rewards, values = batch_of(seed)
    plain = gae.estimate(SETTINGS, batch, rewards, values=values, turn_discount=0.5)
    untrained = batch.loss_mask == 0
    for numbers in (rewards, values):
        numbers[untrained] = np.nan
    again = gae.estimate(SETTINGS, batch, rewards, values=values, turn_discount=0.5)
    np.testing.assert_array_equal(plain, again)


@pytest.mark.parametrize('seed', range(3))
def test_whitened_advantages_are_scaled_over_the_trained_tokens_and_returns_are_not(seed):
    batch, rewards, values = batch_of(seed)
    options = {'values': values, 'turn_discount': 1.0}
    plain = gae.estimate(SETTINGS, batch, rewards, **options)
    white = gae.estimate(dataclasses.replace(SETTINGS, whiten=True), batch, rewards, **options)
    chosen = plain.advantages[batch.loss_mask > 0]
    wanted = (chosen - chosen.mean()) / np.sqrt(chosen.var(ddof=1) + 1e-8)
    np.testing.assert_allclose(white.advantages[batch.loss_mask > 0], wanted, rtol=1e-4, atol=1e-6)
    assert not white.advantages[batch.loss_mask == 0].any()
    np.testing.assert_array_equal(white.returns, plain.returns)


def test_one_trained_token_is_not_divided_by_a_deviation():
    np.testing.assert_array_equal(
        gae.whitened(np.array([3.0, 5.0]), np.array([False, True])), [0.0, 5.0]
    )


def test_a_step_is_paid_at_its_last_trained_token():
    row = {
        'turns': [1, 2, 2, 2, 2, 2, 2, 4, 4, 0],
        'steps': [0, 1, 1, 2, 3, 3, 3, 1, 2, 0],
        'loss_mask': [0, 1, 1, 0, 1, 1, 0, 0, 1, 0],
    }
    fields = {name: np.array([values]) for name, values in row.items()}
    zeros = np.zeros((1, 10), np.int32)
    batch = Batch(**{name: fields.get(name, zeros) for name in Batch._fields})
    # Step 2 of turn 2 has no trained token, nor has step 1 of turn 4; turn 3 has none at all.
    values = {2: np.array([0.5, 1.0, 2.0]), 3: np.array([9.0]), 4: np.array([4.0, 8.0])}
    paid = gae.at_step_ends(batch, [values])
    np.testing.assert_array_equal(paid, [[0, 0, 1.5, 0, 0, 2, 0, 0, 12, 0]])


def test_explained_variance():
    returns = np.array([0.0, 1.0, 2.0, 3.0])
    assert gae.explained_variance(returns, returns) == 1.0
    assert gae.explained_variance(np.full(4, 1.5), returns) == 0.0
    assert gae.explained_variance(-returns, returns) == -3.0
    assert gae.explained_variance(returns, np.ones(4)) == 0.0
    assert gae.explained_variance(np.zeros(0), np.zeros(0)) == 0.0
