"""Refill: decides which requests enter which slots, and packs their prompts into rows of a prefill.

This runs on the host and depends only on values that all hosts have. On a mesh each shard of rows
has its own slots. The samples of a prompt go to one shard while it has free slots, and share one
prefill of the prompt.

The cost of a prefill is its rows times their length, padding included. So several prompts are
packed into a row, longest first, and rows are as short as possible; the number of rows is the
largest size that can be filled. If most of a prefill would still be padding, prompts may wait for
others (`EngineSettings.min_prefill_use`).
"""

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from elenchus.sampling.engine.prefill import PrefillBatch, block_width
from elenchus.sampling.engine.prefix_cache import NO_MATCH, PrefixCache, PrefixMatch
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.shapes import EngineSettings, smallest_bucket
from elenchus.sampling.engine.work import Work

MAX_IDLE = 1 / 3
"""Share of the slots that may be free before prompts stop to wait for others."""


MAX_STRETCH = 4
"""Longest rows that a prefill may have, as multiples of the shortest that fit its prompts."""
MIN_GAIN = 1.1
"""Factor by which longer rows must raise the share of prompts in a prefill."""


class Prompt(NamedTuple):
    """A prompt that one shard reads, and the slots of that shard that get it."""

    tokens: tuple[int, ...]
    match: PrefixMatch
    entries: list[tuple[int, Request]]  # (slot, request); slots are numbered over all shards

    @property
    def length(self) -> int:
        """Tokens to read."""
        return len(self.tokens) - self.match.length


Row = list[tuple[int, Prompt]]
"""Prompts of a row with their offsets."""


@dataclasses.dataclass(frozen=True)
class Prefill:
    """One call of `prefill.fill_slots`: the rows of each shard, and their shape."""

    rows: tuple[tuple[Row, ...], ...]  # of each shard; at most num_rows
    num_rows: int  # rows of a shard
    length: int
    has_prefix: bool

    @property
    def prompts(self) -> list[tuple[int, Prompt]]:
        """All prompts with their shards."""
        return [
            (shard, prompt)
            for shard, rows in enumerate(self.rows)
            for row in rows
            for _, prompt in row
        ]

    @property
    def entries(self) -> list[tuple[int, Request]]:
        """All slots with their requests."""
        return [entry for _, prompt in self.prompts for entry in prompt.entries]

    @property
    def positions(self) -> list[int]:
        """Position of each prompt's last token, which the slots of `entries` read next."""
        return [len(request.prompt) - 1 for _, request in self.entries]

    @property
    def use(self) -> float:
        """Share of the prefill's tokens that belong to prompts."""
        return self.work.prompt_tokens / self.work.prefilled

    @property
    def work(self) -> Work:
        """Tokens of prompts, and tokens in all."""
        useful = sum(prompt.length for _, prompt in self.prompts)
        return Work(prompt_tokens=useful, prefilled=len(self.rows) * self.num_rows * self.length)


class Refill:
    """The queue of a call of `generate`, and what enters the slots next."""

    def __init__(self, settings: EngineSettings, shards: int, requests: Sequence[Request]):
        self.settings, self.shards = settings, shards
        self.slots_per_shard = settings.num_slots // shards
        self.queue = collections.deque(requests)

    def next(
        self, running: dict[int, Request], prefix_cache: PrefixCache | None = None
    ) -> list[Prefill]:
        """Takes requests off the queue and returns the prefills that read their prompts.

        `running` has the requests of busy slots; slots are numbered over all shards.
        """
        num_free = self.settings.num_slots - len(running)
        if not self.queue or not num_free:
            return []
        entering = self._assign(running, prefix_cache)
        prefills = list(
            prefills_of(self.settings, entering, shards=self.shards, prefix_cache=prefix_cache)
        )
        may_wait = (
            running
            and len(entering) < len(self.queue)
            and num_free < MAX_IDLE * self.settings.num_slots
        )
        if may_wait:
            prefills = [p for p in prefills if p.use >= self.settings.min_prefill_use]
        ids = {request.id for prefill in prefills for _, request in prefill.entries}
        waiting = [request for request in entering.values() if request.id not in ids]
        for _ in entering:
            self.queue.popleft()
        self.queue.extendleft(reversed(waiting))
        return prefills

    def _assign(
        self, running: dict[int, Request], prefix_cache: PrefixCache | None
    ) -> dict[int, Request]:
        """Free slots of the first requests of the queue; the queue stays as it is."""
        size = self.slots_per_shard
        free = [
            collections.deque(
                s for s in range(shard * size, (shard + 1) * size) if s not in running
            )
            for shard in range(self.shards)
        ]
        entering, shard_of = {}, {}
        for request in self.queue:
            shard = shard_of.get(request.prompt)
            if shard is None or not free[shard]:
                shard = self._choose_shard(request.prompt, free, prefix_cache)
            if not free[shard]:
                break
            shard_of[request.prompt] = shard
            entering[free[shard].popleft()] = request
        return entering

    def _choose_shard(self, prompt, free, prefix_cache: PrefixCache | None) -> int:
        """The shard with the longest cached prefix, or with the most free slots."""

        def order(shard):
            match = match_prefix(self.settings, prompt, prefix_cache, shard=shard)
            return bool(free[shard]), match.length, len(free[shard]), -shard

        return max(range(self.shards), key=order)


