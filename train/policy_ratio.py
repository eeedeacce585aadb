"""Importance ratio and KL penalty of tokens, with logarithms clamped before the exponential.

exp(89) is infinite in float32: one token that drifted far, or a product over a thousand tokens that
each drifted a little, would turn a loss or its gradient into inf or NaN. A log-ratio is clamped to
[-20, 20] and a k3 penalty to at most 10, as in verl (verl/trainer/ppo/core_algos.py). A clamped
value has gradient 0, and the shares of clamped tokens are metrics.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

RatioKind = Literal['token', 'sequence', 'product']
"""Importance ratio of a token: its own; its sequence's geometric mean; its sequence's product."""

KLKind = Literal['none', 'k1', 'k2', 'k3']

LOG_RATIO_LIMIT = 20.0
K3_LIMIT = 10.0


class Clamped(NamedTuple):
    """Values of tokens [B, T], and True where they were clamped."""

    values: jax.Array
    clamped: jax.Array


def importance_ratio(
    kind: RatioKind, log_ratio: jax.Array, *, segments: jax.Array, length: jax.Array
) -> Clamped:
    """Returns rho [B, T]; a sequence's ratio is repeated at all its tokens.

    log_ratio [B, T] is logp - old_logp, 0 on untrained tokens; length [B, T] is the number of
    trained tokens of a token's sequence.
    """
    if kind != 'token':
        log_ratio = sequence_sum(log_ratio, segments)
    if kind == 'sequence':
        log_ratio = log_ratio / length
    limit = LOG_RATIO_LIMIT
    return Clamped(jnp.exp(jnp.clip(log_ratio, -limit, limit)), jnp.abs(log_ratio) > limit)


def kl_penalty(kind: KLKind, difference: jax.Array) -> Clamped:
    """Per-token penalty for the distance to the reference, with d = ref_logp - logp = `difference`.

    k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1 all estimate KL(pi || ref) by their values. Their
    gradients differ: on samples of pi, that of k2 is the gradient of KL(pi || ref), that of k3 of
    KL(ref || pi), that of k1 is zero. Schulman, "Approximating KL divergence" (2020).

    k3 and its exponent are clamped. Of k1 and k2 only an infinite d is, of a token that the
    reference's truncation excludes: they cannot overflow otherwise.
    """
    if kind == 'none':
        return Clamped(jnp.zeros_like(difference), jnp.zeros(difference.shape, bool))
    within = jnp.clip(difference, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if kind == 'k3':
        penalty = jnp.exp(within) - within - 1.0
        return Clamped(jnp.minimum(penalty, K3_LIMIT), penalty > K3_LIMIT)
    infinite = jnp.isinf(difference)
    d = jnp.where(infinite, within, difference)
    return Clamped(-d if kind == 'k1' else 0.5 * d**2, infinite)


def sequence_sum(values: jax.Array, segments: jax.Array) -> jax.Array:
    """Returns, at every token, the sum of values [B, T] over its sequence; 0 on padding."""

    def of_row(values, segments):
        sums = jax.ops.segment_sum(values, segments, num_segments=values.shape[0] + 1)
        return jnp.where(segments > 0, sums[segments], 0.0)

    return jax.vmap(of_row)(values, segments)


def ratio_metrics(
    ratio: jax.Array, weights: jax.Array, *, low: float, high: float
) -> dict[str, jax.Array]:
    """Returns metrics of tokens [B, T]: the ratio, where its clip acts, and the weights."""
    return {
        'loss/ratio': ratio,
        'loss/clipped_low': (ratio < low) & (weights < 0),
        'loss/clipped_high': (ratio > high) & (weights > 0),
        'loss/weight': weights,
    }
