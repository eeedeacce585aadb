"""Settings of the sampling engine: the array shapes that it pads requests to.

XLA compiles one program per combination of shapes. All shapes come from EngineSettings, so the set
of programs is known before sampling starts, and `Engine.warm_up` can compile all of them.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from elenchus.model.kv_cache import CacheDtype
from elenchus.model.ranges import Length, PositiveInt, Range, Share, checked
from elenchus.sampling.engine.prompt_lookup import PromptLookup
from elenchus.sampling.engine.reflection import Reflection

Slots = Annotated[int, Range(1, 1 << 20)]  # sequences at once
SwitchedLength = Annotated[int, Range(1, 1 << 22, off=0)]
DraftLength = Annotated[int, Range(1, 256, off=0)]  # its loop is unrolled
TokenId = Annotated[int, Range(0, (1 << 24) - 1)]


@dataclasses.dataclass(frozen=True)
@checked('sampling.engine')
class EngineSettings:
    """Shapes and options of an Engine.

    Tuples hold sizes in ascending order; the engine pads to the smallest one that fits. Raises
    ValueError if a size is out of range.
    """

    num_slots: Slots  # sequences decoded at the same time
    max_length: Length  # positions per slot: prompt and completion together
    chunk_steps: PositiveInt  # forward passes before the host checks which slots are done
    prompt_buckets: tuple[Length, ...]  # lengths that prompts are padded to
    prefill_batch_sizes: tuple[Slots, ...]  # rows read in one prefill, of one or several prompts
    decode_batch_sizes: tuple[Slots, ...]  # sizes below num_slots, for few busy slots; () = off
    decode_cache_lengths: tuple[Length, ...]  # lengths below max_length to attend to; () = off
    # Finished sequences kept per model as prefixes; 0 = off.
    prefix_cache_rows: Annotated[int, Range(1, 1 << 20, off=0)] = 0
    prefix_cache_length: SwitchedLength = 0  # positions kept of each of them, from the first on
    draft_tokens: DraftLength = 0  # tokens drafted per forward pass by prompt lookup; 0 = off
    draft_ngram: DraftLength = 0  # last tokens that prompt lookup tries to match
    # Stands before a draft that is read again: a text, of which `encoded` makes ids.
    reflection: str | tuple[TokenId, ...] = ''
    reflection_weight: Share = 0.0  # of the logits behind it; 0 = off
    cache_dtype: CacheDtype = 'model'  # of stored keys and values: as activations, or int8
    quantize: Literal['none', 'int8'] = 'none'  # matrices of the blocks, while sampling
    prefill_chunk: SwitchedLength = 0  # positions per forward pass of a prefill; 0 = all at once
    min_prefill_use: Share = 0.0  # least share of prompts in a prefill, or they wait; 0 = no wait
    # Devices that split the sampler's heads, MLPs and vocabulary; 0 = the mesh's 'tensor'.
    tensor_shards: Annotated[int, Range(1, 1 << 20, off=0)] = 0
    dtype: Literal['model', 'float32', 'bfloat16'] = 'model'  # of the sampler's activations
    # Programs compiled at once, all of them before the first sample; 0 = each when it is needed.
    compile_threads: Annotated[int, Range(1, 256, off=0)] = 0

    def __post_init__(self):
        for name, limit in (
            ('prompt_buckets', self.max_length),
            ('prefill_batch_sizes', self.num_slots),
            ('decode_batch_sizes', self.num_slots - 1),
            ('decode_cache_lengths', self.max_length - 1),
        ):
            sizes = getattr(self, name)
            if tuple(sorted(set(sizes))) != sizes or not all(0 < n <= limit for n in sizes):
                raise ValueError(
                    f'sampling.engine.{name}={sizes} must be ascending sizes in [1, {limit}]'
                )
        for name in ('prompt_buckets', 'prefill_batch_sizes'):
            if not getattr(self, name):
                raise ValueError(f'sampling.engine.{name}=() needs at least one size')
        self._check_pair('prefix_cache_rows', 'prefix_cache_length')
        self._check_pair('draft_tokens', 'draft_ngram')
        self._check_reflection()
        self._check_prefill_chunk()

    def check_shards(self, shards: int) -> None:
        """Checks that every shard of rows gets the same number of slots and rows.

        Raises ValueError, naming the field and the nearest size, if a size does not divide. Every
        device would otherwise compute the whole.
        """
        for name in ('num_slots', 'prefill_batch_sizes', 'decode_batch_sizes', 'prefix_cache_rows'):
            check_divides(f'sampling.engine.{name}', getattr(self, name), shards)

    def _check_pair(self, count_name: str, length_name: str) -> None:
        """Checks that an option is off in both fields, or on in both."""
        count, length = getattr(self, count_name), getattr(self, length_name)
        if count == length == 0:
            return
        if count < 1 or not 1 <= length < self.max_length:
            raise ValueError(
                f'sampling.engine.{count_name}={count} and {length_name}={length} must both be 0 '
                f'(off), or both at least 1 with {length_name} at most {self.max_length - 1}'
            )

    def _check_reflection(self) -> None:
        """Checks that there are drafts to read again, and a text to read before."""
        if not self.reflection_weight:
            return
        weight = f'sampling.engine.reflection_weight={self.reflection_weight}'
        if not self.draft_tokens:
            raise ValueError(
                f'{weight} reads drafts again, and sampling.engine.draft_tokens=0 drafts none; '
                'nearest: draft_tokens=1, or reflection_weight=0.0'
            )
        if not self.reflection:
            raise ValueError(
                f'{weight} needs the text before a draft is read again: set '
                'sampling.engine.reflection; nearest: reflection_weight=0.0'
            )
        length = 1 if isinstance(self.reflection, str) else len(self.reflection)
        least = 2 * self.draft_tokens + length + 1
        if self.max_length < least:
            raise ValueError(
                f'{weight}: sampling.engine.max_length={self.max_length} has no room for two '
                f'drafts of draft_tokens={self.draft_tokens} and the reflection; nearest: {least}'
            )

    def _check_prefill_chunk(self) -> None:
        """Checks that longer buckets are whole numbers of chunks: all chunks have one shape."""
        chunk, buckets = self.prefill_chunk, self.prompt_buckets

        def divides(size):
            return size == 0 or all(bucket <= size or bucket % size == 0 for bucket in buckets)

        if not divides(chunk):
            # A chunk below the longest bucket divides it.
            small = range(1, math.isqrt(buckets[-1]) + 1)
            sizes = {d for n in small if not buckets[-1] % n for d in (n, buckets[-1] // n)}
            nearest = min(filter(divides, sizes), key=lambda size: abs(size - chunk))
            raise ValueError(
                f'sampling.engine.prefill_chunk={chunk} must divide every longer bucket of '
                f'prompt_buckets={buckets}; nearest: {nearest}'
            )

    @property
    def slot_shapes(self) -> dict[str, int | str]:
        """Arguments of `decode.init_state`."""
        return {
            'batch': self.num_slots,
            'length': self.max_length,
            'dtype': self.cache_dtype,
            'step_tokens': self.step_tokens,
        }

    @property
    def step_tokens(self) -> int:
        """Tokens of a slot that a decode step reads, which bounds the cache of windowed layers.

        0 keeps all positions, as a prefix cache needs: prompts start from parts of sequences.
        """
        return 0 if self.prefix_cache_rows else self.lookup.num_read

    @property
    def lookup(self) -> PromptLookup:
        """The drafting method of these settings. Raises ValueError for a text without ids."""
        if not self.reflection_weight:
            return PromptLookup(self.draft_tokens, self.draft_ngram)
        if isinstance(self.reflection, str):
            raise ValueError(
                f'sampling.engine.reflection={self.reflection!r} is a text, of which `encoded` '
                'makes ids of tokens'
            )
        return Reflection(
            self.draft_tokens, self.draft_ngram, self.reflection, self.reflection_weight
        )

    def encoded(self, encode: Callable[[str], Sequence[int]]) -> 'EngineSettings':
        """Returns these settings with the reflection as token ids, if it is used and a text."""
        if not self.reflection_weight or not isinstance(self.reflection, str):
            return self
        return dataclasses.replace(self, reflection=tuple(encode(self.reflection)))

    @property
    def sequence_length(self) -> int:
        """Most tokens of a prompt and its completion together."""
        return self.max_length - self.lookup.room

    @property
    def decode_batch_buckets(self) -> tuple[int, ...]:
        """All numbers of slots that a decode chunk may run on, num_slots included."""
        return (*self.decode_batch_sizes, self.num_slots)

    @property
    def decode_length_buckets(self) -> tuple[int, ...]:
        """All cache lengths that a decode chunk may attend to, max_length included."""
        return (*self.decode_cache_lengths, self.max_length)


def check_divides(name: str, sizes: int | tuple[int, ...], shards: int) -> None:
    """Raises ValueError, naming the nearest size, if `shards` does not divide the sizes."""
    for size in (sizes,) if isinstance(sizes, int) else sizes:
        if size % shards:
            nearest = max(1, round(size / shards)) * shards
            raise ValueError(
                f'{name}={sizes}: {size} does not divide over the {shards} shards of rows of the '
                f'mesh; nearest: {nearest}'
            )


def smallest_bucket(buckets: Sequence[int], size: int) -> int:
    """Smallest of ascending `buckets` that is at least `size`; the last one must be."""
    return next(bucket for bucket in buckets if bucket >= size)
