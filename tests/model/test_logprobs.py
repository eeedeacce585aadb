import dataclasses
import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from elenchus.model import logprobs as logprobs_lib
from tests.support import tiny_model


def naive(logits, tokens):
    """(log-probabilities, entropies) in float64, with a loop over positions."""
    logprobs, entropies = np.zeros(tokens.shape), np.zeros(tokens.shape)
    for place in np.ndindex(tokens.shape):
        row = logits[place].astype(np.float64)
        kept = row[np.isfinite(row)]
        total = np.logaddexp.reduce(kept)
        probabilities = np.exp(kept - total)
        logprobs[place] = row[tokens[place]] - total
        entropies[place] = -(probabilities * (kept - total)).sum()
    return logprobs, entropies


def random_logits(seed, *, excluded):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=8, size=(3, 5, 11)).astype(np.float32)
    logits[rng.random(logits.shape) < excluded] = -np.inf
    logits[..., 0] = 1000 * rng.standard_normal((3, 5))  # large, and never excluded
    return logits, rng.integers(0, 11, (3, 5))


@tiny_model.jit
def value_and_grad_at(logits, tokens, counted):
    """Log-probability and entropy summed over `counted` tokens."""

    def total(logits):
        logprobs, entropy = logprobs_lib.log_softmax_at(logits, tokens)
        return jnp.where(counted, logprobs + entropy, 0.0).sum()

    return jax.value_and_grad(total)(logits)


@hypothesis.given(st.integers(0, 2**20), st.sampled_from([0.0, 0.5, 1.0]))
def test_logprobs_and_entropy_equal_the_naive_ones_with_tokens_excluded(seed, excluded):
    logits, tokens = random_logits(seed, excluded=excluded)
    logprobs, entropy = tiny_model.jit(logprobs_lib.log_softmax_at)(logits, tokens)
    expected, expected_entropy = naive(logits, tokens)
    np.testing.assert_allclose(logprobs, expected, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(entropy, expected_entropy, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('excluded', [0.5, 1.0])
def test_excluded_tokens_give_no_nan_in_value_or_gradient(excluded):
    """'Sampled' excluded tokens are -inf; if they are not counted, they change nothing."""
    logits, tokens = random_logits(0, excluded=excluded)
    kept = np.isfinite(np.take_along_axis(logits, tokens[..., None], -1))[..., 0]
    assert kept.any() and not kept.all()
    value, grad = value_and_grad_at(logits, tokens, kept)
    assert np.isfinite(value) and np.isfinite(grad).all()
    assert not grad[np.isneginf(logits)].any()
    assert not grad[~kept].any()


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.zeros((1, 4096), 'bfloat16')
    logprobs, entropy = logprobs_lib.log_softmax_at(logits, jnp.array([3]))
    np.testing.assert_allclose([-logprobs[0], entropy[0]], np.log(4096), rtol=1e-6)


@functools.partial(tiny_model.jit, static_argnames='transform')
def logprobs_and_grads(model, hidden, tokens, transform):
    """Values, and gradients of a sum that weighs every position differently."""

    def total(model, hidden):
        values = logprobs_lib.token_logprobs(model, hidden, tokens, transform=transform)
        wave = jnp.cos(jnp.arange(tokens.size).reshape(tokens.shape))
        return jnp.sum(wave * values[0] + wave**2 * values[1]), values

    (_, values), grads = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(model, hidden)
    return values, (grads[0].embedding[...], grads[1])


def hidden_and_tokens(length):
    rng = np.random.default_rng(length)
    hidden = rng.standard_normal((2, length, tiny_model.CONFIG.embed_dim)).astype(np.float32)
    return hidden, rng.integers(0, tiny_model.CONFIG.vocab_size, (2, length))


def halved(logits):
    return logits / 2


def test_token_logprobs_are_of_the_next_token_under_the_transform():
    model = tiny_model.make_model(tiny_model.CONFIG)
    hidden, tokens = hidden_and_tokens(7)
    (logprobs, entropy), _ = logprobs_and_grads(model, hidden, tokens, halved)
    logits = np.asarray(hidden @ np.asarray(model.embedding[...]).T / 2)
    expected, expected_entropy = naive(logits[:, :-1], tokens[:, 1:])
    np.testing.assert_allclose(logprobs[:, 1:], expected, atol=2e-5)
    np.testing.assert_allclose(entropy[:, 1:], expected_entropy, atol=2e-5)
    assert not np.any(logprobs[:, 0]) and not np.any(entropy[:, 0])


@pytest.mark.parametrize('chunk', [1, 3, 4])
def test_chunks_change_no_value_and_no_gradient_even_where_they_do_not_divide(chunk):
    hidden, tokens = hidden_and_tokens(7)
    models = (
        tiny_model.make_model(dataclasses.replace(tiny_model.CONFIG, logits_chunk=c))
        for c in (chunk, 64)
    )
    actual, expected = (logprobs_and_grads(model, hidden, tokens, halved) for model in models)
    tiny_model.assert_trees_close(actual, expected, relative=1e-6)


def peak_bytes(*, length, chunk):
    """Temporary memory of the compiled value and gradient of a loss of token_logprobs."""
    config = dataclasses.replace(
        tiny_model.CONFIG, vocab_size=4096, num_layers=1, max_length=length, logits_chunk=chunk
    )

    def loss(model, hidden, tokens):
        return logprobs_lib.token_logprobs(model, hidden, tokens, transform=tiny_model.untouched)[
            0
        ].sum()

    shapes = (
        jax.eval_shape(lambda: tiny_model.make_model(config)),
        jax.ShapeDtypeStruct((1, length, config.embed_dim), 'float32'),
        jax.ShapeDtypeStruct((1, length), 'int32'),
    )
    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_peak_memory_grows_with_the_chunk_and_not_with_the_sequence():
    logits = 512 * 4096 * 4
    whole = peak_bytes(length=512, chunk=512)
    chunked = peak_bytes(length=512, chunk=32)
    longer = peak_bytes(length=1024, chunk=32)
    assert whole > logits
    assert chunked < logits / 4
    assert longer - chunked < logits / 16
