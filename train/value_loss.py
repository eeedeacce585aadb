"""Loss of a value model: squared distance of a token's value from its return, with a clip.

    loss of a token = max((v - R)^2, (v_c - R)^2) / 2,   v_c = old + clip(v - old, -clip, clip)

A value that has moved by more than the clip towards its return has no gradient: the update stays
near the values that the returns were computed from. Source: the released code of PPO (arXiv
1707.06347), openai/baselines `ppo2/model.py`; TRL's PPOTrainer has the same.
"""

import jax
import jax.numpy as jnp

from elenchus.data.records import Batch


def value_gains(
    clip: float, batch: Batch, *, values: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns (gains, metrics) of tokens [B, T]; a gain is minus the loss.

    The batch's weights are the returns, its old log-probabilities the old values. `clip` 0: none.
    """
    returns, old = batch.weights, batch.old_logprobs
    error = jnp.square(values - returns)
    if not clip:
        return -0.5 * error, {'value/clipped': jnp.zeros_like(error)}
    clipped = jnp.square(old + jnp.clip(values - old, -clip, clip) - returns)
    return -0.5 * jnp.maximum(error, clipped), {'value/clipped': clipped > error}
