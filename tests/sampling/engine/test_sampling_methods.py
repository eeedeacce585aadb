import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import logprobs
from elenchus.sampling.engine import sampling_methods
from tests.support import tiny_model

V = 64
OFF = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=())


def logits_of(seed, *shape):
    return 3 * jax.random.normal(jax.random.key(seed), (*shape, V))


def noise_of(seed, *shape):
    return jax.random.uniform(jax.random.key(seed), (*shape, 2))


@functools.partial(tiny_model.jit, static_argnums=0)
def transform(method, logits):
    return method.transform(logits)


@functools.partial(tiny_model.jit, static_argnums=0)
def sample(method, noise, logits):
    """(tokens, their log-probabilities)."""
    return method.sample(noise, logits)


def kept(method, logits):
    return np.isfinite(np.asarray(transform(method, logits)))


def test_everything_off_is_the_models_distribution():
    logits = logits_of(0, 5)
    np.testing.assert_array_equal(transform(OFF, logits), logits)


def test_temperature_divides_logits():
    logits = logits_of(0, 5)
    half = sampling_methods.TemperatureSampling(0.5, 0, 1.0, 0.0, banned=())
    np.testing.assert_allclose(transform(half, logits), logits / 0.5, rtol=1e-6)


@pytest.mark.parametrize('k', [1, 5, V, 2 * V])
def test_top_k_keeps_the_k_likeliest(k):
    logits = logits_of(1, 3, 2)
    mask = kept(sampling_methods.TemperatureSampling(0.7, k, 1.0, 0.0, banned=()), logits)
    rank = np.argsort(np.argsort(-np.asarray(logits), axis=-1), axis=-1)
    np.testing.assert_array_equal(mask, rank < k)


@pytest.mark.parametrize('p', [1e-6, 0.3, 0.9])
def test_top_p_keeps_the_smallest_set_that_holds_p(p):
    logits = logits_of(2, 4)
    probabilities = np.asarray(jax.nn.softmax(logits))
    mask = kept(sampling_methods.TemperatureSampling(1.0, 0, p, 0.0, banned=()), logits)
    for row, keep in zip(probabilities, mask, strict=True):
        assert row[keep].sum() >= p
        assert row[keep].sum() - row[keep].min() < p
        assert row[keep].min() >= row[~keep].max()


def test_min_p_keeps_a_share_of_the_best():
    logits = logits_of(3, 4)
    probabilities = np.asarray(jax.nn.softmax(logits))
    mask = kept(sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.1, banned=()), logits)
    best = probabilities.max(axis=-1, keepdims=True)
    np.testing.assert_array_equal(mask, probabilities >= 0.1 * best)


@pytest.mark.parametrize(
    'method',
    [
        sampling_methods.Greedy(banned=(3, 7)),
        sampling_methods.TemperatureSampling(2.0, 0, 1.0, 0.0, banned=(3, 7)),
        sampling_methods.TemperatureSampling(2.0, 8, 0.9, 0.01, banned=(3, 7)),
    ],
    ids=['greedy', 'sampling', 'truncated'],
)
def test_banned_ids_have_no_probability_however_likely(method):
    logits = logits_of(4, 200).at[:, 3].set(50.0)
    tokens, recorded = sample(method, noise_of(0, 200), logits)
    assert not set(np.unique(tokens)) & {3, 7}
    assert not kept(method, logits)[:, [3, 7]].any()
    assert np.isfinite(recorded).all()


@pytest.mark.parametrize(
    'method',
    [
        sampling_methods.Greedy(banned=(0,)),
        sampling_methods.TemperatureSampling(0.7, 20, 0.9, 0.02, banned=(0,)),
    ],
    ids=['greedy', 'sampling'],
)
def test_recorded_is_the_log_probability_under_the_transform(method):
    logits = logits_of(5, 50)
    tokens, recorded = sample(method, noise_of(1, 50), logits)
    expected = jax.nn.log_softmax(transform(method, logits))[jnp.arange(50), tokens]
    np.testing.assert_allclose(recorded, expected, atol=1e-5)


def test_greedy_takes_the_likeliest_and_ignores_the_noise():
    logits = logits_of(6, 50)
    greedy = sampling_methods.Greedy(banned=())
    one, other = (sample(greedy, noise_of(k, 50), logits)[0] for k in (0, 1))
    np.testing.assert_array_equal(one, logits.argmax(axis=-1))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('size', [48, 512, 1000, 1024, 3 * 64 * 7])
