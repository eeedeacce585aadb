"""Loss of every training method: a surrogate of the policy gradient plus KL and entropy terms.

    loss = - sum_t m_t f(rho_t, w_t) / norm  +  kl_coef * KL  -  entropy_coef * H

where `w_t` is the weight or advantage of token t (Batch.weights), `m_t` its loss mask and
`rho_t = exp(logp_t - old_logp_t)`. An Objective says which f, which form of rho and which average
over tokens; it is frozen and hashable, so static under jit. docs/methods.md: "The objective".
"""

import dataclasses
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from elenchus.data.records import ROLES, Batch
from elenchus.model.ranges import Coefficient, NonNegativeInt, Share, SignedCoefficient, checked
from elenchus.train.loss_weights import REWEIGHTINGS, reweighed, trained_only
from elenchus.train.outcome_loss import outcome_gains
from elenchus.train.policy_ratio import (
    KLKind,
    RatioKind,
    importance_ratio,
    kl_penalty,
    ratio_metrics,
    sequence_sum,
)
from elenchus.train.preferences import (
    PairLoss,
    PairTotals,
    complete_pairs,
    num_pairs,
    pair_gains,
    pair_totals,
)
from elenchus.train.value_loss import value_gains

ATTEMPT = ROLES.index('attempt')


@dataclasses.dataclass(frozen=True)
@checked('reinforce.objective')
class Objective:
    """Surrogate, importance ratio, average, KL and entropy terms of a loss; hashable.

    `surrogate` is the gain f of a token:
      'logprob'  w * logp                              SFT, self-training, REINFORCE
      'clip'     min(rho * w, clip(rho) * w)           PPO, GRPO, DAPO, GSPO
      'cispo'    stop_gradient(clip(rho)) * w * logp   CISPO
      'pair'     minus the loss of a pair              DPO and its relatives (train/preferences.py)
      'outcome'  log sigmoid(margin) of a sequence     implicit rewards (train/outcome_loss.py)
      'value'    minus the squared error of a value    value models (train/value_loss.py)

    Presets are in this module; variants are made with dataclasses.replace:

    >>> dapo_with_kl = dataclasses.replace(DAPO, kl='k3', kl_coef=0.01)
    >>> dapo_with_kl.reads_reference, dapo_with_kl.ignores_zero_weight_tokens
    (True, False)
    >>> dr_grpo(max_length=512).constant_length
    512
    """

    surrogate: Literal['logprob', 'clip', 'cispo', 'pair', 'outcome', 'value']
    ratio: RatioKind  # rho of a token; geometric mean; product
    on_policy: bool  # old_logp = stop_gradient(logp): rho is 1 and its gradient exact
    clip_low: Share  # rho is clipped to [1 - clip_low, 1 + clip_high]
    clip_high: Coefficient  # above clip_low: "clip higher" of DAPO; of 'value' a value's clip
    average: Literal['token', 'sequence', 'constant', 'pair']  # 'sequence': mean of token means
    constant_length: NonNegativeInt  # divisor of a sequence's sum, of 'constant' (Dr. GRPO)
    kl: KLKind  # 'k1' is subtracted from the reward (rl/update_batch)
    kl_coef: Coefficient  # 0 = off
    attempt_kl_coef: Coefficient  # added to kl_coef on the tokens of attempts (SCoRe, stage I)
    entropy_coef: SignedCoefficient  # weight of the entropy bonus; 0 = off
    pairs: PairLoss | None  # the loss of a pair, of the surrogate 'pair'
    beta: Coefficient  # scale of the margin of the surrogate 'outcome'; 0 for others
    reweigh: Annotated[str, REWEIGHTINGS]  # factor of a token's weight, from the loss

    def __post_init__(self):
        if self.average == 'constant' and self.constant_length < 1:
            raise ValueError('reinforce.objective.constant_length=0 must be at least 1; nearest: 1')
        if self.surrogate in ('clip', 'cispo') and min(self.clip_low, self.clip_high) <= 0:
            raise ValueError(
                f'reinforce.objective.surrogate={self.surrogate!r} needs clip_low and clip_high '
                f'above 0, not {self.clip_low} and {self.clip_high}'
            )
        if (self.kl == 'none') != (self.kl_coef == self.attempt_kl_coef == 0):
            raise ValueError(
                f'reinforce.objective.kl={self.kl!r} with kl_coef={self.kl_coef} and '
                f'attempt_kl_coef={self.attempt_kl_coef}: set kl and a coefficient, or neither'
            )
        if self.kl == 'k1' and self.attempt_kl_coef:
            raise ValueError("reinforce.objective.attempt_kl_coef is part of the loss: use kl='k2'")
        is_paired = self.surrogate == 'pair'
        if (self.surrogate == 'outcome') != (self.beta > 0):
            raise ValueError(
                f'reinforce.objective.surrogate={self.surrogate!r} with beta={self.beta}: '
                "'outcome' and a beta above 0 go together"
            )
        if is_paired != (self.average == 'pair') or is_paired != (self.pairs is not None):
            raise ValueError(
                f'reinforce.objective.surrogate={self.surrogate!r} with average={self.average!r} '
                f"and pairs={self.pairs}: surrogate='pair', average='pair' and a loss of pairs go "
                'together'
            )

    @property
    def has_ratio(self) -> bool:
        """True if the loss reads a ratio to the policy that sampled."""
        return self.surrogate in ('clip', 'cispo') and not self.on_policy

    @property
    def reads_reference(self) -> bool:
        """True if Batch.ref_logprobs must hold log-probabilities of a reference model."""
        of_pairs = bool(self.pairs and self.pairs.reads_reference)
        return self.kl != 'none' or of_pairs or self.surrogate == 'outcome'

    @property
    def ignores_zero_weight_tokens(self) -> bool:
        """True if tokens of weight 0 cannot affect the gradient (no KL, no entropy, no pairs)."""
        of_tokens = self.surrogate not in ('pair', 'outcome', 'value')
        return self.kl in ('none', 'k1') and not self.entropy_coef and of_tokens


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
    pairs=None,
    beta=0.0,
    reweigh='none',
)
"""Weighted cross-entropy: - sum_t w_t logp_t / (number of trained tokens)."""

