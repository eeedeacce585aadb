"""Factors of token weights that depend on the loss itself: the slot `reweigh` of an objective."""

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.data.records import Batch
from elenchus.sampling import user_functions
from elenchus.sampling.slots import Slot

FIELD = 'objective.reweigh or fit.reweigh'

REWEIGHTINGS = Slot(
    '(logprobs, entropy, batch) -> [B, T]', {'none': lambda logprobs, entropy, batch: 1.0}
)
"""(log-probabilities [B, T], entropies [B, T], batch) -> factor of each token's weight, [B, T].

The three are masked: 0 on tokens that are not trained. No gradient flows through the factor."""


def reweighed(name: str, batch: Batch, *, logprobs: jax.Array, entropy: jax.Array) -> jax.Array:
    """Returns the batch's weights times the factors of a function of REWEIGHTINGS, [B, T].

    Raises ValueError if the function returns another shape.
    """
    if name == 'none':
        return batch.weights
    function = REWEIGHTINGS.find(name, FIELD)
    returned = function(logprobs, entropy, batch)
    shape = batch.weights.shape
    dtype = getattr(returned, 'dtype', np.dtype(object))
    is_array = jnp.issubdtype(dtype, jnp.number) and returned.shape in ((), shape)
    if not is_array and not isinstance(returned, float | int):
        wanted = f'numbers of shape {list(shape)}, or a single one'
        user_functions.refuse(function, returned, wanted, field=FIELD)
    return batch.weights * jax.lax.stop_gradient(jnp.asarray(returned))


def trained_only(batch: Batch, logprobs: jax.Array, entropy: jax.Array, *, reads_old: bool):
    """Returns (batch, logprobs, entropy, excluded) with 0 on tokens that are not trained.

    reads_old: whether the loss compares with the old log-probabilities.
    """
    # Top-k and similar truncation can exclude a trained token (logp = -inf): it has no gradient,
    # so it is masked and counted in `loss/excluded`. After an update it may be possible again, but
    # has no ratio to what was impossible.
    impossible = jnp.isneginf(logprobs)
    if reads_old:
        impossible |= jnp.isneginf(batch.old_logprobs)
    excluded = (batch.loss_mask > 0) & impossible
    mask = jnp.where(excluded, 0.0, batch.loss_mask)
    # Untrained tokens may hold -inf (truncation) or anything (padding): 0 * inf would be NaN.
    logprobs, entropy, weights, old, ref = (
        jnp.where(mask > 0, x, 0.0)
        for x in (logprobs, entropy, batch.weights, batch.old_logprobs, batch.ref_logprobs)
    )
    fields = {'loss_mask': mask, 'weights': weights, 'old_logprobs': old, 'ref_logprobs': ref}
    return batch._replace(**fields), logprobs, entropy, excluded
