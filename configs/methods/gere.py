"""GeRe with the TM loss: hidden states of a few general texts keep to the side that they were on.

Fine-tuning forgets what it does not see. A small fixed set of general texts is replayed, and each
hidden dimension of theirs is only asked to stay below, between or above two thresholds, where the
old model had it: stricter imitation would leave no room to learn.

Formula: thresholds mean -+ std of a dimension; TM = relu of how far h is outside of its old region,
mean over dimensions that are outside; loss = CE + CE(replayed) + 200 TM.
Source: arXiv 2508.04676; gere/gere_trainer.py of github.com/Qznan/GeRe, 4936fed: weight 100
beside the mean of both CE, of which this is twice.
Differs: the general texts are documents of the base; mean and deviation are of a batch of them,
not of all; the mean over dimensions is of each token; the dynamic weight CE / TM is not here.
"""

import jax
import jax.numpy as jnp

from elenchus.configs import method


def threshold_margin(hidden, before, mask):
    """How far hidden states are outside of the regions that they were in, [B, T]."""
    weights = mask[..., None] / mask.sum()
    mean = (before * weights).sum((0, 1))
    std = jnp.sqrt((jnp.square(before - mean) * weights).sum((0, 1)))
    low, high = mean - std, mean + std
    above, below = jax.nn.relu(hidden - high), jax.nn.relu(low - hidden)
    margin = jnp.where(
        before <= low,
        jax.nn.relu(hidden - low),
        jnp.where(before >= high, jax.nn.relu(high - hidden), above + below),
    )
    return margin.sum(-1) / jnp.maximum((margin > 0).sum(-1), 1)


CHANGES = {
    'actor.replay.num_documents': lambda c: min(1000, c.base.num_documents),
    'actor.replay.hidden': 'elenchus.configs.methods.gere:threshold_margin',
    'actor.replay.hidden_coef': 200.0,
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
