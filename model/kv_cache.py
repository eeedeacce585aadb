"""KV cache for incremental decoding, in the dtype of activations or in int8."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import qwix
from jax.sharding import PartitionSpec as P

from elenchus.model import sharding
from elenchus.model.config import ModelConfig

CacheDtype = Literal['model', 'int8']
"""'model': the dtype of activations. 'int8': one float32 scale per position and head."""

Entries = jax.Array | qwix.QArray
AXES = P('batch', 'kv_heads')
"""Logical axes of a cache's leaves [B, K, S, ...]."""
LayerCache = tuple[Entries, Entries]
"""(keys, values) of one layer, both [B, K, S, H]."""
Position = tuple[jax.Array, jax.Array]
"""(row, position) in a cache, both int32."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Keys and values of past positions; index s of a row is position s.

    Every leaf is [B, K, S, ...]: an int8 entry has values [B, K, S, H] and scales [B, K, S, 1].
    Positions that are not written yet hold arbitrary numbers: masks exclude them.
    """

    # Separate arrays per layer, so that each is updated in place. One stacked array would be copied
    # at every step of a decoding loop.
    layers: tuple[LayerCache, ...]  # L pairs of [B, K, S, H]

    @property
    def dtype(self) -> CacheDtype:
        """Storage of the entries."""
        return layer_dtype(self.layers[0])

    @property
    def length(self) -> int:
        """Number of positions S."""
        return self.layers[0][0].shape[2]


def layer_dtype(layer_cache: LayerCache) -> CacheDtype:
    """Storage of the keys and values of one layer."""
    return 'int8' if isinstance(layer_cache[0], qwix.QArray) else 'model'


def store_entries(entries: jax.Array, dtype: CacheDtype) -> Entries:
    """Converts entries [..., H] to their stored form.

    Int8 maps the largest magnitude over H to 127 (absmax, arXiv 2208.07339).
    """
    if dtype == 'model':
        return entries
    return qwix.quantize(
        entries.astype('float32'),
        'int8',
        channelwise_axes=tuple(range(entries.ndim - 1)),
        # qwix maps the largest magnitude to 127.5, and a negative one then becomes -127 or -128
        # depending on its last digit. This factor makes it 127.
        calibration_method=f'absmax,{127.5 / 127}',
    )


def init_cache(
    config: ModelConfig, *, batch: int, length: int, dtype: CacheDtype = 'model'
) -> KVCache:
    """Returns an empty cache of `batch` rows and `length` positions."""
    if length > config.max_length:
        raise ValueError(f'cache length {length} exceeds model.max_length={config.max_length}')
    shape = (batch, config.num_kv_heads, length, config.head_dim)

    entries = jax.eval_shape(lambda: store_entries(jnp.zeros(shape, config.dtype), dtype))

    def empty(x):
        return sharding.constrain(jnp.zeros(x.shape, x.dtype), ('batch', 'kv_heads', None, None))

    pairs = ((entries, entries) for _ in range(config.num_layers))
    return KVCache(tuple(jax.tree.map(empty, pair) for pair in pairs))


def entry_bytes(config: ModelConfig, dtype: CacheDtype = 'model') -> int:
    """Bytes of the key (or of the value) of one position and head."""
    H = config.head_dim
    return H + 4 if dtype == 'int8' else H * jnp.dtype(config.dtype).itemsize


def cache_bytes(
    config: ModelConfig, *, batch: int, length: int, dtype: CacheDtype = 'model'
) -> int:
    """Bytes of the cache that `init_cache` returns for the same arguments."""
    entries = 2 * config.num_layers * batch * length * config.num_kv_heads
    return entries * entry_bytes(config, dtype)


def write(
    layer_cache: LayerCache, key: jax.Array, value: jax.Array, *, positions: jax.Array
) -> LayerCache:
    """Writes key and value [B, T, K, H] at positions [B, T]; positions past the end are dropped.

    Row by row (`vmap`), so that rows split over a mesh stay where they are.
    """

    @jax.vmap
    def put_row(cached, new, positions):
        return cached.at[:, positions].set(new.swapaxes(0, 1), mode='drop')

    def put(cached, new):
        return put_row(cached, new.astype(cached.dtype), positions)

    dtype = layer_dtype(layer_cache)
    return jax.tree.map(put, layer_cache, (store_entries(key, dtype), store_entries(value, dtype)))


def copy_block(
    cache: KVCache, source: KVCache, *, width: int, destination: Position, origin: Position
) -> KVCache:
    """Copies `width` positions of a row of `source` into a row of `cache`.

    Both starts must leave room for `width` positions. The copy is in place where `cache` is
    donated or carried by a loop.
    """
    (slot, start), (row, first) = destination, origin

    def copy(cached, new):
        sizes = (1, new.shape[1], width, *new.shape[3:])
        block = jax.lax.dynamic_slice(new, (row, 0, first, 0), sizes)
        return jax.lax.dynamic_update_slice(cached, block, (slot, 0, start, 0))

    return jax.tree.map(copy, cache, source)


def insert(cache: KVCache, new: KVCache, *, slots: jax.Array, rows: jax.Array) -> KVCache:
    """Copies row rows[i] of `new`, which may be shorter, into slot slots[i] of `cache`.

    slots and rows [R]. Slots past the end are dropped, so R may be padded to a fixed size.
    """

    def copy(cached, source):
        return cached.at[slots, :, : source.shape[2]].set(source[rows], mode='drop')

    return jax.tree.map(copy, cache, new)
