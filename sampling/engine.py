"""Requests in, completions out: the host's part of sampling.

Between chunks of decoding, finished slots are emptied and waiting requests put in. Requests with
the same prompt that go in together share its prefill. All shapes come from EngineSettings, so that
after `warm_up` nothing compiles. The schedule follows from replicated flags: hosts agree on it.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

from model.transformer import Transformer
from sampling import decode
from sampling.methods import Method


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
    """What was sampled for a request; `finished` says that it ends with a stop id."""

    id: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """The shapes of sampling; each tuple is ascending, and every combination a compilation."""

    num_slots: int  # sequences decoded at once
    max_length: int  # prompt and completion together
    chunk_steps: int  # tokens a slot may get before the host looks again
    prompt_buckets: tuple[int, ...]  # lengths that prompts are padded to
    insert_rows: tuple[int, ...]  # numbers of different prompts read at once
    compact_slots: tuple[int, ...]  # fewer slots to decode where the rest are empty; () is off
    compact_lengths: tuple[int, ...]  # shorter caches to attend to while they hold all; () is off

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

    @property
    def slot_sizes(self) -> tuple[int, ...]:
        """Numbers of slots that decoding runs at."""
        return (*self.compact_slots, self.num_slots)

    @property
    def length_sizes(self) -> tuple[int, ...]:
        """Cache lengths that decoding runs at."""
        return (*self.compact_lengths, self.max_length)


class Engine:
    """Samples from a model, many requests at once; a completion ends with one of `stop_ids`."""

    def __init__(self, settings: EngineSettings, *, stop_ids: tuple[int, ...]):
        self.settings = settings
        self.stop_ids = stop_ids

    def generate(
        self,
        model: Transformer,
        requests: Sequence[Request],
        *,
        method: Method,
        seed: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """Completions in the order of `requests`; `on_completion` sees each as it is done.

        Raises ValueError where a request does not fit, two have the same id, or the seed is
        outside [0, 2 ** 32).
        """
        self._check(requests)
        if not 0 <= seed < 2**32:
            raise ValueError(f'seed={seed} must be in [0, 2**32)')
        settings, noise = self.settings, np.uint32(seed)
        queue, completions = collections.deque(requests), {}
        running: dict[int, Request] = {}
        state = decode.init_state(
            model.config, batch=settings.num_slots, length=settings.max_length
        )
        position = np.zeros(settings.num_slots, np.int32)
        while queue or running:
            free = [slot for slot in range(settings.num_slots) if slot not in running]
            entering = {slot: queue.popleft() for slot in free[: len(queue)]}
            for group in self._groups(entering):
                state = self._insert(model, state, group)
            running |= entering
            for slot, request in entering.items():
                position[slot] = len(request.prompt) - 1
            state, flags = self._decode(model, state, running, position, method, noise)
            position, done = np.array(flags)
            for completion in self._collect(state, running, position, done):
                completions[completion.id] = completion
                if on_completion is not None:
                    on_completion(completion)
        return [completions[request.id] for request in requests]

    def warm_up(self, model: Transformer, *, method: Method) -> None:
        """Compiles every shape that `generate` can run with this model and method."""
        settings, seed = self.settings, np.uint32(0)
        state = decode.init_state(
            model.config, batch=settings.num_slots, length=settings.max_length
        )
        for length in settings.prompt_buckets:
            for rows in settings.insert_rows:
                for slots in {rows, settings.num_slots}:
                    empty = _Insertion.empty(rows, length, slots, nowhere=settings.num_slots)
                    state = decode.insert(model, state, **vars(empty))
        for length in settings.length_sizes:
            for size in settings.slot_sizes:
                state, _ = self._run(model, state, (), size, length, method, seed)
        decode.generated(state, np.zeros(settings.insert_rows[-1], np.int32))

    def _check(self, requests: Sequence[Request]) -> None:
        settings = self.settings
        counts = collections.Counter(request.id for request in requests)
        for request in requests:
            length, bucket = len(request.prompt), settings.prompt_buckets[-1]
            if counts[request.id] > 1:
                raise ValueError(f'request id {request.id} is given {counts[request.id]} times')
            if length > bucket:
                raise ValueError(
                    f'request {request.id}: a prompt of {length} tokens exceeds the longest of '
                    f'sampling.prompt_buckets, {bucket}'
                )
            if length + request.max_tokens > settings.max_length:
                raise ValueError(
                    f'request {request.id}: {length} prompt tokens and max_tokens='
                    f'{request.max_tokens} exceed sampling.max_length={settings.max_length}; '
                    f'nearest max_tokens: {settings.max_length - length}'
                )

    def _groups(self, entering: dict[int, Request]) -> Iterator[dict[int, Request]]:
        """Splits {slot: request} so that each group has no more prompts than rows."""
        group, prompts = {}, set()
        for slot, request in entering.items():
            if request.prompt not in prompts and len(prompts) == self.settings.insert_rows[-1]:
                yield group
                group, prompts = {}, set()
            group[slot] = request
            prompts.add(request.prompt)
        if group:
            yield group

    def _insert(self, model, state, group: dict[int, Request]) -> decode.DecodeState:
        """Puts requests into their slots, reading each different prompt once."""
        settings = self.settings
        prompts = list(dict.fromkeys(request.prompt for request in group.values()))
        rows = _holding(settings.insert_rows, len(prompts))
        length = _holding(settings.prompt_buckets, max(map(len, prompts)))
        slots = rows if len(group) <= rows else settings.num_slots
        arrays = _Insertion.empty(rows, length, slots, nowhere=settings.num_slots)
        for row, prompt in enumerate(prompts):
            arrays.prompts[row, : len(prompt)] = prompt
            arrays.lengths[row] = len(prompt)
        for i, (slot, request) in enumerate(group.items()):
            arrays.rows[i] = prompts.index(request.prompt)
            arrays.slots[i], arrays.requests[i] = slot, request.id
            arrays.stop_at[i] = len(request.prompt) + request.max_tokens
        return decode.insert(model, state, **vars(arrays))

    def _decode(self, model, state, running: dict[int, Request], position, method, seed):
        """One chunk, at the smallest shape that holds all that is running."""
        reach = max(
            min(
                position[slot] + self.settings.chunk_steps,
                len(request.prompt) + request.max_tokens - 1,
            )
            for slot, request in running.items()
        )
        size = _holding(self.settings.slot_sizes, len(running))
        length = _holding(self.settings.length_sizes, reach)
        return self._run(model, state, running, size, length, method, seed)

    def _run(self, model, state, running: Iterable[int], size, length, method, seed):
        slots = None
        if size < self.settings.num_slots:
            slots = np.full(size, self.settings.num_slots, np.int32)
            slots[: len(running)] = sorted(running)
        return decode.decode_chunk(
            model,
            state,
            slots,
            method=method,
            seed=seed,
            num_steps=self.settings.chunk_steps,
            stop_ids=self.stop_ids,
            length=length,
        )

    def _collect(self, state, running: dict[int, Request], position, done):
        """Takes finished requests out of their slots."""
        finished = [slot for slot in running if done[slot]]
        size = self.settings.insert_rows[-1]
        for start in range(0, len(finished), size):
            some = finished[start : start + size]
            slots = np.zeros(size, np.int32)
            slots[: len(some)] = some
            tokens, logprobs = jax.device_get(decode.generated(state, slots))
            for i, slot in enumerate(some):
                request = running.pop(slot)
                made = slice(len(request.prompt), position[slot] + 1)
                ids = tuple(tokens[i, made].tolist())
                ended = ids[-1] in self.stop_ids
                yield Completion(request.id, ids, tuple(logprobs[i, made].tolist()), ended)


class Metered:
    """An engine that adds up the tokens it samples, in `tokens`."""

    def __init__(self, engine: Engine):
        self.tokens = 0
        self._engine = engine

    def generate(self, model: Transformer, requests: Sequence[Request], **options):
        """As Engine.generate."""
        completions = self._engine.generate(model, requests, **options)
        self.tokens += sum(len(completion.tokens) for completion in completions)
        return completions


@dataclasses.dataclass(frozen=True)
class _Insertion:
    """The arrays of decode.insert; see there."""

    prompts: np.ndarray
    lengths: np.ndarray
    rows: np.ndarray
    slots: np.ndarray
    requests: np.ndarray
    stop_at: np.ndarray

    @classmethod
    def empty(cls, rows: int, length: int, slots: int, *, nowhere: int) -> '_Insertion':
        """Arrays that insert nothing: every slot is `nowhere`."""
        zeros = (np.zeros(slots, np.int32) for _ in range(3))
        row, request, stop_at = zeros
        return cls(
            np.zeros((rows, length), np.int32),
            np.ones(rows, np.int32),
            row,
            np.full(slots, nowhere, np.int32),
            request,
            stop_at,
        )


def _holding(sizes: Sequence[int], needed: int) -> int:
    """The smallest of ascending sizes that holds what is needed; the last holds everything."""
    return next(size for size in sizes if size >= needed)
