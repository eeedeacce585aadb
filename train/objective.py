"""The one objective: every method is a weight on the log-likelihood gradient.

    loss = - sum_t m_t f(rho_t, w_t) / norm  +  kl_coef * KL(pi || ref)  -  entropy_coef * H

with `w_t` the token's weight or advantage (Batch.weights), `m_t` its loss mask and
`rho_t = exp(logp_t - old_logp_t)`. An Objective says which f, over what rho is formed and how
tokens are averaged; it is a frozen value, static under jit. Sources: METHODS in docs/methods.md.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from elenchus.data.records import ROLES, Batch

ATTEMPT = ROLES.index('attempt')


@dataclasses.dataclass(frozen=True)
class Objective:
    """Which surrogate of the policy gradient is minimised.

    surrogate: 'logprob' is w * logp (SFT, self-training, REINFORCE); 'clip' is PPO's
    min(rho w, clip(rho) w) (GRPO, DAPO, GSPO); 'cispo' is stop_gradient(clip(rho)) * w * logp;
    'dpo' is log sigmoid(margin) of pairs: segments 1 and 2 of a row, 3 and 4, ..., each the
    preferred response and the other one.
    """

    surrogate: Literal['logprob', 'clip', 'cispo', 'dpo']
    ratio: Literal['token', 'sequence', 'product']  # of a sequence: geometric mean, or product
    on_policy: bool  # old_logp = stop_gradient(logp): rho is 1 and its gradient exact
    clip_low: float  # rho is kept in [1 - clip_low, 1 + clip_high]
    clip_high: float
    average: Literal['token', 'sequence', 'constant', 'pair']  # 'sequence': mean of token means
    constant_length: int  # divisor of a sequence's sum under 'constant' (Dr. GRPO)
    kl: Literal['none', 'k1', 'k2', 'k3']  # 'k1' is for the reward, see train/reinforce.py
    kl_coef: float
    attempt_kl_coef: float  # added to kl_coef on the tokens of attempts (SCoRe, phase 1)
    entropy_coef: float
    beta: float  # of 'dpo'

    def __post_init__(self):
        if self.average == 'constant' and self.constant_length < 1:
            raise ValueError('objective.constant_length must be at least 1 for average=constant')
        if self.surrogate in ('clip', 'cispo') and min(self.clip_low, self.clip_high) <= 0:
            raise ValueError(
                f'objective.surrogate={self.surrogate!r} needs clip_low and clip_high '
                f'above 0, not {self.clip_low} and {self.clip_high}'
            )
        if (self.kl == 'none') != (self.kl_coef == self.attempt_kl_coef == 0):
            raise ValueError(
                f'objective.kl={self.kl!r} with kl_coef={self.kl_coef} and '
                f'attempt_kl_coef={self.attempt_kl_coef}: set kl and a coefficient, or neither'
            )
        if self.kl == 'k1' and self.attempt_kl_coef:
            raise ValueError("objective.attempt_kl_coef is of the loss: take kl='k3', not 'k1'")
        if (self.surrogate == 'dpo') != (self.average == 'pair') or (
            (self.surrogate == 'dpo') != (self.beta > 0)
        ):
            raise ValueError(
                f'objective.surrogate={self.surrogate!r} with average={self.average!r} and '
                f"beta={self.beta}: 'dpo', 'pair' and a beta above 0 go together"
            )

    @property
    def reads_reference(self) -> bool:
        """Whether Batch.ref_logprobs must be those of a reference model."""
        return self.kl != 'none' or self.surrogate == 'dpo'

    @property
    def is_of_weights(self) -> bool:
        """Whether tokens of weight 0 have no gradient: no KL and no entropy in the loss."""
        return self.kl in ('none', 'k1') and not self.entropy_coef and self.surrogate != 'dpo'


SFT = Objective(
    surrogate='logprob',
    ratio='token',
    on_policy=True,
    clip_low=0.0,
    clip_high=0.0,
    average='token',
    constant_length=0,
    kl='none',
    kl_coef=0.0,
    attempt_kl_coef=0.0,
    entropy_coef=0.0,
    beta=0.0,
)
"""Token cross-entropy, each token times its weight."""

REINFORCE = dataclasses.replace(SFT, average='constant', constant_length=1)
"""The plain policy gradient, sequences summed; with advantages 'rloo' it is RLOO on-policy."""

GRPO = dataclasses.replace(
    SFT, surrogate='clip', on_policy=False, clip_low=0.2, clip_high=0.2, average='sequence'
)
"""arXiv 2402.03300; take advantages 'grpo', and kl='k3' for its reference."""

DAPO = dataclasses.replace(GRPO, clip_high=0.28, average='token')
"""arXiv 2503.14476; its refill and overlong penalty are fields of reinforce."""

GSPO = dataclasses.replace(GRPO, ratio='sequence', clip_low=3e-4, clip_high=4e-4)
"""arXiv 2507.18071, clipping as in its section 5.1."""

CISPO = dataclasses.replace(DAPO, surrogate='cispo', clip_low=1.0, clip_high=4.0)
"""arXiv 2506.13585: no lower bound; the upper one, 5, is that of arXiv 2510.13786."""

RLOO = dataclasses.replace(GRPO, ratio='product')
"""arXiv 2402.14740 with a clipped ratio of whole sequences; take advantages 'rloo'."""


def dr_grpo(max_length: int) -> Objective:
    """arXiv 2503.20783; `max_length` of a response in tokens; take advantages 'dr_grpo'."""
    return dataclasses.replace(GRPO, average='constant', constant_length=max_length)


def dpo(beta: float) -> Objective:
    """arXiv 2305.18290. Step-DPO (2406.18629) is the same with only the step's tokens trained."""
    return dataclasses.replace(SFT, surrogate='dpo', average='pair', beta=beta)


