"""Prefixes whose keys and values stay on the device, for prompts that begin with them.

A refinement's prompt begins with the attempt's own prompt and tokens, a critique's with a question
that other critiques were asked about as well. Where such a beginning is parked, only the tokens
after it are read.
"""

import bisect
import itertools
import operator
from collections.abc import Sequence

import numpy as np

from elenchus.model.config import ModelConfig
from elenchus.model.kv_cache import CacheDtype, KVCache
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine import decode

Tokens = tuple[int, ...]


class Store:
    """`rows` prefixes of one model, of at most `length` tokens each; the oldest make room.

    On the device it holds cache_bytes of a cache of so many rows and positions. What is in it
    follows from what was parked, in order, so hosts agree on it.
    """

    def __init__(self, config: ModelConfig, *, rows: int, length: int, dtype: CacheDtype = 'model'):
        self.cache: KVCache = decode.init_cache(config, batch=rows, length=length, dtype=dtype)
        self._rows, self._length = rows, length
        self._sorted: list[Tokens] = []  # what is parked, so that neighbours share the most
        self._row: dict[Tokens, int] = {}  # where, the oldest first

    def find(self, prompt: Tokens) -> tuple[int, int]:
        """(row, number of tokens) of the longest beginning of `prompt` that is parked."""
        at = bisect.bisect_left(self._sorted, prompt)
        near = self._sorted[max(at - 1, 0) : at + 1]
        length, tokens = max(((_shared(t, prompt), t) for t in near), default=(0, ()))
        return self._row.get(tokens, 0), length

    def park(self, cache: KVCache, slots: Sequence[int], prefixes: Sequence[Tokens], *, size: int):
        """Keeps the cache of slots[i], which holds prefixes[i]; `size` is the shape of slots."""
        assert len(slots) == len(prefixes) <= size, (len(slots), len(prefixes), size)
        from_slots = np.zeros(size, np.int32)
        from_slots[: len(slots)] = slots
        rows = np.full(size, self._rows, np.int32)
        for i, prefix in enumerate(prefixes):
            rows[i] = self._place(prefix[: self._length])
        # Of prefixes that were given the same row, the last is the one that is listed.
        for i, row in enumerate(rows):
            if row in rows[i + 1 :]:
                rows[i] = self._rows
        self.cache = decode.park(self.cache, cache, slots=from_slots, rows=rows)

    def _place(self, prefix: Tokens) -> int:
        """The row for a prefix; no row where it is parked already, alone or as a beginning."""
        if self.find(prefix)[1] == len(prefix):
            return self._rows
        row = len(self._row)
        if row == self._rows:
            oldest = next(iter(self._row))
            row = self._row.pop(oldest)
            self._sorted.remove(oldest)
        bisect.insort(self._sorted, prefix)
        self._row[prefix] = row
        return row


class Parking:
    """An engine that parks what it finishes, in a store for each model it samples from.

    The stores live as long as this does: what is sampled then depends, in its last digits, on
    nothing that was sampled outside.
    """

    def __init__(self, engine):
        self._engine = engine
        self._stores: dict[int, tuple[Transformer, Store]] = {}

    def generate(self, model: Transformer, requests, **options):
        """As Engine.generate."""
        if id(model) not in self._stores:
            self._stores[id(model)] = (model, self._engine.make_store(model))
        _, store = self._stores[id(model)]
        return self._engine.generate(model, requests, **options, store=store)

    def parking(self) -> 'Parking':
        """The same engine with empty stores."""
        return self._engine.parking()


def _shared(one: Tokens, other: Tokens) -> int:
    return sum(1 for _ in itertools.takewhile(bool, map(operator.eq, one, other)))
