"""Loss of a reward that is learnt from outcomes: cross-entropy of right and wrong sequences.

The log-ratio of a sequence to the reference is the logit of its answer being right, so that the
log-ratio of a step is an implicit reward of the step (arXiv 2412.01981).
"""

import jax
import jax.numpy as jnp

from elenchus.data.records import Batch
from elenchus.train.policy_ratio import sequence_sum


def outcome_gains(
    beta: float, batch: Batch, *, logprobs: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns (gains, metrics) of tokens [B, T]; a sequence's gains sum to log sigmoid(margin).

    margin = beta sum_t w_t (logp_t - ref_logp_t); w_t is 1 on right and -1 on wrong sequences. The
    batch's mask and weights, and both log-probabilities, are 0 on tokens that are not trained.
    """
    mask, segments = batch.loss_mask, batch.segments
    scored = beta * batch.weights * (logprobs - batch.ref_logprobs) * mask
    margin = sequence_sum(scored, segments)
    gains = jax.nn.log_sigmoid(margin) / jnp.maximum(sequence_sum(mask, segments), 1.0)
    return gains, {'loss/margin': margin, 'loss/preferred': margin > 0}
