"""FunReason's multiscale loss: reasoning and result weigh alike, whatever their lengths.

The reasoning before a function call is long, the call short: in a mean over tokens the call hardly
counts. The loss is the sum of two means, one over each part.

Formula: L = (1 - b) mean NLL of the reasoning + b mean NLL of the result, in each example.
Source: arXiv 2505.20192; its ratio was not found, b = 1/2 is ours.
Differs: the result is the last line of a turn, the answer; an example keeps its number of tokens as
its weight among others; no refinement of data.
"""

import jax
import jax.numpy as jnp

from elenchus.configs import method

RESULT = 0.5


def balanced(logprobs, entropy, batch):
    """Factors whose sum in an example is its number of tokens, RESULT of it on the last line."""

    def of_row(segments, steps, mask):
        size = len(mask) + 1
        total = lambda x: jax.ops.segment_sum(x, segments, num_segments=size)[segments]  # noqa: E731
        steps = jnp.where(mask > 0, steps, 0)
        last = jax.ops.segment_max(steps, segments, num_segments=size)[segments]
        result = mask * (steps == last)
        parts = ((RESULT, result), (1 - RESULT, mask - result))
        shares = sum(b * part / jnp.maximum(total(part), 1) for b, part in parts)
        there = sum(b * (total(part) > 0) for b, part in parts)
        return total(mask) * shares / jnp.maximum(there, 1e-6)

    return jax.vmap(of_row)(batch.segments, batch.steps, batch.loss_mask)


CHANGES = {'actor.fit.reweigh': 'elenchus.configs.methods.fun_reason:balanced'}
get_config = method.of(CHANGES, stages=method.EVALUATE)
