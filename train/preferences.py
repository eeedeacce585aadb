"""Losses of pairs of responses, a chosen and a rejected one: DPO, IPO, KTO, ORPO and SimPO.

Segments 1 and 2 of a row are the chosen and the rejected response of a pair, so are 3 and 4, ...
With the score of a response

    s = sum_t w_t (logp_t - ref_logp_t),  divided by its trained tokens where "mean" is said,

and D = s_chosen - s_rejected, the loss of a pair is

    dpo    - log sigmoid(beta D - gamma)                                       arXiv 2305.18290
    ipo    (D - 1 / (2 beta))^2, mean                                          arXiv 2310.12036
    kto    [d (1 - sigmoid(beta s_chosen)) + u (1 - sigmoid(- beta s_rejected))] / 2   2402.01306
    orpo   - beta log sigmoid(log odds(chosen) - log odds(rejected)), mean     arXiv 2403.07691
    simpo  - log sigmoid(beta D - gamma), mean                                 arXiv 2405.14734

plus `nll_coef` times the mean negative log-likelihood of the tokens of chosen responses. 'orpo' and
'simpo' use no reference: ref_logp is 0. A shift of ref_logp at one token shifts the score: this is
how an offset of the margin (train/pairs.py) and KTO's z0, the mean log-ratio of other responses,
enter.
"""

import dataclasses
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from elenchus.data.records import Batch
from elenchus.model.ranges import Coefficient, Range, checked
from elenchus.train.policy_ratio import sequence_sum

PairKind = Literal['dpo', 'ipo', 'kto', 'orpo', 'simpo']
PositiveScale = Annotated[float, Range(1e-6, 1e6)]


@dataclasses.dataclass(frozen=True)
@checked('prefer.loss')
class PairLoss:
    """The loss of a pair; hashable, static under jit."""

    kind: PairKind
    beta: PositiveScale  # scale of scores; of 'orpo' the weight of the odds ratio
    gamma: Coefficient  # margin that is wanted, of 'dpo' and 'simpo'
    nll_coef: Coefficient  # weight of the mean NLL of the tokens of chosen responses
    desirable: Coefficient  # weight of chosen responses, of 'kto'
    undesirable: Coefficient  # weight of rejected responses, of 'kto'

    def __post_init__(self):
        if self.gamma and self.kind not in ('dpo', 'simpo'):
            raise ValueError(
                f"prefer.loss.gamma={self.gamma} is read by kind='dpo' and 'simpo', not by "
                f'{self.kind!r}; nearest: 0.0'
            )
        for name in ('desirable', 'undesirable'):
            if getattr(self, name) != 1.0 and self.kind != 'kto':
                raise ValueError(
                    f"prefer.loss.{name}={getattr(self, name)} is read by kind='kto', not by "
                    f'{self.kind!r}; nearest: 1.0'
                )

    @property
    def reads_reference(self) -> bool:
        """True if ref_logprobs must hold log-probabilities of a reference model."""
        return self.kind in ('dpo', 'ipo', 'kto')

    @property
    def is_mean(self) -> bool:
        """True if a score is divided by the number of trained tokens of its response."""
        return self.kind in ('ipo', 'orpo', 'simpo')

    @property
    def takes_offsets(self) -> bool:
        """True if the margin of a pair may have an offset of its own."""
        return self.kind in ('dpo', 'ipo')


PUBLISHED: dict[str, dict[str, float]] = {
    'dpo': {'beta': 0.1},
    'ipo': {'beta': 0.1},
    'kto': {'beta': 0.1},
    'orpo': {'beta': 0.1, 'nll_coef': 1.0},
    'simpo': {'beta': 2.0, 'gamma': 1.0},
}
"""Kind -> its constants; the others are 0, KTO's two weights 1."""


def published(kind: PairKind, **constants: float) -> PairLoss:
    """Returns a loss with its published constants, of which some may be changed."""
    others = {'gamma': 0.0, 'nll_coef': 0.0, 'desirable': 1.0, 'undesirable': 1.0}
    return PairLoss(kind, **others | PUBLISHED[kind] | constants)


@dataclasses.dataclass(frozen=True)
class PairLossSettings:
    """A loss of pairs in a config: its kind, and its constants (None: the published ones)."""

    kind: PairKind
    beta: PositiveScale | None
    gamma: Coefficient | None
    nll_coef: Coefficient | None
    desirable: Coefficient | None
    undesirable: Coefficient | None

    def resolve(self) -> PairLoss:
        """Returns the loss. Raises ValueError for a constant that its kind does not read."""
        changed = {n: value for n, value in dataclasses.asdict(self).items() if value is not None}
        return published(**changed)


class PairTotals(NamedTuple):
    """Counts of a whole batch, by which the terms of its microbatches are scaled."""

    pairs: jax.Array  # whole pairs
    chosen: jax.Array  # trained tokens of their chosen responses
    tokens: jax.Array  # trained tokens of all