class Sums(NamedTuple):
    """What a part of a batch adds to the whole: `total / weight` is the loss.

    All fields but `maxima` are added over microbatches and devices and divided once, so the loss
    does not depend on how a batch was split. `metrics` are {name: sum over loss tokens}: divide
    by `tokens`. `maxima` are {name: maximum over loss tokens} of what is never below 0.
    """

    total: jax.Array
    weight: jax.Array
    tokens: jax.Array
    metrics: dict[str, jax.Array]
    maxima: dict[str, jax.Array]


def sequence_sum(values: jax.Array, segments: jax.Array) -> jax.Array:
    """Sum of values [B, T] over each token's own sequence, at every token. Padding gives 0."""

    def of_row(values, segments):
        sums = jax.ops.segment_sum(values, segments, num_segments=values.shape[0] + 1)
        return jnp.where(segments > 0, sums[segments], 0.0)

    return jax.vmap(of_row)(values, segments)


def loss(objective: Objective, batch: Batch, logprobs: jax.Array, entropy: jax.Array) -> Sums:
    """Sums of a batch; logprobs and entropy [B, T] of the model trained."""
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
    ratio = _ratio(o, logprobs - old, batch.segments, length)
    clipped = jnp.clip(ratio, 1 - o.clip_low, 1 + o.clip_high)
    scale, weight = _average(o, mask, length, batch.segments)
    sums = {}
    if o.surrogate == 'logprob':
        gain = weights * logprobs
    elif o.surrogate == 'clip':
        gain = jnp.minimum(ratio * weights, clipped * weights)
    elif o.surrogate == 'cispo':
        gain = jax.lax.stop_gradient(clipped) * weights * logprobs
    else:
        gain, margin = _preference(o, mask, weights, logprobs, ref, batch.segments)
        sums |= {'loss/margin': margin, 'loss/preferred': margin > 0}
    kl = _kl(o.kl, ref - logprobs)
    kl_coef = o.kl_coef + o.attempt_kl_coef * (batch.roles == ATTEMPT)
    in_loss = 0.0 if o.kl == 'k1' else kl_coef * kl
    bonus = o.entropy_coef * entropy if o.entropy_coef else 0.0
    total = jnp.sum((-gain + in_loss - bonus) * mask * scale)
    sums |= {
        'loss/nll': -logprobs,
        'loss/entropy': entropy,
        'loss/kl': kl,
        'loss/ratio': ratio,
        'loss/clipped_low': (ratio < 1 - o.clip_low) & (weights < 0),
        'loss/clipped_high': (ratio > 1 + o.clip_high) & (weights > 0),
        'loss/weight': weights,
    }
    metrics = {name: jnp.sum(x * mask) for name, x in sums.items()}
    metrics['loss/excluded'] = jnp.sum(excluded, dtype='float32')
    maxima = {'loss/ratio_max': jnp.max(jnp.where(mask > 0, ratio, 0.0))}
    return Sums(total, weight, batch.loss_mask.sum(), metrics, maxima)


