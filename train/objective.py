"""The one objective: every method is a weight on the log-likelihood gradient.

    loss = - sum_t m_t f(rho_t, w_t) / norm  +  kl_coef * KL(pi || ref)  -  entropy_coef * H

with `w_t` the token's weight or advantage (Batch.weights), `m_t` its loss mask and
`rho_t = exp(logp_t - old_logp_t)`. An Objective says which f, over what rho is formed and how
tokens are averaged; it is a frozen value, static under jit. Sources: METHODS in docs/methods.md.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from data.records import Batch


@dataclasses.dataclass(frozen=True)
class Objective:
    """Which surrogate of the policy gradient is minimised.

    surrogate: 'logprob' is w * logp (SFT, self-training, REINFORCE); 'clip' is PPO's
    min(rho w, clip(rho) w) (GRPO, DAPO, GSPO); 'cispo' is stop_gradient(clip(rho)) * w * logp.
    """

    surrogate: Literal['logprob', 'clip', 'cispo']
    ratio: Literal['token', 'sequence']  # 'sequence': rho = exp(mean_t(logp - old_logp)), GSPO
    on_policy: bool  # old_logp = stop_gradient(logp): rho is 1 and its gradient exact
    clip_low: float  # rho is kept in [1 - clip_low, 1 + clip_high]
    clip_high: float
    average: Literal['token', 'sequence', 'constant']  # 'sequence': token mean, then sequence mean
    constant_length: int  # divisor of a sequence's sum under 'constant' (Dr. GRPO)
    kl: Literal['none', 'k2', 'k3']  # k1 in a loss has zero expected gradient: it is not offered
    kl_coef: float
    entropy_coef: float

    def __post_init__(self):
        if self.average == 'constant' and self.constant_length < 1:
            raise ValueError('objective.constant_length must be at least 1 for average=constant')
        if self.surrogate != 'logprob' and min(self.clip_low, self.clip_high) <= 0:
            raise ValueError(
                f'objective.surrogate={self.surrogate!r} needs clip_low and clip_high '
                f'above 0, not {self.clip_low} and {self.clip_high}'
            )
        if (self.kl == 'none') != (self.kl_coef == 0):
            raise ValueError(
                f'objective.kl={self.kl!r} with kl_coef={self.kl_coef}: set both or neither'
            )


def sequence_sum(values: jax.Array, segments: jax.Array) -> jax.Array:
    """Sum of values [B, T] over each token's own sequence, at every token. Padding gives 0."""

    def of_row(values, segments):
        sums = jax.ops.segment_sum(values, segments, num_segments=values.shape[0] + 1)
        return jnp.where(segments > 0, sums[segments], 0.0)

    return jax.vmap(of_row)(values, segments)


def loss(objective: Objective, batch: Batch, logprobs: jax.Array, entropy: jax.Array):
    """(sum, weight, metrics) of a batch; logprobs and entropy [B, T] of the model trained.

    `sum / weight` is the loss. Both, and every metric's sum, are added over microbatches and
    devices and divided once, so the loss does not depend on how a batch was split. Metrics are
    {name: sum over loss tokens}; divide by the number of loss tokens.
    """
    o, mask = objective, batch.loss_mask
    # A token that the policy's truncation excludes has no gradient: it is left out and counted.
    excluded = (mask > 0) & jnp.isneginf(logprobs)
    mask = jnp.where(excluded, 0.0, mask)
    # 0 where not trained, whatever stands there: -inf under a truncation, anything in padding.
    trained_only = lambda x: jnp.where(mask > 0, x, 0.0)  # noqa: E731
    logprobs, entropy, weights, old, ref = map(
        trained_only, (logprobs, entropy, batch.weights, batch.old_logprobs, batch.ref_logprobs)
    )
    if o.on_policy:
        old = jax.lax.stop_gradient(logprobs)
    length = jnp.maximum(sequence_sum(mask, batch.segments), 1.0)
    log_ratio = logprobs - old
    if o.ratio == 'sequence':
        log_ratio = sequence_sum(log_ratio, batch.segments) / length
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - o.clip_low, 1 + o.clip_high)
    if o.surrogate == 'logprob':
        gain = weights * logprobs
    elif o.surrogate == 'clip':
        gain = jnp.minimum(ratio * weights, clipped * weights)
    else:
        gain = jax.lax.stop_gradient(clipped) * weights * logprobs
    kl = _kl(o.kl, ref - logprobs)
    per_token = -gain + o.kl_coef * kl - o.entropy_coef * entropy
    scale, weight = _average(o, mask, length)
    total = jnp.sum(per_token * mask * scale)
    outside_low = (ratio < 1 - o.clip_low) & (weights < 0)
    outside_high = (ratio > 1 + o.clip_high) & (weights > 0)
    sums = {
        'loss/nll': -logprobs,
        'loss/entropy': entropy,
        'loss/kl': kl,
        'loss/ratio': ratio,
        'loss/clipped_low': outside_low,
        'loss/clipped_high': outside_high,
        'loss/weight': weights,
    }
    metrics = {name: jnp.sum(x * mask) for name, x in sums.items()}
    return total, weight, metrics | {'loss/excluded': jnp.sum(excluded, dtype='float32')}


def _average(objective: Objective, mask, length):
    """(scale of each token, weight to divide by)."""
    if objective.average == 'token':
        return jnp.ones_like(mask), mask.sum()
    num_sequences = jnp.sum(mask / length)
    if objective.average == 'sequence':
        return 1.0 / length, num_sequences
    return jnp.full_like(mask, 1.0 / objective.constant_length), num_sequences


def _kl(kind: str, difference: jax.Array) -> jax.Array:
    """Per-token estimate of KL(pi || ref), difference = ref_logp - logp.

    Source: Schulman, "Approximating KL divergence" (2020).
    """
    if kind == 'k2':
        return 0.5 * difference**2
    if kind == 'k3':
        return jnp.exp(difference) - difference - 1.0
    return jnp.zeros_like(difference)
