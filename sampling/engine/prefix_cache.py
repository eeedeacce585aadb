"""Prefix cache: keys and values of finished sequences, reused by prompts that start with them.

A refinement's prompt starts with the prompt and the tokens of its attempt; critiques of one
question start with the question. The model then reads only the tokens after the cached prefix.
"""

import bisect
import itertools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from elenchus.model import kv_cache, placement
from elenchus.model.config import ModelConfig
from elenchus.model.kv_cache import CacheDtype, KVCache
from elenchus.model.row_shards import map_row_shards

Tokens = tuple[int, ...]


class PrefixMatch(NamedTuple):
    """The start of a prompt that is in a prefix cache."""

    row: int  # row of the cache
    length: int  # number of tokens; 0 = no match


NO_MATCH = PrefixMatch(0, 0)


class PrefixCache:
    """Keys and values of up to `rows` prefixes of one model, of at most `length` tokens each.

    Evicts the oldest entry first (FIFO). Its content is a function of the calls of `add`, in order,
    so all hosts of a run agree on it. It takes kv_cache.cache_bytes of device memory for a batch of
    `rows` and this length. On a mesh each shard of rows has entries of its own, which only its own
    slots use.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        rows: int,
        length: int,
        dtype: CacheDtype = 'model',
        shards: int = 1,
    ):
        self.cache: KVCache = init_cache(config, batch=rows, length=length, dtype=dtype)
        self._length, self._num_rows = length, rows // shards
        self._entries = [_Entries(rows // shards) for _ in range(shards)]

    def longest_prefix(self, prompt: Tokens, shard: int = 0) -> PrefixMatch:
        """Row within the shard, and length, of the longest prefix of `prompt` cached there."""
        return self._entries[shard].longest_prefix(prompt)

    def add(
        self, cache: KVCache, prefixes: Sequence[Sequence[tuple[int, Tokens]]], *, size: int
    ) -> None:
        """Copies slots of a decode cache: for each shard, pairs (slot of the shard, its tokens).

        Pads the pairs of a shard to `size`, so that calls with fewer of them compile nothing new.
        """
        slots = np.zeros((len(prefixes), size), np.int32)
        rows = np.full((len(prefixes), size), self._num_rows, np.int32)
        for shard, pairs in enumerate(prefixes):
            assert len(pairs) <= size, (len(pairs), size)
            for i, (slot, prefix) in enumerate(pairs):
                slots[shard, i] = slot
                rows[shard, i] = self._entries[shard].assign_row(prefix[: self._length])
            # An entry may be evicted within this call. The last prefix of a row is the listed one,
            # and a scatter with repeated indices has no order: drop the others.
            for i, row in enumerate(rows[shard]):
                if row in rows[shard, i + 1 :]:
                    rows[shard, i] = self._num_rows
        self.cache = copy_slots(self.cache, cache, slots=slots.ravel(), rows=rows.ravel())


class _Entries:
    """Which prefix is in which row of one shard."""

    def __init__(self, num_rows: int):
        self._num_rows = num_rows
        # Sorted, the prefix that shares most with a prompt is next to where the prompt would go.
        self._sorted: list[Tokens] = []
        self._row_of: dict[Tokens, int] = {}  # oldest first: dicts keep the order of insertion

    def longest_prefix(self, prompt: Tokens) -> PrefixMatch:
        """Row and length of the longest cached prefix of `prompt`."""
        at = bisect.bisect_left(self._sorted, prompt)
        neighbours = self._sorted[max(at - 1, 0) : at + 1]
        pairs = ((_common_length(tokens, prompt), tokens) for tokens in neighbours)
        length, tokens = max(pairs, default=(0, ()))
        return PrefixMatch(self._row_of.get(tokens, 0), length)

    def assign_row(self, prefix: Tokens) -> int:
        """Row for a new prefix; num_rows, which is ignored, if a cached one starts with it."""
        if self.longest_prefix(prefix).length == len(prefix):
            return self._num_rows
        row = len(self._row_of)
        if row == self._num_rows:
            oldest = next(iter(self._row_of))
            row = self._row_of.pop(oldest)
            self._sorted.remove(oldest)
        bisect.insort(self._sorted, prefix)
        self._row_of[prefix] = row
        return row


init_cache = placement.pinned_jit(
    kv_cache.init_cache,
    static_argnames=('config', 'batch', 'length', 'dtype'),
    out_axes=kv_cache.AXES,
)


@placement.pinned_jit(
    donate_argnames='prefixes',
    axes={
        'prefixes': kv_cache.AXES,
        'cache': kv_cache.AXES,
        'slots': placement.ROWS,
        'rows': placement.ROWS,
    },
    out_axes=kv_cache.AXES,
)
def copy_slots(prefixes: KVCache, cache: KVCache, *, slots: jax.Array, rows: jax.Array) -> KVCache:
    """Copies slot slots[i] of `cache` into row rows[i] of `prefixes`, up to the rows' length.

    slots and rows [M]; rows >= the number of rows are padding and are ignored. On a mesh they are
    the shards' parts behind each other, and count within a shard.
    """

    def copy(prefixes, cache, pairs):
        start = jax.tree.map(lambda x: x[:, :, : prefixes.length], cache)
        return kv_cache.insert(prefixes, start, slots=pairs['rows'], rows=pairs['slots'])

    return map_row_shards(copy, prefixes, cache, {'rows': rows, 'slots': slots})


def _common_length(one: Tokens, other: Tokens) -> int:
    """Length of the longest common prefix."""
    return sum(1 for _ in itertools.takewhile(bool, map(operator.eq, one, other)))
