"""Factors of token weights that depend on the loss itself: the slot `reweigh` of an objective."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from elenchus.data.records import Batch
from elenchus.sampling.slots import Slot

Reweighting = Callable[[jax.Array, jax.Array, Batch], jax.Array]
"""(log-probabilities [B, T], entropies [B, T], batch) -> factor of each token's weight, [B, T].

The three are masked: 0 on tokens that are not trained. No gradient flows through the factor."""

REWEIGHTINGS = Slot(
    '(logprobs, entropy, batch) -> [B, T]', {'none': lambda logprobs, entropy, batch: 1.0}
)


def reweighed(name: str, batch: Batch, *, logprobs: jax.Array, entropy: jax.Array) -> jax.Array:
    """Returns the batch's weights times the factors of a function of REWEIGHTINGS, [B, T].

    Raises ValueError if the function returns another shape.
    """
    if name == 'none':
        return batch.weights
    factor = jnp.asarray(REWEIGHTINGS[name](logprobs, entropy, batch))
    if factor.shape not in ((), batch.weights.shape):
        raise ValueError(
            f'reweigh={name!r} returned factors of shape {factor.shape} for tokens of shape '
            f'{batch.weights.shape}'
        )
    return batch.weights * jax.lax.stop_gradient(factor)
