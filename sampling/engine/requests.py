"""What sampling is asked for, what it gives back, and the shapes it runs in."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from elenchus.model.kv_cache import CacheDtype
from elenchus.sampling.engine.prompt_lookup import Lookup


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt to be continued by at most `max_tokens` tokens.

    The id, below 2 ** 31, selects the noise: the same id and seed repeat the same sample.
    """

    id: int
    prompt: tuple[int, ...]
    max_tokens: int

    def __post_init__(self):
        if not 0 <= self.id < 2**31:
            raise ValueError(f'request id {self.id} must be in [0, 2**31)')
        if not self.prompt or self.max_tokens < 1:
            raise ValueError(
                f'request {self.id}: {len(self.prompt)} prompt tokens and '
                f'max_tokens={self.max_tokens} must both be at least 1'
            )


@dataclasses.dataclass(frozen=True)
class Completion:
    """What was sampled for a request; `finished` says that it ends with a stop id.

    Each of its `steps` through the model made a token, and with drafts more of them.
    """

    id: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool
    steps: int


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """The shapes of sampling; each tuple is ascending, and every combination a compilation."""

    num_slots: int  # sequences decoded at once
    max_length: int  # prompt and completion together
    chunk_steps: int  # passes of the model before the host looks again
    prompt_buckets: tuple[int, ...]  # lengths that prompts are padded to
    insert_rows: tuple[int, ...]  # numbers of different prompts read at once
    compact_slots: tuple[int, ...]  # fewer slots to decode where the rest are empty; () is off
    compact_lengths: tuple[int, ...]  # shorter caches to attend to while they hold all; () is off
    parked_rows: int = 0  # finished sequences of each model whose caches are kept; 0 is off
    parked_length: int = 0  # their first positions that are kept
    draft_tokens: int = 0  # guessed tokens that a pass verifies (sampling/drafts.py); 0 is off
    draft_ngram: int = 0  # last tokens that are looked for, for a guess of what follows
    cache_dtype: CacheDtype = 'model'  # how keys and values are held
    quantize: Literal['none', 'int8'] = 'none'  # how the matrices of the blocks are read
    prefill_chunk: int = 0  # positions of a longer prompt that are read at once; 0 is all

    def __post_init__(self):
        for name, limit in (
            ('prompt_buckets', self.max_length),
            ('insert_rows', self.num_slots),
            ('compact_slots', self.num_slots - 1),
            ('compact_lengths', self.max_length - 1),
        ):
            sizes = getattr(self, name)
            if tuple(sorted(set(sizes))) != sizes or not all(0 < n <= limit for n in sizes):
                raise ValueError(f'sampling.{name}={sizes} must ascend within [1, {limit}]')
        for name in ('num_slots', 'max_length', 'chunk_steps'):
            if getattr(self, name) < 1:
                raise ValueError(f'sampling.{name}={getattr(self, name)} must be at least 1')
        for name in ('prompt_buckets', 'insert_rows'):
            if not getattr(self, name):
                raise ValueError(f'sampling.{name} is empty: it needs at least one size')
        if self.parked_rows < 0 or not bool(self.parked_rows) <= self.parked_length <= (
            self.max_length - 1 if self.parked_rows else 0
        ):
            raise ValueError(
                f'sampling.parked_rows={self.parked_rows} and parked_length={self.parked_length} '
                f'must both be 0, or at least 1 and the length at most {self.max_length - 1}'
            )
        if self.draft_tokens < 0 or not bool(self.draft_tokens) <= self.draft_ngram <= (
            self.max_length - 1 if self.draft_tokens else 0
        ):
            raise ValueError(
                f'sampling.draft_tokens={self.draft_tokens} and draft_ngram={self.draft_ngram} '
                f'must both be 0, or at least 1 and the n-gram at most {self.max_length - 1}'
            )
        self._check_prefill_chunk()

    def _check_prefill_chunk(self) -> None:
        chunk, buckets = self.prefill_chunk, self.prompt_buckets

        def divides(size):
            return size == 0 or all(bucket <= size or bucket % size == 0 for bucket in buckets)

        if chunk < 0 or not divides(chunk):
            nearest = min(filter(divides, range(buckets[-1])), key=lambda size: abs(size - chunk))
            raise ValueError(
                f'sampling.prefill_chunk={chunk} must divide all of prompt_buckets={buckets} that '
                f'are longer; nearest: {nearest}'
            )

    @property
    def lookup(self) -> Lookup:
        """How drafts are made."""
        return Lookup(self.draft_tokens, self.draft_ngram)

    @property
    def slot_sizes(self) -> tuple[int, ...]:
        """Numbers of slots that decoding runs at."""
        return (*self.compact_slots, self.num_slots)

    @property
    def length_sizes(self) -> tuple[int, ...]:
        """Cache lengths that decoding runs at."""
        return (*self.compact_lengths, self.max_length)


def holding(sizes: Sequence[int], needed: int) -> int:
    """The smallest of ascending sizes that holds what is needed; the last holds everything."""
    return next(size for size in sizes if size >= needed)
