"""Parameters of stacked layers: loads and reads one layer or expert at a time, on their devices.

The host never holds more than a layer of a parameter, and a device never holds a second copy.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from elenchus.model.huggingface import Tensor, stored_weights


def load_parameter(
    leaf: jax.ShapeDtypeStruct,
    tensors: Sequence[Tensor],
    stored: stored_weights.StoredWeights,
) -> jax.Array:
    """Loads a parameter onto its devices, one tensor at a time.

    Raises ValueError, naming the tensor, if a value is NaN or infinite in the parameter's dtype.
    """

    def read(tensor: Tensor) -> np.ndarray:
        """The tensor in our layout and dtype."""
        with np.errstate(over='ignore'):  # an overflow is an infinity, which is refused
            values = stored.read(tensor.name).astype(leaf.dtype, copy=False)
        if not stored_weights.is_finite(values):
            place = stored.tensors[tensor.name]
            raise ValueError(
                f'{place.path}: {place.name} has values that are NaN or infinite in {leaf.dtype}'
            )
        return tensor.to_parameter(values)

    if not tensors[0].index:
        return jax.device_put(read(tensors[0]), leaf.sharding)
    part_sharding = _part_sharding(leaf, len(tensors[0].index))
    # Donation writes each part in place: a second copy of the stack would not fit.
    put = jax.jit(_put, donate_argnums=0, out_shardings=leaf.sharding)
    stacked = jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)
    for tensor in tensors:
        stacked = put(stacked, jax.device_put(read(tensor), part_sharding), tensor.index)
    return stacked


def _put(stacked: jax.Array, values: jax.Array, index: tuple[jax.Array, ...]) -> jax.Array:
    return stacked.at[index].set(values)


def take_part(stacked: jax.Array, index: tuple[int, ...]) -> jax.Array:
    """Returns one layer of a stacked parameter, or an expert of one, sharded as the stack is."""
    return _take_part(_part_sharding(stacked, len(index)))(stacked, index)


@functools.cache
def _take_part(part_sharding: NamedSharding):
    return jax.jit(lambda stacked, index: stacked[index], out_shardings=part_sharding)


def _part_sharding(leaf: jax.Array | jax.ShapeDtypeStruct, depth: int) -> NamedSharding:
    return NamedSharding(leaf.sharding.mesh, jax.P(*leaf.sharding.spec[depth:]))
