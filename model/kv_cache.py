"""KV cache for incremental decoding, in the dtype of activations or in int8."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import qwix
from jax.sharding import PartitionSpec as P

from elenchus.model import platforms, sharding
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
NOWHERE = 2**30
"""A position past the end of every cache: writes to it are dropped."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Keys and values of past positions; position p of a row is at index p.

    Every leaf is [B, K, S, ...]: an int8 entry has values [B, K, S, H] and scales [B, K, S, 1].
    Indices that are not written yet hold arbitrary numbers, which masks exclude.

    If `is_windowed`, layers with a window are ring buffers of the last positions: position p is at
    index p mod S, with S of `layer_lengths`.
    """

    # Separate arrays per layer, so that each is updated in place. One stacked array would be copied
    # at every step of a decoding loop.
    layers: tuple[LayerCache, ...]  # L pairs of [B, K, S, H]
    is_windowed: bool = dataclasses.field(default=False, metadata={'static': True})

    @property
    def dtype(self) -> CacheDtype:
        """How the entries are stored."""
        return layer_dtype(self.layers[0])

    @property
    def length(self) -> int:
        """Number of positions S of the longest layer."""
        return max(self.lengths)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of positions of each layer."""
        return tuple(keys.shape[2] for keys, _ in self.layers)


def layer_dtype(layer_cache: LayerCache) -> CacheDtype:
    """How the keys and values of a layer are stored."""
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
        # qwix maps the largest magnitude to 127.5, so that a negative one becomes -127 or -128,
        # depending on its last bit. This factor makes it 127.
        calibration_method=f'absmax,{127.5 / 127}',
    )


def layer_lengths(config: ModelConfig, length: float, step_tokens: int = 0) -> tuple[float, ...]:
    """Returns the length of each layer of a cache of `length` positions.

    It is `length` if `step_tokens` is 0. Otherwise layers with a window keep at most
    window + step_tokens - 1 positions: a step of `step_tokens` tokens must not overwrite a position
    that its first token still attends to.
    With canonical numerics none is shorter, as a ring would change the order of positions.
    """
    if config.numerics == 'canonical':
        step_tokens = 0
    return tuple(
        min(length, window + step_tokens - 1) if window and step_tokens else length
        for window in config.layer_windows
    )


def init_cache(
    config: ModelConfig,
    *,
    batch: int,
    length: int,
    dtype: CacheDtype = 'model',
    step_tokens: int = 0,
) -> KVCache:
    """Returns an empty cache of `batch` rows and `length` positions.

    `step_tokens`: tokens per row and step, to shorten layers with a window (`layer_lengths`); or 0.
    """
    if length > config.max_length:
        raise ValueError(f'cache length {length} exceeds model.max_length={config.max_length}')

    def empty(x):
        return sharding.constrain(jnp.zeros(x.shape, x.dtype), ('batch', 'kv_heads', None, None))

    def empty_entries(positions):
        shape = (batch, config.num_kv_heads, positions, config.head_dim)
        entries = jax.eval_shape(lambda: store_entries(jnp.zeros(shape, config.dtype), dtype))
        return jax.tree.map(empty, entries)

    lengths = layer_lengths(config, length, step_tokens)
    layers = tuple((empty_entries(n), empty_entries(n)) for n in lengths)
    return KVCache(layers, is_windowed=step_tokens > 0 and config.numerics == 'fast')


def entry_bytes(config: ModelConfig, dtype: CacheDtype = 'model') -> int:
    """Bytes of the key (or of the value) of one position and head."""
    H = config.head_dim
    return H + 4 if dtype == 'int8' else H * jnp.dtype(config.dtype).itemsize


def cache_bytes(
    config: ModelConfig,
    *,
    batch: int,
    length: float,
    dtype: CacheDtype = 'model',
    step_tokens: int = 0,
) -> float:
    """Bytes of the cache of `init_cache` for the same arguments; `length` may be a mean."""
    positions = sum(layer_lengths(config, length, step_tokens))
    return 2 * positions * batch * config.num_kv_heads * entry_bytes(config, dtype)