def match_prefix(
    settings: EngineSettings,
    prompt: tuple[int, ...],
    prefix_cache: PrefixCache | None,
    *,
    shard: int,
) -> PrefixMatch:
    """Returns the cached prefix of a prompt, if the rest then fits a smaller bucket."""
    if prefix_cache is None:
        return NO_MATCH
    match = prefix_cache.longest_prefix(prompt, shard)
    # At least the last token must be read, as the first sample follows it.
    length = min(match.length, len(prompt) - 1)
    whole = smallest_bucket(settings.prompt_buckets, len(prompt))
    rest = smallest_bucket(settings.prompt_buckets, len(prompt) - length)
    return PrefixMatch(match.row, length) if rest < whole else NO_MATCH


def prefills_of(
    settings: EngineSettings,
    entering: dict[int, Request],
    *,
    shards: int = 1,
    prefix_cache: PrefixCache | None = None,
) -> Iterator[Prefill]:
    """Prefills of requests {slot: request}.

    Prompts with and without a cached prefix are apart, as they run different programs.
    """
    size = settings.num_slots // shards
    prompts: list[dict[tuple[int, ...], Prompt]] = [{} for _ in range(shards)]
    for slot, request in entering.items():
        shard, tokens = slot // size, request.prompt
        if tokens not in prompts[shard]:
            match = match_prefix(settings, tokens, prefix_cache, shard=shard)
            prompts[shard][tokens] = Prompt(tokens, match, [])
        prompts[shard][tokens].entries.append((slot, request))
    for has_prefix in (False, True):
        group = [
            [prompt for prompt in by_tokens.values() if bool(prompt.match.length) == has_prefix]
            for by_tokens in prompts
        ]
        while any(group):
            prefill = _next_prefill(settings, group, has_prefix)
            yield prefill
            used = {id(prompt) for _, prompt in prefill.prompts}
            group = [[p for p in prompts if id(p) not in used] for prompts in group]


def _next_prefill(
    settings: EngineSettings, group: Sequence[Sequence[Prompt]], has_prefix: bool
) -> Prefill:
    """The prefill of the longest prompts of a group (of each shard), and what fits beside them."""
    longest = max(prompt.length for prompts in group for prompt in prompts)
    shortest = smallest_bucket(settings.prompt_buckets, longest)
    lengths = [n for n in settings.prompt_buckets if shortest <= n <= MAX_STRETCH * shortest]
    candidates = [_prefill_of(settings, group, length, has_prefix=has_prefix) for length in lengths]
    best = candidates[0]
    for candidate in candidates[1:]:
        # Attention in longer rows costs more.
        if candidate.use > MIN_GAIN * best.use:
            best = candidate
    return best


