"""Losses of a log-ratio to the reference: log sigmoid of a margin, of a pair or of a sequence.

    margin = sum_t s_t (logp_t - ref_logp_t)

DPO sums over a pair, with s_t positive on the preferred response and negative on the other. A
reward that is learnt from outcomes sums over one sequence, with the sign of its outcome, so that
- log sigmoid(margin) is the cross-entropy of a probability that the answer is right.
"""

import jax
import jax.numpy as jnp

from elenchus.train.policy_ratio import sequence_sum


def pairs_of(segments: jax.Array) -> jax.Array:
    """Number of each token's pair: 1, 1, 2, 2, ... for segments 1, 2, 3, 4, ...; 0 on padding."""
    return (segments + 1) // 2


def complete_pairs(mask: jax.Array, segments: jax.Array) -> jax.Array:
    """True at tokens [B, T] of pairs whose two sequences both have trained tokens."""
    sides = (sequence_sum(mask * (segments % 2 == side), pairs_of(segments)) for side in (0, 1))
    first, second = (side > 0 for side in sides)
    return first & second


def margin_signs(surrogate: str, segments: jax.Array) -> tuple[jax.Array | float, jax.Array]:
    """Returns (sign of each token, number of its margin): of a pair, or of a sequence."""
    if surrogate == 'outcome':
        return 1.0, segments
    return jnp.where(segments % 2 == 1, 1.0, -1.0), pairs_of(segments)


def log_sigmoid_of_margin(
    signed: jax.Array, logprobs: jax.Array, ref: jax.Array, *, mask: jax.Array, groups: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns (gain, margin), [B, T]; the gains of a group of tokens sum to log sigmoid(margin).

    `signed` is s_t, such as beta times a weight. The gradient of log sigmoid(margin) is a plain
    weight on each token's log-probability, s_t sigmoid(-margin); its value is spread evenly over
    the group's tokens.
    """
    margin = jax.lax.stop_gradient(sequence_sum(signed * (logprobs - ref) * mask, groups))
    value = jax.nn.log_sigmoid(margin) / jnp.maximum(sequence_sum(mask, groups), 1.0)
    pull = signed * jax.nn.sigmoid(-margin) * logprobs
    return value + pull - jax.lax.stop_gradient(pull), margin
