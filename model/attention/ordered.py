"""Attention that adds in the order of head dimensions and positions, for canonical numerics.

Masked positions add exact zeros. So the result of a query does not depend on the number of keys, on
where its sequence begins in a row, nor on other queries. Dimensions as in model/layers.py.
"""

import jax
import jax.numpy as jnp

from elenchus.model import numerics


def softmax_products(
    query: jax.Array, key: jax.Array, value: jax.Array, *, mask: jax.Array, cap_scores
) -> jax.Array:
    """Attention of scaled queries [B, K, G, T, H] to keys and values [B, K, S, H].

    mask broadcasts to [B, K, G, T, S]; `cap_scores` maps scores. Returns [B, K, G, T, H] float32.
    """
    query, key, value = (x.astype('float32') for x in (query, key, value))
    B, K, G, T, H = query.shape
    by_dimension = (
        jnp.moveaxis(query, -1, 0)[..., None],  # [H, B, K, G, T, 1]
        jnp.moveaxis(key, -1, 0)[:, :, :, None, None],  # [H, B, K, 1, 1, S]
    )
    scores, _ = jax.lax.scan(
        lambda total, x: (total + x[0] * x[1], None),
        jnp.zeros((B, K, G, T, key.shape[2]), 'float32'),
        jax.lax.optimization_barrier(by_dimension),
    )
    scores = jnp.where(mask, cap_scores(scores), -jnp.inf)
    # A row of padding attends to nothing: its maximum would be -inf, and its weights NaN.
    maximum = jnp.maximum(scores.max(axis=-1, keepdims=True), -1e30)
    weights = numerics.by_number(jnp.exp, scores - maximum)
    by_position = (
        jnp.moveaxis(weights, -1, 0)[..., None],  # [S, B, K, G, T, 1]
        jnp.moveaxis(value, 2, 0)[:, :, :, None, None],  # [S, B, K, 1, 1, H]
    )
    zeros = jnp.zeros((B, K, G, T, H), 'float32'), jnp.zeros((B, K, G, T, 1), 'float32')
    (out, total), _ = jax.lax.scan(
        lambda totals, x: ((totals[0] + x[0] * x[1], totals[1] + x[0]), None),
        zeros,
        jax.lax.optimization_barrier(by_position),
    )
    return out / jnp.maximum(total, 1e-30)
