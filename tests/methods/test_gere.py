"""GeRe: the threshold margin, by hand and against the authors' three cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import gere
from elenchus.train import replayed_texts
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings

BEFORE = np.array([-3.0, 0.0, 0.0, 0.0, 0.0, 3.0])  # mean 0, std sqrt(3)
STD = 3**0.5


def margin(hidden, before, mask=None):
    arrays = [jnp.asarray(x, jnp.float32)[None, :, None] for x in (hidden, before)]
    mask = jnp.ones((1, len(before))) if mask is None else jnp.asarray(mask, jnp.float32)[None]
    return np.asarray(gere.threshold_margin(*arrays, mask))[0]


@pytest.mark.parametrize(
    ('place', 'value', 'loss'),
    [
        (0, -9.0, 0.0),  # it was below, and is
        (0, 0.0, STD),  # from below to the middle: up to the lower threshold
        (0, 3.0, 3.0 + STD),
        (1, 1.0, 0.0),  # between, and anywhere between
        (1, 3.0, 3.0 - STD),
        (1, -3.0, 3.0 - STD),
        (5, 2.0, 0.0),
        (5, -3.0, 3.0 + STD),
    ],
)
def test_the_margin_of_one_dimension(place, value, loss):
    hidden = BEFORE.copy()
    hidden[place] = value
    expected = np.zeros(6)
    expected[place] = loss
    np.testing.assert_allclose(margin(hidden, BEFORE), expected, atol=1e-5)


ARRAYS = st.integers(0, 2**31).map(lambda seed: np.random.default_rng(seed))


@given(ARRAYS)
def test_it_is_zero_before_the_first_step_and_padding_changes_nothing(rng):
    before = jnp.asarray(rng.normal(size=(2, 5, 4)), jnp.float32)
    mask = jnp.asarray(np.arange(5) < rng.integers(1, 6, (2, 1)), jnp.float32)
    assert not (np.asarray(gere.threshold_margin(before, before, mask)) * mask).any()
    hidden = jnp.asarray(rng.normal(size=(2, 5, 4)), jnp.float32)
    noisy = jnp.where(mask[..., None] > 0, before, 100.0)
    first, second = (gere.threshold_margin(hidden, b, mask) * mask for b in (before, noisy))
    np.testing.assert_allclose(first, second, atol=1e-5)


@given(ARRAYS)
def test_it_is_the_authors_loss_where_one_token_is_outside(rng):
    """Their mean is over all entries that are outside, ours over those of a token."""
    before, hidden = (np.asarray(rng.normal(size=(1, 6, 4)), np.float64) for _ in range(2))
    hidden[:, 1:] = before[:, 1:]
    mean, std = before.mean((0, 1)), before.std((0, 1))
    low, high = mean - std, mean + std
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    entries = np.select(
        [before <= low, before >= high],
        [relu(hidden - low), relu(high - hidden)],
        relu(hidden - high) + relu(low - hidden),
    )
    expected = entries.sum() / max(1, (entries != 0).sum())
    ours = gere.threshold_margin(jnp.asarray(hidden), jnp.asarray(before), jnp.ones((1, 6)))
    np.testing.assert_allclose(np.asarray(ours)[0, 0], expected, rtol=1e-4, atol=1e-6)


def test_the_gradient_points_back_into_the_region():
    hidden = BEFORE.copy()
    hidden[1], hidden[5] = 3.0, 0.0
    arrays = [jnp.asarray(x, jnp.float32)[None, :, None] for x in (hidden, BEFORE)]
    grad = jax.grad(lambda h: gere.threshold_margin(h, arrays[1], jnp.ones((1, 6))).sum())
    np.testing.assert_allclose(grad(arrays[0])[0, :, 0], [0, 1, 0, 0, 0, -1], atol=1e-6)


def test_the_slot_takes_the_function_and_the_set_is_at_most_a_thousand():
    settings = build.build(RunSettings, gere.get_config('default')).actor.replay
    assert settings.num_documents == 1000 and settings.hidden_coef == 200.0
    ones = jnp.ones((1, 2, 3))
    value = replayed_texts.penalties(settings.hidden, ones, ones, mask=jnp.ones((1, 2)))
    assert value.shape == (1, 2)
    assert build.build(RunSettings, gere.get_config('smoke')).actor.replay.num_documents == 200
    base = build.build(RunSettings, gere.method.lab.get_config('default')).actor.replay
    assert (base.num_documents, base.hidden) == (0, 'none')
