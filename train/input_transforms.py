"""Input transforms: the tokens a model reads in place of those it predicts; the slot `read`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from elenchus.data.records import Batch
from elenchus.sampling import user_functions
from elenchus.sampling.slots import Slot

Reading = Callable[[Batch, jax.Array, jax.Array], jax.Array]
"""(batch, random key of the step, share of the steps taken) -> tokens that are read, [B, T]."""

READINGS = Slot(
    '(batch, key, progress) -> [B, T]', {'same': lambda batch, key, progress: batch.tokens}
)


def make_reader(name: str, *, seed: int, num_steps: int):
    """Returns (batch, steps taken) -> tokens [B, T] of a function of READINGS; None for 'same'.

    The noise depends on the seed and the step alone. Raises ValueError if the function returns
    anything but whole numbers in the shape of the batch.
    """
    if name == 'same':
        return None

    def read(batch: Batch, step: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), step)
        function = READINGS.find(name, 'fit.read')
        tokens = function(batch, key, step / max(1, num_steps))
        is_integer = jnp.issubdtype(getattr(tokens, 'dtype', object), jnp.integer)
        if not is_integer or tokens.shape != batch.tokens.shape:
            wanted = f'token ids, whole numbers of shape {list(batch.tokens.shape)}'
            user_functions.refuse(function, tokens, wanted, field='fit.read')
        # Nothing is predicted from padding, and positions before a sequence have no tokens.
        return jnp.where(batch.segments > 0, tokens, batch.tokens).astype(batch.tokens.dtype)

    return read
