"""Log-probabilities and entropies of tokens, without an array [B, T, V] of all logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from elenchus.model import sharding
from elenchus.model.transformer import Transformer


def log_softmax_at(logits: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-probability of `tokens` and entropy of the distribution, both [...] float32.

    logits [..., V], -inf for tokens that the distribution excludes; tokens [...].
    """
    logits = logits.astype('float32')
    logits = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    normaliser = jnp.log(jnp.exp(logits).sum(axis=-1))
    # A one-hot sum instead of a gather: it stays local on each device when V is sharded.
    chosen = jax.nn.one_hot(tokens, logits.shape[-1], dtype=bool)
    logprobs = jnp.where(chosen, logits, 0.0).sum(axis=-1) - normaliser
    # exp(-inf) * -inf is NaN, in the value and in its gradient.
    finite = jnp.where(jnp.isfinite(logits), logits, 0.0)
    mean = (jnp.exp(logits) * finite).sum(axis=-1) / jnp.exp(normaliser)
    return logprobs, normaliser - mean


def token_logprobs(
    model: Transformer,
    hidden: jax.Array,
    tokens: jax.Array,
    *,
    transform: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """log p(tokens[t] | tokens[<t]) and the entropy of that distribution, both [B, T] float32.

    hidden [B, T, D] and tokens [B, T] of the same sequence. The first token of a row has no
    prediction: its entries are 0. `transform` maps float32 logits to those of the sampled
    distribution (temperature, truncation). Logits exist for `config.logits_chunk` positions at a
    time and are recomputed in the backward pass, so memory grows with the chunk and not with T * V.
    """
    B, T, D = hidden.shape
    chunk = min(model.config.logits_chunk, T)
    num_chunks = -(-T // chunk)
    # hidden[t - 1] predicts tokens[t].
    shifted = jnp.pad(hidden[:, :-1], ((0, 0), (1, num_chunks * chunk - T), (0, 0)))
    targets = jnp.pad(tokens, ((0, 0), (0, num_chunks * chunk - T)))

    def score_chunk(hidden, targets):
        logits = sharding.constrain(model.logits(hidden), ('batch', None, 'vocab'))
        return log_softmax_at(transform(logits), targets)

    if num_chunks == 1:
        logprobs, entropy = score_chunk(shifted, targets)
    else:
        split = lambda x: x.reshape(B, num_chunks, chunk, *x.shape[2:]).swapaxes(0, 1)  # noqa: E731
        recomputed = jax.checkpoint(score_chunk)
        results = jax.lax.map(lambda xs: recomputed(*xs), (split(shifted), split(targets)))
        logprobs, entropy = (x.swapaxes(0, 1).reshape(B, -1)[:, :T] for x in results)
    valid = jnp.arange(T) > 0
    return jnp.where(valid, logprobs, 0.0), jnp.where(valid, entropy, 0.0)
