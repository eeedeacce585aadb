"""KVCache: keys and values of past positions, one pair of arrays a layer."""

import dataclasses

import jax
import jax.numpy as jnp

from model import sharding
from model.config import ModelConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Slot s of a row holds the key and value of position s; layers are separate arrays.

    Separate arrays let every layer's update happen in place; one stacked array is copied through
    a decoding loop. Whatever stands at positions not yet written is never attended to.
    """

    layers: tuple[tuple[jax.Array, jax.Array], ...]  # L pairs of [B, K, S, H]


def init_cache(config: ModelConfig, *, batch: int, length: int) -> KVCache:
    """An empty cache of `batch` rows and `length` positions."""
    if length > config.max_length:
        raise ValueError(f'cache length {length} exceeds model.max_length={config.max_length}')
    shape = (batch, config.num_kv_heads, length, config.head_dim)

    def empty():
        return sharding.constrain(jnp.zeros(shape, config.dtype), ('batch', 'kv_heads', None, None))

    return KVCache(tuple((empty(), empty()) for _ in range(config.num_layers)))


def cache_bytes(config: ModelConfig, *, batch: int, length: int) -> int:
    """Bytes of init_cache(config, batch=batch, length=length)."""
    element = jnp.dtype(config.dtype).itemsize
    return 2 * config.num_layers * batch * length * config.num_kv_heads * config.head_dim * element


def write(layer_cache, key: jax.Array, value: jax.Array, positions: jax.Array):
    """Writes key and value [B, T, K, H] at positions [B, T]; positions past the end are dropped."""
    rows = jnp.arange(key.shape[0])[:, None]
    keys, values = layer_cache
    return (
        keys.at[rows, :, positions].set(key.astype(keys.dtype), mode='drop'),
        values.at[rows, :, positions].set(value.astype(values.dtype), mode='drop'),
    )


def insert(cache: KVCache, new: KVCache, *, slots: jax.Array, rows: jax.Array) -> KVCache:
    """Copies row rows[i] of `new` (whose length may be shorter) into slot slots[i] of `cache`.

    slots and rows [R]; a slot past the end is dropped, so R may be padded.
    """

    def copy(into, source):
        return into.at[slots, :, : source.shape[2]].set(source[rows], mode='drop')

    return jax.tree.map(copy, cache, new)
