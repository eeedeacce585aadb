"""Grouped-query attention written as einsums; runs on every device. Source: arXiv 2305.13245.

Dimensions as in model/layers.py.
"""

import functools

import jax
import jax.numpy as jnp

from elenchus.model import numerics, platforms
from elenchus.model.attention import ordered
from elenchus.model.attention.inputs import AttentionInputs

MASKED_SCORE = -1e30  # finite, because -inf - (-inf) would be NaN in a fully masked row
MAX_RIGHT_QUERIES = 8
"""Largest number of queries per key head for which a CPU computes K Q^T; see `_scores`."""
MIN_RIGHT_WIDTH = 32
"""Smallest head width for which it does; the gain was measured at 64."""
_float32_einsum = functools.partial(jnp.einsum, preferred_element_type='float32')


def soft_cap(x: jax.Array, cap: float) -> jax.Array:
    """Returns cap * tanh(x / cap), which stays within (-cap, cap); returns x if cap is 0."""
    return numerics.by_number(lambda x: cap * jnp.tanh(x / cap), x) if cap else x


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array,
    scale: float,
    cap: float,
) -> jax.Array:
    """Attention with a float32 softmax of scaled and soft-capped scores.

    Products are accumulated and normalised in float32, and rounded once, at the end.

    query [B, T, N, H]; key and value [B, K, S, H]; mask [B, T, S], True = attended. Returns
    [B, T, N, H].
    """
    if numerics.is_canonical():
        return _attend_in_order((query, key, value, mask), (scale, cap))
    # Keys are [B, K, S, H] because decoding reads them 1.4 times faster than [B, S, K, H] (CPU).
    B, T, N, H = query.shape
    grouped = group_by_kv_head(query * scale, key.shape[1])
    scores = _scores(grouped, key)
    weights, total = _exp_and_sum(scores, mask[:, None, None], cap=cap)
    out = _float32_einsum('BKGTS,BKSH->BKGTH', weights.astype(value.dtype), value)
    # The division of the softmax comes after the product: [T, H] is usually smaller than [T, S].
    out = (out / total).astype(value.dtype)
    return out.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _attend_in_order(arrays: tuple[jax.Array, ...], settings: tuple[float, float]) -> jax.Array:
    """`attend` with canonical numerics. Its gradient is that of fast numerics, for speed."""
    (query, key, value, mask), (scale, cap) = arrays, settings
    grouped = group_by_kv_head(query * scale, key.shape[1])
    capped = functools.partial(soft_cap, cap=cap)
    out = ordered.softmax_products(grouped, key, value, mask=mask[:, None, None], cap_scores=capped)
    return out.astype(value.dtype).transpose(0, 3, 1, 2, 4).reshape(query.shape)


def _attend_in_order_forward(arrays, settings):
    return _attend_in_order(arrays, settings), arrays


def _attend_in_order_backward(settings, arrays, gradient):
    (*inputs, mask), (scale, cap) = arrays, settings
    with numerics.fast():
        fast = functools.partial(attend, mask=mask, scale=scale, cap=cap)
        return ((*jax.vjp(fast, *inputs)[1](gradient), None),)


_attend_in_order.defvjp(_attend_in_order_forward, _attend_in_order_backward)


def _scores(query: jax.Array, key: jax.Array) -> jax.Array:
    """query [B, K, G, T, H], key [B, K, S, H] -> float32 scores [B, K, G, T, S]."""
    G, T, H = query.shape[2:]
    is_small = 1 < G * T <= MAX_RIGHT_QUERIES and H >= MIN_RIGHT_WIDTH
    if platforms.target_platform() != 'cpu' or not is_small:
        return _float32_einsum('BKGTH,BKSH->BKGTS', query, key)
    # K Q^T instead of Q K^T: with few queries it is 1.8 times as fast on a CPU, as it reads keys in
    # memory order. Without the barrier XLA would exchange the operands again.
    scores = _float32_einsum('BKSH,BKGTH->BKSGT', key, query)
    return jax.lax.optimization_barrier(scores).transpose(0, 1, 3, 4, 2)


def attend_causal(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array,
    scale: float,
    cap: float,
) -> jax.Array:
    """`attend` for a causal mask with T == S: computes blocks of queries against earlier keys only.

    With four blocks, 3/8 of the scores are never computed. Queries that are a part of the sequence
    ('context') attend to all keys under the mask, because only the device knows their position.
    """
    T, S = query.shape[1], key.shape[2]
    size = T if numerics.is_canonical() else query_block_size(T)
    seen = {end: end if S == T else S for end in range(size, T + 1, size)}
    blocks = [
        attend(
            query[:, end - size : end],
            key[:, :, : seen[end]],
            value[:, :, : seen[end]],
            mask=mask[:, end - size : end, : seen[end]],
            scale=scale,
            cap=cap,
        )
        for end in seen
    ]
    return jnp.concatenate(blocks, axis=1)