def write(
    layer_cache: LayerCache, key: jax.Array, value: jax.Array, *, positions: jax.Array
) -> LayerCache:
    """Writes key and value [B, T, K, H] at positions [B, T]; positions past the end are dropped.

    Each row is written by itself (`vmap`), so that rows split over a mesh are not moved.
    """

    @jax.vmap
    def put_row(cached, new, positions):
        return cached.at[:, positions].set(new.swapaxes(0, 1), mode='drop')

    def put(cached, new):
        new = new.astype(cached.dtype)
        is_token = new.shape[1] == 1 and cached.dtype == 'bfloat16'
        if is_token and platforms.target_platform() == 'cpu':
            # XLA for CPU would convert the whole cache to float32 and back around a scatter.
            is_here = positions == jnp.arange(cached.shape[2])
            return jnp.where(is_here[:, None, :, None], new.swapaxes(1, 2), cached)
        return put_row(cached, new, positions)

    dtype = layer_dtype(layer_cache)
    return jax.tree.map(put, layer_cache, (store_entries(key, dtype), store_entries(value, dtype)))


def copy_block(cache, source, *, width: int, destination: Position, origin: Position):
    """Copies `width` positions of a row of `source` into a row of `cache`.

    Both are trees of entries. Both starts must leave room for `width` positions. The copy is in
    place if `cache` is donated or carried by a loop.
    """
    (slot, start), (row, first) = destination, origin

    def copy(cached, new):
        sizes = (1, new.shape[1], width, *new.shape[3:])
        block = jax.lax.dynamic_slice(new, (row, 0, first, 0), sizes)
        return jax.lax.dynamic_update_slice(cached, block, (slot, 0, start, 0))

    return jax.tree.map(copy, cache, source)


def copy_last(cache, source, *, length: jax.Array, slot: jax.Array, origin: Position):
    """Copies the last positions of a row of `source` into the ring buffers of a slot.

    Of positions 0 to `length` - 1, the last S are copied, p to index p mod S. `cache` and `source`
    are trees of entries; `origin` is the (row, index) of position 0 in `source`.
    """
    row, first = origin

    def copy(cached, new):
        S = cached.shape[2]
        positions = stored_positions(length - 1, S)
        of_row = jax.lax.dynamic_slice_in_dim(new, row, 1)
        # Negative positions do not exist: masks exclude the values that are copied for them.
        last = jnp.take(of_row, first + jnp.maximum(positions, 0), axis=2, mode='clip')
        return jax.lax.dynamic_update_slice_in_dim(cached, last, slot, axis=0)

    return jax.tree.map(copy, cache, source)


def as_bits(tree):
    """Copies bfloat16 arrays to uint16 ones with the same bits, on a CPU, before a loop of copies.

    XLA for CPU would convert a whole bfloat16 array to float32 and back for each block that is
    copied. Elsewhere returns the tree as it is; `from_bits` is the inverse.
    """
    return _view(tree, 'bfloat16', 'uint16')


def from_bits(tree):
    """Returns the bfloat16 arrays that `as_bits` was given."""
    return _view(tree, 'uint16', 'bfloat16')


def _view(tree, old: str, new: str):
    if platforms.target_platform() != 'cpu':
        return tree
    view = functools.partial(jax.lax.bitcast_convert_type, new_dtype=new)
    return jax.tree.map(lambda x: view(x) if x.dtype == old else x, tree)


def stored_positions(last: jax.Array, length: int) -> jax.Array:
    """Returns the position at each index of a ring buffer of S = `length` indices: [..., S].

    `last` [...] is the newest position. Positions are negative where nothing is written yet.
    """
    return last[..., None] - (last[..., None] - jnp.arange(length)) % length


def insert(cache: KVCache, new: KVCache, *, slots: jax.Array, rows: jax.Array) -> KVCache:
    """Copies row rows[i] of `new`, which may be shorter, into slot slots[i] of `cache`.

    slots and rows [R]. Slots past the end are dropped, so R may be padded to a fixed size.
    """

    def copy(cached, source):
        return cached.at[slots, :, : source.shape[2]].set(source[rows], mode='drop')

    return jax.tree.map(copy, cache, new)