class PairGains(NamedTuple):
    """Gains and metrics of the tokens of a batch [B, T]."""

    gains: jax.Array  # those of a pair sum to its negative loss
    metrics: dict[str, jax.Array]  # their means over the loss tokens are means over pairs


def pair_numbers(segments: jax.Array) -> jax.Array:
    """Number of each token's pair: 1, 1, 2, 2, ... for segments 1, 2, 3, 4, ...; 0 on padding."""
    return (segments + 1) // 2


def complete_pairs(mask: jax.Array, segments: jax.Array) -> jax.Array:
    """True at tokens [B, T] of pairs whose two sequences both have trained tokens."""
    pairs = pair_numbers(segments)
    sides = (sequence_sum(mask * (segments % 2 == side), pairs) for side in (0, 1))
    first, second = (side > 0 for side in sides)
    return first & second


def num_pairs(mask: jax.Array, segments: jax.Array) -> jax.Array:
    """Number of whole pairs of a batch."""
    in_pair = jnp.maximum(sequence_sum(mask, pair_numbers(segments)), 1.0)
    return jnp.sum(mask * complete_pairs(mask, segments) / in_pair)


def pair_totals(batch: Batch) -> PairTotals:
    """Returns the counts of a batch."""
    mask, segments = batch.loss_mask, batch.segments
    is_chosen = complete_pairs(mask, segments) & (segments % 2 == 1)
    return PairTotals(num_pairs(mask, segments), jnp.sum(mask * is_chosen), jnp.sum(mask))


def pair_gains(
    loss: PairLoss, batch: Batch, *, logprobs: jax.Array, totals: PairTotals
) -> PairGains:
    """Returns gains and metrics of log-probabilities [B, T].

    They, and the batch's floats, are 0 on tokens that are not trained.
    """
    mask, segments = batch.loss_mask, batch.segments
    pairs, is_chosen = pair_numbers(segments), segments % 2 == 1
    length = jnp.maximum(sequence_sum(mask, segments), 1.0)
    ref = batch.ref_logprobs if loss.reads_reference else 0.0
    scored = batch.weights * (logprobs - ref) * mask
    scored = scored / length if loss.is_mean else scored
    chosen, rejected = (sequence_sum(scored * side, pairs) for side in (is_chosen, ~is_chosen))
    in_pair = jnp.maximum(sequence_sum(mask, pairs), 1.0)
    num_pairs, num_chosen = jnp.maximum(totals.pairs, 1e-8), jnp.maximum(totals.chosen, 1.0)
    # Divided by the number of pairs in the end, this is a mean over the chosen tokens.
    likelihood = loss.nll_coef * is_chosen * logprobs * (num_pairs / num_chosen)
    gains = likelihood - _pair_loss(loss, chosen, rejected) / in_pair
    margin = loss.beta * (chosen - rejected) - loss.gamma
    total = lambda side: sequence_sum(logprobs * mask * side, pairs)  # noqa: E731
    values = {
        'loss/margin': margin,
        'loss/preferred': margin + loss.gamma > 0,
        'loss/chosen': total(is_chosen),
        'loss/rejected': total(~is_chosen),
        'reward/chosen': loss.beta * chosen,
        'reward/rejected': loss.beta * rejected,
    }
    share = complete_pairs(mask, segments) * (totals.tokens / num_pairs) / in_pair
    metrics = {name: jax.lax.stop_gradient(x * share) for name, x in values.items()}
    return PairGains(gains, metrics)


def _pair_loss(loss: PairLoss, chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """The loss of the scores of both responses."""
    if loss.kind == 'ipo':
        return (chosen - rejected - 1 / (2 * loss.beta)) ** 2
    if loss.kind == 'kto':
        gained = loss.desirable * jax.nn.sigmoid(-loss.beta * chosen)
        return 0.5 * (gained + loss.undesirable * jax.nn.sigmoid(loss.beta * rejected))
    if loss.kind == 'orpo':
        odds = _log_odds(chosen) - _log_odds(rejected)
        return -loss.beta * jax.nn.log_sigmoid(odds)
    return -jax.nn.log_sigmoid(loss.beta * (chosen - rejected) - loss.gamma)


def _log_odds(logprob: jax.Array) -> jax.Array:
    """log(p / (1 - p)); p is kept below 1, where the odds are infinite."""
    logprob = jnp.minimum(logprob, -1e-6)
    is_small = logprob < -0.693  # each of the two forms is exact where the other one cancels
    small, large = jnp.where(is_small, logprob, -1.0), jnp.where(is_small, -1.0, logprob)
    rest = jnp.where(is_small, jnp.log1p(-jnp.exp(small)), jnp.log(-jnp.expm1(large)))
    return logprob - rest