REINFORCE = dataclasses.replace(SFT, average='constant', constant_length=1)
"""Policy gradient: - mean over sequences of sum_t A_t logp_t (Williams 1992)."""

GRPO = dataclasses.replace(
    SFT, surrogate='clip', on_policy=False, clip_low=0.2, clip_high=0.2, average='sequence'
)
"""- mean_i mean_t min(rho_t A, clip(rho_t, 1 +- 0.2) A), arXiv 2402.03300.

Use it with the advantages 'grpo'; kl='k3' is the paper's, with the gradient of KL(ref || pi)."""

DAPO = dataclasses.replace(GRPO, clip_high=0.28, average='token')
"""GRPO with clip(rho_t, 0.8, 1.28) and the mean over all tokens, arXiv 2503.14476.

Its dynamic sampling and overlong penalty are reinforce.refill_rounds and .overlong_tokens."""

GSPO = dataclasses.replace(GRPO, ratio='sequence', clip_low=3e-4, clip_high=4e-4)
"""GRPO with rho of a sequence, exp(mean_t(logp_t - old_logp_t)), arXiv 2507.18071.

The clipping range is that of its section 5.1."""

CISPO = dataclasses.replace(DAPO, surrogate='cispo', clip_low=1.0, clip_high=4.0)
"""- mean_t stop_gradient(min(rho_t, 5)) A_t logp_t, arXiv 2506.13585.

clip_low=1 means no lower bound; the upper bound 5 is from arXiv 2510.13786."""