def attend_shared(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    inputs: AttentionInputs,
    scale: float,
    cap: float,
) -> jax.Array:
    """`attend_causal` for rows with a shared prompt, whose own attention is computed only once.

    query [B, T, N, H]; key and value [B, K, T, H]; T is `inputs.shared.length`. The queries of all
    samples read the same keys of the prompt, so the prompt is never copied.
    """
    if numerics.is_canonical():
        return _attend_split(query, key, value, inputs=inputs, scale=scale, cap=cap)
    shared, K, N = inputs.shared, key.shape[1], query.shape[2]
    n, prompt, length = shared.samples, shared.prompt, shared.response
    # The mask is that of the split rows; the prompt's part is equal in all samples of a row.
    mask = inputs.mask.reshape(-1, n, *inputs.mask.shape[1:])
    prompt_out = attend_causal(
        query[:, :prompt],
        *(x[:, :, :prompt] for x in (key, value)),
        mask=mask[:, 0, :prompt, :prompt],
        scale=scale,
        cap=cap,
    )
    B, _, _, H = query.shape
    queries = group_by_kv_head(query[:, prompt:] * scale, K).reshape(B, K, N // K, n, length, H)
    keys, values = (x[:, :, prompt:].reshape(B, K, n, length, H) for x in (key, value))
    size, blocks = query_block_size(length), []
    for end in range(size, length + 1, size):
        block, earlier = queries[..., end - size : end, :], slice(None, end)
        scores = (
            _float32_einsum('BKGnTH,BKSH->BKGnTS', block, key[:, :, :prompt]),
            _float32_einsum('BKGnTH,BKnSH->BKGnTS', block, keys[..., earlier, :]),
        )
        visible = mask[:, None, None, :, prompt + end - size : prompt + end, : prompt + end]
        # One softmax over the scores of the prompt and of the sample.
        weights, total = _exp_and_sum(jnp.concatenate(scores, axis=-1), visible, cap=cap)
        weights = weights.astype(value.dtype)
        out = _float32_einsum('BKGnTS,BKSH->BKGnTH', weights[..., :prompt], value[:, :, :prompt])
        out += _float32_einsum(
            'BKGnTS,BKnSH->BKGnTH', weights[..., prompt:], values[..., earlier, :]
        )
        blocks.append((out / total).astype(value.dtype))
    out = jnp.concatenate(blocks, axis=-2).transpose(0, 3, 4, 1, 2, 5)
    return jnp.concatenate([prompt_out, out.reshape(B, n * length, N, H)], axis=1)


def _attend_split(query, key, value, *, inputs: AttentionInputs, scale: float, cap: float):
    """`attend_shared` with a copy of the prompt for each sample."""
    shared = inputs.shared
    query, key, value = (
        shared.split_samples(query),
        shared.split_heads(key),
        shared.split_heads(value),
    )
    return shared.join_samples(attend(query, key, value, mask=inputs.mask, scale=scale, cap=cap))


def query_block_size(length: int) -> int:
    """Number of queries that `attend_causal` computes at once: a quarter, or all if T is short."""
    return length // 4 if length >= 128 and length % 4 == 0 else length


def group_by_kv_head(query: jax.Array, num_kv_heads: int) -> jax.Array:
    """[B, T, N, H] -> [B, K, N / K, T, H]: groups query heads by the key head that they read."""
    B, T, N, H = query.shape
    return query.reshape(B, T, num_kv_heads, N // num_kv_heads, H).transpose(0, 2, 3, 1, 4)


def _exp_and_sum(scores: jax.Array, mask: jax.Array, *, cap: float) -> tuple[jax.Array, jax.Array]:
    """Numerator and denominator of the softmax of capped scores over the last dimension."""
    scores = soft_cap(scores, cap) + jnp.where(mask, 0.0, MASKED_SCORE)
    # The maximum only shifts the exponent, so it needs no gradient. Without the barrier XLA for CPU
    # fuses it into every consumer and reduces it again there: the backward pass takes 106 ms
    # instead of 45 ms (B=38, T=160, N=4, H=32; docs/design.md, "A barrier in attention").
    detached = platforms.cpu_barrier(jax.lax.stop_gradient(scores))
    weights = jnp.exp(scores - detached.max(axis=-1, keepdims=True))
    return weights, weights.sum(axis=-1, keepdims=True)