def test_the_first_of_equal_maxima_is_greedy_in_every_block(size):
    """Also where a row is excluded or NaN; blocks of the vocabulary are searched on a CPU."""
    rng = np.random.default_rng(size)
    logits = rng.integers(0, 3, (40, size)).astype(np.float32)
    for row, place in enumerate(rng.integers(0, size, 20)):
        logits[row, place], logits[row, -1] = 5.0, 5.0
    logits[38] = -np.inf
    tokens, _ = jax.jit(sampling_methods.Greedy(banned=()).sample)(None, logits)
    np.testing.assert_array_equal(tokens, logits.argmax(axis=-1))
    logits[3, 2] = np.nan
    tokens, logprobs = jax.jit(sampling_methods.Greedy(banned=()).sample)(None, logits)
    assert 0 <= tokens[3] < size and np.isnan(logprobs[3])


@pytest.mark.parametrize('size', [2, 64, 1000])
def test_draws_follow_the_truncated_distribution(size):
    logits = 2 * jax.random.normal(jax.random.key(7), size)
    method = sampling_methods.TemperatureSampling(0.8, 40, 1.0, 0.0, banned=(1,))
    draw = tiny_model.jit(jax.vmap(method.sample, in_axes=(0, None)))  # sorts the logits once
    tokens = draw(noise_of(2, 20_000), logits)[0]
    counts = np.bincount(tokens, minlength=size)
    expected = 20_000 * np.asarray(jax.nn.softmax(transform(method, logits)))
    assert not counts[expected == 0].any()
    frequent = expected > 5
    chi_squared = ((counts[frequent] - expected[frequent]) ** 2 / expected[frequent]).sum()
    assert chi_squared < frequent.sum() + 4 * (2 * frequent.sum()) ** 0.5


def test_the_last_noise_draws_no_excluded_token():
    """Even if sums are rounded, and if the last tokens are excluded."""
    noise = jnp.full((300, 2), np.nextafter(np.float32(1), np.float32(0)))
    logits = jax.random.normal(jax.random.key(9), (300, 1000))
    method = sampling_methods.TemperatureSampling(1.0, 7, 1.0, 0.0, banned=(999,))
    tokens = sample(method, noise, logits)[0]
    assert kept(method, logits)[np.arange(300), tokens].all()
    assert kept(method, logits)[np.arange(300), sample(method, 0 * noise, logits)[0]].all()


@pytest.mark.parametrize('size', [5, 64, 1000])
def test_no_numbers_still_draw_a_token(size):
    tokens = sample(OFF, noise_of(0, 3), jnp.full((3, size), jnp.nan))[0]
    assert (np.asarray(tokens) < size).all()


def test_gradients_through_the_transform_are_finite():
    method = sampling_methods.TemperatureSampling(0.7, 20, 0.9, 0.02, banned=(0,))
    logits = logits_of(8, 4)
    tokens = logits.argmax(axis=-1)

    def total(logits):
        return sum(x.sum() for x in logprobs.log_softmax_at(method.transform(logits), tokens))

    gradient = np.asarray(tiny_model.jit(jax.grad(total))(logits))
    assert np.isfinite(gradient).all()
    assert not gradient[~kept(method, logits)].any()


def test_bfloat16_logits_become_float32():
    assert transform(OFF, jnp.zeros((2, V), 'bfloat16')).dtype == jnp.float32


@pytest.mark.parametrize(
    'fields, word',
    [
        ({'temperature': 0.0}, 'Greedy'),
        ({'temperature': None}, 'temperature=None'),
        ({'temperature': float('nan')}, 'temperature=nan'),
        ({'temperature': True}, 'temperature'),
        ({'top_k': None}, 'top_k=None'),
        ({'top_k': -1}, 'top_k=-1'),
        ({'top_k': 1.5}, 'top_k=1.5'),
        ({'top_k': 5.0}, 'top_k=5.0 must be an integer'),
        ({'top_p': None}, 'top_p=None'),
        ({'top_p': 0.0}, 'top_p=0.0'),
        ({'top_p': 1.1}, 'top_p'),
        ({'min_p': None}, 'min_p=None'),
        ({'min_p': 1.0}, 'min_p=1.0'),
        ({'banned': [1]}, 'banned'),
    ],
)
def test_no_setting_is_silently_something_else(fields, word):
    valid = {'temperature': 1.0, 'top_k': 0, 'top_p': 1.0, 'min_p': 0.0, 'banned': ()}
    with pytest.raises(ValueError, match=word):
        sampling_methods.TemperatureSampling(**(valid | fields))


def test_methods_are_hashable_values():
    assert hash(OFF) == hash(sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=()))
    assert (
        sampling_methods.Greedy(banned=(1,))
        == sampling_methods.Greedy(banned=(1,))
        != sampling_methods.Greedy(banned=())
    )
