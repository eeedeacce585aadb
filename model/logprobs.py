"""Log-probabilities and entropies of tokens, without an array [B, T, V] of all logits."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from elenchus.model import numerics, sharding, weight_gather
from elenchus.model.transformer import Transformer


def log_softmax_at(logits: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns log p(tokens) and the entropy of p = softmax(logits), both [...] float32.

    logits [..., V] are -inf for tokens that the distribution excludes; tokens [...].
    """
    return numerics.by_rows(_log_softmax_at, logits, tokens)


def _log_softmax_at(logits: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
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
    transform: Callable[..., jax.Array],
    place: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns log p(tokens[t] | tokens[<t]) and the entropy of that distribution, [B, T] float32.

    hidden [B, T, D] and tokens [B, T] are of the same sequence. The first token of a row has no
    prediction: its entries are 0. `transform` maps float32 logits to those of the sampled
    distribution (temperature, truncation). If `place`, a tree of arrays [B, T], is given, it is
    called as transform(logits [N, V], place [N]).

    Logits exist for `config.logits_chunk` tokens of a device at a time and are recomputed in the
    backward pass, so memory grows with the chunk and not with B * T * V. Each device works on its
    own rows: it gathers the head once, and the gradient of the head is summed over devices once.
    """
    # hidden[t - 1] predicts tokens[t].
    shifted = jnp.pad(hidden[:, :-1], ((0, 0), (1, 0), (0, 0)))
    # Cast first, so that the head is gathered and its gradient summed in the dtype of activations,
    # as for all other matrices.
    head = model.head_matrix.astype(hidden.dtype)
    places, structure = jax.tree.flatten(() if place is None else (place,))

    def score(head, hidden, tokens_and_places):
        tokens, places = tokens_and_places
        logits = sharding.constrain(model.logits(hidden, head), (None, 'vocab'))
        with numerics.of(model.config):
            return log_softmax_at(transform(logits, *structure.unflatten(places)), tokens)

    def score_rows(heads, hidden, tokens, *places):
        flat = (hidden.reshape(-1, hidden.shape[-1]), tokens.reshape(-1))
        places = [x.reshape(-1) for x in places]
        arrays = (heads[0], flat[0], (flat[1], places))
        scores = score_in_chunks(score, arrays, chunk=model.config.logits_chunk)
        return tuple(x.reshape(tokens.shape) for x in scores)

    rows = ('batch', 'sequence')
    logprobs, entropy = sharding.map_rows(
        score_rows,
        (weight_gather.copy_to_rows(head, ('embed', 'vocab')), shifted, tokens, *places),
        (('copies', None, 'vocab'), (*rows, None), *[rows] * (1 + len(places))),
    )
    valid = jnp.arange(tokens.shape[1]) > 0
    return jnp.where(valid, logprobs, 0.0), jnp.where(valid, entropy, 0.0)


Score = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array]]
"""Function of (head [D, V], hidden [N, D], tokens [N]) with two results [N], one per token.

`tokens` may be a tree of arrays [N]."""


def score_in_chunks(score: Score, arrays, *, chunk: int) -> tuple[jax.Array, jax.Array]:
    """Returns score(*arrays), computed for `chunk` tokens at a time.

    The backward pass recomputes each chunk, unless there is only one. arrays: (head, hidden,
    tokens).
    """
    head, hidden, tokens = arrays
    num_tokens = len(hidden)
    if num_tokens <= chunk:
        return score(head, hidden, tokens)
    num_chunks = -(-num_tokens // chunk)

    def split(x):
        padding = ((0, num_chunks * chunk - num_tokens), *((0, 0),) * (x.ndim - 1))
        return jnp.pad(x, padding).reshape(num_chunks, chunk, *x.shape[1:])

    results = _map_chunks(score, (head, split(hidden), jax.tree.map(split, tokens)))
    return tuple(x.reshape(-1)[:num_tokens] for x in results)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _map_chunks(score: Score, arrays):
    """Scores of chunks, [C, N], of arrays (head, hidden [C, N, D], tokens [C, N]).

    It has its own derivative, because automatic differentiation would sum the gradient of the head
    over chunks in the head's dtype, which loses digits in bfloat16, and keep what a chunk computes.
    """
    head, *chunks = arrays
    return jax.lax.map(lambda chunk: score(head, *chunk), chunks)


def _map_chunks_forward(score, arrays):
    # A frozen head needs no gradient: static, so in the structure of the residuals.
    is_trained = () if arrays[0].perturbed else None
    arrays = jax.tree.map(lambda x: x.value, arrays)
    return _map_chunks(score, arrays), (arrays, is_trained)


def _map_chunks_backward(score, residuals, cotangents):
    (head, hidden, tokens), is_trained = residuals
    # A result that the loss ignores has a symbolic zero: its gradient is not computed.
    used = [not isinstance(x, SymbolicZero) for x in cotangents]
    cotangents = [x for x, is_used in zip(cotangents, used, strict=True) if is_used]

    def add_chunk(total, chunk):
        hidden, tokens, *cotangents = chunk

        def used_scores(head, hidden):
            results = score(head, hidden, tokens)
            return [x for x, is_used in zip(results, used, strict=True) if is_used]

        if is_trained is None:
            return None, jax.vjp(functools.partial(used_scores, head), hidden)[1](cotangents)[0]
        head_gradient, gradient = jax.vjp(used_scores, head, hidden)[1](cotangents)
        return total + head_gradient.astype('float32'), gradient

    total = None
    if is_trained is not None:
        total = sharding.constrain(jnp.zeros(head.shape, 'float32'), (None, 'vocab'))
    total, gradients = jax.lax.scan(add_chunk, total, (hidden, tokens, *cotangents))
    return ((None if total is None else total.astype(head.dtype), gradients, None),)


_map_chunks.defvjp(_map_chunks_forward, _map_chunks_backward, symbolic_zeros=True)
