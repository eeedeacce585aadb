"""KVCache: keys and values of past positions, one pair of arrays a layer, or of quantized ones."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import qwix

from elenchus.model import sharding
from elenchus.model.config import ModelConfig

CacheDtype = Literal['model', 'int8']
"""'model' is that of activations; 'int8' has a float32 scale for each position and head."""

Entries = jax.Array | qwix.QArray
Layer = tuple[Entries, Entries]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Slot s of a row holds the key and value of position s; layers are separate arrays.

    Separate arrays let every layer's update happen in place; one stacked array is copied through
    a decoding loop. Whatever stands at positions not yet written is never attended to. Every leaf
    is [B, K, S, ...]: of quantized entries, values [B, K, S, H] and scales [B, K, S, 1].
    """

    layers: tuple[Layer, ...]  # L pairs of [B, K, S, H]

    @property
    def dtype(self) -> CacheDtype:
        return dtype_of(self.layers[0])

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[2]


def dtype_of(layer: Layer) -> CacheDtype:
    """How a layer's keys and values are held."""
    return 'int8' if isinstance(layer[0], qwix.QArray) else 'model'


def stored(entries: jax.Array, dtype: CacheDtype) -> Entries:
    """Entries [..., H] as they are held: in int8, 127 the largest magnitude in H (2208.07339).

    Qwix makes it 127.5, so a negative one is -127 or -128 by the last digit of what it was.
    """
    if dtype == 'model':
        return entries
    return qwix.quantize(
        entries.astype('float32'),
        'int8',
        channelwise_axes=tuple(range(entries.ndim - 1)),
        calibration_method=f'absmax,{127.5 / 127}',
    )


def init_cache(
    config: ModelConfig, *, batch: int, length: int, dtype: CacheDtype = 'model'
) -> KVCache:
    """An empty cache of `batch` rows and `length` positions."""
    if length > config.max_length:
        raise ValueError(f'cache length {length} exceeds model.max_length={config.max_length}')
    shape = (batch, config.num_kv_heads, length, config.head_dim)

    held = jax.eval_shape(lambda: stored(jnp.zeros(shape, config.dtype), dtype))

    def empty(x):
        return sharding.constrain(jnp.zeros(x.shape, x.dtype), ('batch', 'kv_heads', None, None))

    pairs = ((held, held) for _ in range(config.num_layers))
    return KVCache(tuple(jax.tree.map(empty, pair) for pair in pairs))


def entry_bytes(config: ModelConfig, dtype: CacheDtype = 'model') -> int:
    """Bytes of the key, or of the value, of one position and head."""
    H = config.head_dim
    return H + 4 if dtype == 'int8' else H * jnp.dtype(config.dtype).itemsize


def cache_bytes(
    config: ModelConfig, *, batch: int, length: int, dtype: CacheDtype = 'model'
) -> int:
    """Bytes of init_cache of the same arguments."""
    entries = 2 * config.num_layers * batch * length * config.num_kv_heads
    return entries * entry_bytes(config, dtype)


def write(layer_cache: Layer, key: jax.Array, value: jax.Array, positions: jax.Array) -> Layer:
    """Writes key and value [B, T, K, H] at positions [B, T]; positions past the end are dropped."""
    rows = jnp.arange(key.shape[0])[:, None]

    def put(into, new):
        return into.at[rows, :, positions].set(new.astype(into.dtype), mode='drop')

    dtype = dtype_of(layer_cache)
    return jax.tree.map(put, layer_cache, (stored(key, dtype), stored(value, dtype)))


def insert(cache: KVCache, new: KVCache, *, slots: jax.Array, rows: jax.Array) -> KVCache:
    """Copies row rows[i] of `new` (whose length may be shorter) into slot slots[i] of `cache`.

    slots and rows [R]; a slot past the end is dropped, so R may be padded.
    """

    def copy(into, source):
        return into.at[slots, :, : source.shape[2]].set(source[rows], mode='drop')

    return jax.tree.map(copy, cache, new)