RLOO = dataclasses.replace(GRPO, ratio='product')
"""GRPO with rho of a sequence, exp(sum_t(logp_t - old_logp_t)), as RLOO (arXiv 2402.14740).

Use it with the advantages 'rloo'. On-policy RLOO is REINFORCE with them."""


def dr_grpo(max_length: int) -> Objective:
    """GRPO with sum_t / max_length instead of mean_t: no length bias, arXiv 2503.20783.

    max_length: tokens of the longest response. Use it with the advantages 'dr_grpo'.
    """
    return dataclasses.replace(GRPO, average='constant', constant_length=max_length)


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings:
    """An objective in a config: a preset, and overrides of single fields (None: the preset's)."""

    preset: Literal['sft', 'reinforce', 'grpo', 'dr_grpo', 'rloo', 'dapo', 'gspo', 'cispo']
    surrogate: Literal['logprob', 'clip', 'cispo'] | None
    ratio: RatioKind | None
    on_policy: bool | None
    clip_low: Share | None
    clip_high: Coefficient | None
    average: Literal['token', 'sequence', 'constant'] | None
    constant_length: NonNegativeInt | None
    kl: KLKind | None
    kl_coef: Coefficient | None
    entropy_coef: SignedCoefficient | None
    reweigh: Annotated[str, REWEIGHTINGS] | None

    def resolve(self) -> Objective:
        """Returns the preset with the overrides. Raises ValueError if they do not go together."""
        overrides = {n: value for n, value in dataclasses.asdict(self).items() if value is not None}
        preset = overrides.pop('preset')
        if preset == 'dr_grpo':
            if not self.constant_length:
                raise ValueError(
                    "reinforce.objective.preset='dr_grpo' needs objective.constant_length: "
                    'set it to the longest response, such as sampling.attempt_tokens'
                )
            return dataclasses.replace(dr_grpo(self.constant_length), **overrides)
        return dataclasses.replace(PRESETS[preset], **overrides)


PRESETS = {
    'sft': SFT,
    'reinforce': REINFORCE,
    'grpo': GRPO,
    'rloo': RLOO,
    'dapo': DAPO,
    'gspo': GSPO,
    'cispo': CISPO,
}
"""Name in a config -> objective; 'dr_grpo' is made by `dr_grpo`."""


def of_pairs(pairs: PairLoss) -> Objective:
    """- mean over pairs of the loss of a pair.

    Step-DPO (arXiv 2406.18629) is DPO with a loss mask on the step's tokens only.
    """
    return dataclasses.replace(SFT, surrogate='pair', average='pair', pairs=pairs)


def outcome(beta: float) -> Objective:
    """Cross-entropy of sigmoid(beta sum_t (logp_t - ref_logp_t)), the probability of being right.

    The weight is 1 on right and -1 on wrong sequences. Implicit rewards, arXiv 2412.01981.
    """
    return dataclasses.replace(REINFORCE, surrogate='outcome', beta=beta)


def value(clip: float) -> Objective:
    """Half of the squared error (value - weight)^2, a mean over tokens; clip 0: no clip."""
    return dataclasses.replace(SFT, surrogate='value', clip_high=clip)


class Sums(NamedTuple):
    """Sums over a part of a batch; `total / weight` is the loss.

    All fields except `maxima` are added over microbatches and devices, and divided only then, so
    the loss does not depend on how a batch is split.
    """

    total: jax.Array  # scalar: sum of the token losses, scaled by `average`
    weight: jax.Array  # scalar: divisor of the loss
    tokens: jax.Array  # scalar: loss tokens; divisor of the metrics
    metrics: dict[str, jax.Array]  # name -> sum over loss tokens
    maxima: dict[str, jax.Array]  # name -> maximum over loss tokens of a value that is never < 0


def batch_totals(objective: Objective, batch: Batch) -> PairTotals | None:
    """Returns the totals of a batch that `loss` needs for a part of it; None if it needs none."""
    return pair_totals(batch) if objective.pairs else None