def with_gap(sums: Sums, batch: Batch, logprobs: jax.Array) -> Sums:
    """And the distance of logprobs [B, T] from the batch's old ones, over its loss tokens."""
    known = (batch.loss_mask > 0) & jnp.isfinite(logprobs)
    gaps = jnp.where(known, jnp.abs(logprobs - batch.old_logprobs), 0.0)
    gaps = jax.lax.stop_gradient(gaps)
    return sums._replace(
        metrics=sums.metrics | {'sampler/gap': jnp.sum(gaps * batch.loss_mask)},
        maxima=sums.maxima | {'sampler/gap_max': jnp.max(gaps)},
    )


def _ratio(objective: Objective, log_ratio, segments, length) -> jax.Array:
    """rho [B, T] over tokens or, the same at all tokens of a sequence, over sequences."""
    if objective.ratio == 'sequence':
        log_ratio = sequence_sum(log_ratio, segments) / length
    elif objective.ratio == 'product':
        log_ratio = sequence_sum(log_ratio, segments)
    return jnp.exp(log_ratio)


def _average(objective: Objective, mask, length, segments):
    """(scale of each token, weight to divide by)."""
    if objective.average == 'token':
        return jnp.ones_like(mask), mask.sum()
    if objective.average == 'pair':
        complete = _complete_pairs(mask, segments)
        in_pair = jnp.maximum(sequence_sum(mask, _pairs(segments)), 1.0)
        return complete.astype(mask.dtype), jnp.sum(mask * complete / in_pair)
    num_sequences = jnp.sum(mask / length)
    if objective.average == 'sequence':
        return 1.0 / length, num_sequences
    return jnp.full_like(mask, 1.0 / objective.constant_length), num_sequences


def _pairs(segments: jax.Array) -> jax.Array:
    """1, 1, 2, 2, ... for segments 1, 2, 3, 4, ...; 0 on padding."""
    return (segments + 1) // 2


def _complete_pairs(mask: jax.Array, segments: jax.Array) -> jax.Array:
    """Whether both sequences of a token's pair have trained tokens."""
    sides = (sequence_sum(mask * (segments % 2 == side), _pairs(segments)) for side in (0, 1))
    first, second = (side > 0 for side in sides)
    return first & second


def _preference(objective: Objective, mask, weights, logprobs, ref, segments):
    """(gain, margin): a pair's gains sum to log sigmoid(margin), and so do their gradients.

    The gradient is that of a weight, +-beta * sigmoid(-margin), on the log-likelihood; only the
    value is made up, and shared among the pair's tokens.
    """
    pairs = _pairs(segments)
    signed = objective.beta * weights * jnp.where(segments % 2 == 1, 1.0, -1.0)
    margin = jax.lax.stop_gradient(sequence_sum(signed * (logprobs - ref) * mask, pairs))
    value = jax.nn.log_sigmoid(margin) / jnp.maximum(sequence_sum(mask, pairs), 1.0)
    pull = signed * jax.nn.sigmoid(-margin) * logprobs
    return value + pull - jax.lax.stop_gradient(pull), margin


def _kl(kind: str, difference: jax.Array) -> jax.Array:
    """Per-token estimate of KL(pi || ref), difference = ref_logp - logp.

    Source: Schulman, "Approximating KL divergence" (2020).
    """
    if kind == 'k1':
        return -difference
    if kind == 'k2':
        return 0.5 * difference**2
    if kind == 'k3':
        return jnp.exp(difference) - difference - 1.0
    return jnp.zeros_like(difference)