def _prefill_of(
    settings: EngineSettings, group: Sequence[Sequence[Prompt]], length: int, *, has_prefix: bool
) -> Prefill:
    """The prefill of the longest prompts of a group in rows of `length` tokens."""
    alone = not is_packed(settings, length, has_prefix)
    rows = [pack_rows(prompts, length, alone=alone) for prompts in group]
    needed = max(map(len, rows))
    sizes = [size // len(group) for size in settings.prefill_batch_sizes]
    num_rows = max((size for size in sizes if size <= needed), default=sizes[0])
    return Prefill(tuple(tuple(r[:num_rows]) for r in rows), num_rows, length, has_prefix)


def is_packed(settings: EngineSettings, length: int, has_prefix: bool) -> bool:
    """Returns whether rows of this length may have several prompts.

    Prompts with a cached prefix, and those that are read in pieces, are alone in their rows.
    """
    return not has_prefix and not 0 < settings.prefill_chunk < length


def pack_rows(prompts: Sequence[Prompt], length: int, *, alone: bool) -> list[Row]:
    """Packs prompts into rows of `length` tokens: first fit, longest first."""
    rows: list[Row] = []
    ends: list[int] = []
    for prompt in sorted(prompts, key=lambda prompt: -prompt.length):
        room = length - max(prompt.length, block_width(length))
        fits = (i for i, end in enumerate(ends) if end <= room and not alone)
        i = next(fits, len(rows))
        if i == len(rows):
            rows.append([])
            ends.append(0)
        rows[i].append((ends[i], prompt))
        ends[i] += prompt.length
    return rows


def to_batch(settings: EngineSettings, prefill: Prefill) -> PrefillBatch:
    """Returns the arrays of a prefill: the concatenation of the shards' parts."""
    shards = len(prefill.rows)
    batch = _empty_batch(settings, prefill, shards)
    size = settings.num_slots // shards
    for shard, rows in enumerate(prefill.rows):
        count = 0
        for r, row in enumerate(rows):
            at = shard * prefill.num_rows + r
            for offset, prompt in row:
                end = offset + prompt.length
                batch.tokens[at, offset:end] = prompt.tokens[prompt.match.length :]
                if batch.starts is not None:
                    # What follows is padding, or overwritten by the next prompt.
                    batch.starts[at, offset:end], batch.starts[at, end:] = offset, end
                batch.prefix_rows[at], batch.prefix_lengths[at] = prompt.match
                for slot, request in prompt.entries:
                    i = shard * size + count
                    batch.rows[i], batch.offsets[i] = r, offset
                    batch.slots[i], batch.requests[i] = slot % size, request.id
                    batch.methods[i], batch.lengths[i] = request.method, len(prompt.tokens)
                    batch.turn_start[i] = len(prompt.tokens) - request.opening
                    batch.stop_at[i] = len(prompt.tokens) + request.max_tokens
                    if batch.prompts is not None:
                        batch.prompts[i, : len(prompt.tokens)] = prompt.tokens
                    count += 1
        batch.count[shard] = count
    return batch


def by_shard(
    slots: Sequence[int], shape: tuple[int, int], *, per_shard: int, fill: int
) -> np.ndarray:
    """Slots as numbers within their shards [shards * size], the shards' parts padded with `fill`.

    `shape` is (shards, size); slots are numbered over all shards, `per_shard` in each.
    """
    result, counts = np.full(shape, fill, np.int32), collections.Counter()
    for slot in slots:
        shard, local = divmod(slot, per_shard)
        result[shard, counts[shard]] = local
        counts[shard] += 1
    return result.ravel()


def _empty_batch(settings: EngineSettings, prefill: Prefill, shards: int) -> PrefillBatch:
    """A batch of padding only."""
    R, M, P = shards * prefill.num_rows, settings.num_slots, prefill.length
    zeros = lambda *shape: np.zeros(shape, np.int32)  # noqa: E731
    packed = is_packed(settings, P, prefill.has_prefix)
    return PrefillBatch(
        tokens=zeros(R, P),
        starts=zeros(R, P) if packed else None,
        count=zeros(shards),
        rows=zeros(M),
        offsets=zeros(M),
        lengths=np.ones(M, np.int32),
        slots=np.full(M, M // shards, np.int32),
        requests=zeros(M),
        methods=zeros(M),
        turn_start=zeros(M),
        stop_at=zeros(M),
        prompts=zeros(M, settings.prompt_buckets[-1]) if settings.draft_tokens else None,
        prefix_rows=zeros(R),
        prefix_lengths=zeros(R),
    )