def loss(
    objective: Objective,
    batch: Batch,
    *,
    logprobs: jax.Array,
    entropy: jax.Array,
    totals: PairTotals | None = None,
) -> Sums:
    """Returns the sums of a batch; logprobs and entropy [B, T] are those of the trained model.

    `totals`: of the whole batch, if this one is a part (`batch_totals`); None if it is whole.
    """
    o, num_tokens = objective, batch.loss_mask.sum()
    of_trained = trained_only(batch, logprobs, entropy, reads_old=o.has_ratio)
    batch, logprobs, entropy, excluded = of_trained
    batch = batch._replace(weights=reweighed(o.reweigh, batch, logprobs=logprobs, entropy=entropy))
    mask, ref, weights = batch.loss_mask, batch.ref_logprobs, batch.weights
    old = jax.lax.stop_gradient(logprobs) if o.on_policy else batch.old_logprobs
    length = jnp.maximum(sequence_sum(mask, batch.segments), 1.0)
    ratio, ratio_clamped = importance_ratio(
        o.ratio, logprobs - old, segments=batch.segments, length=length
    )
    scale, weight = _average(o, mask, segments=batch.segments, length=length)
    gain, of_sequences = _gain(o, logprobs, weights, ratio=ratio), {}
    if o.pairs:
        totals = totals or pair_totals(batch)
        gain, of_sequences = pair_gains(o.pairs, batch, logprobs=logprobs, totals=totals)
    elif o.surrogate == 'outcome':
        gain, of_sequences = outcome_gains(o.beta, batch, logprobs=logprobs)
    elif o.surrogate == 'value':
        gain, of_sequences = value_gains(o.clip_high, batch, values=logprobs)
    kl, kl_clamped = kl_penalty(o.kl, ref - logprobs)
    kl_coef = o.kl_coef + o.attempt_kl_coef * (batch.roles == ATTEMPT)
    # k1 is only measured here: in a loss its expected gradient is zero, so it goes off the reward.
    kl_term = 0.0 if o.kl == 'k1' else kl_coef * kl
    bonus = o.entropy_coef * entropy if o.entropy_coef else 0.0
    total = jnp.sum((-gain + kl_term - bonus) * mask * scale)
    sums = {
        'loss/nll': -logprobs,
        'loss/entropy': entropy,
        'loss/kl': kl,
        'loss/kl_clamped': kl_clamped,
        'loss/ratio_clamped': ratio_clamped,
        **ratio_metrics(ratio, weights, low=1 - o.clip_low, high=1 + o.clip_high),
        **of_sequences,
    }
    metrics = {name: jnp.sum(x * mask) for name, x in sums.items()}
    metrics['loss/excluded'] = jnp.sum(excluded, dtype='float32')
    maxima = {'loss/ratio_max': jnp.max(jnp.where(mask > 0, ratio, 0.0))}
    return Sums(total, weight, num_tokens, metrics, maxima)


def _gain(objective: Objective, logprobs, weights, *, ratio) -> jax.Array:
    """The surrogate f of each token [B, T]: 'logprob', 'clip' or 'cispo'."""
    if objective.surrogate == 'logprob':
        return weights * logprobs
    clipped = jnp.clip(ratio, 1 - objective.clip_low, 1 + objective.clip_high)
    if objective.surrogate == 'clip':
        return jnp.minimum(ratio * weights, clipped * weights)
    return jax.lax.stop_gradient(clipped) * weights * logprobs


def _average(objective: Objective, mask, *, segments, length):
    """Returns (scale of each token [B, T], divisor of the sum)."""
    if objective.average == 'token':
        return jnp.ones_like(mask), mask.sum()
    if objective.average == 'pair':
        return complete_pairs(mask, segments).astype(mask.dtype), num_pairs(mask, segments)
    num_sequences = jnp.sum(mask / length)
    if objective.average == 'sequence':
        return 1.0 / length, num_sequences
    return jnp.full_like(mask, 1.0 / objective.constant_length), num_sequences
