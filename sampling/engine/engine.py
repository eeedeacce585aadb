"""Requests in, completions out: the host's part of sampling.

Between chunks of decoding, finished slots are emptied and waiting requests put in. Requests with
the same prompt that go in together share its prefill; one whose beginning is parked goes on from
there (sampling/parking.py). All shapes come from EngineSettings, so that after `warm_up` nothing
compiles. The schedule follows from replicated flags: hosts agree on it.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from elenchus.model import quantization
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine import decode, prefill
from elenchus.sampling.engine.prefill import Insertion
from elenchus.sampling.engine.prefix_cache import Parking, Store
from elenchus.sampling.engine.requests import Completion, EngineSettings, Request, holding
from elenchus.sampling.engine.sampling_methods import Method


class Engine:
    """Samples from a model, many requests at once; a completion ends with one of `stop_ids`.

    `tokens` and `steps` add up those of all completions.
    """

    def __init__(self, settings: EngineSettings, *, stop_ids: tuple[int, ...]):
        self.settings = settings
        self.stop_ids = stop_ids
        self.tokens, self.steps = 0, 0

    def generate(
        self,
        model: Transformer,
        requests: Sequence[Request],
        *,
        method: Method,
        seed: int,
        on_completion: Callable[[Completion], None] | None = None,
        store: Store | None = None,
    ) -> list[Completion]:
        """Completions in the order of `requests`; `on_completion` sees each as it is done.

        With a store of this model, prompts go on from what is parked there, and what is finished
        is parked. Raises ValueError where a request does not fit, two have the same id, or the
        seed is outside [0, 2 ** 32).
        """
        self._check(requests)
        if not 0 <= seed < 2**32:
            raise ValueError(f'seed={seed} must be in [0, 2**32)')
        settings, noise = self.settings, np.uint32(seed)
        queue, completions = collections.deque(requests), {}
        running: dict[int, Request] = {}
        model, state = self._begin(model)
        stepper = decode.for_steps(model)
        position = np.zeros(settings.num_slots, np.int32)
        while queue or running:
            free = [slot for slot in range(settings.num_slots) if slot not in running]
            entering = {slot: queue.popleft() for slot in free[: len(queue)]}
            for group in prefill.groups(settings, entering, store):
                going_on = any(entry.shared for entry in group.values())
                state = decode.insert(
                    model,
                    state,
                    **vars(prefill.pack(settings, group)),
                    store=store.cache if going_on else None,
                    chunk=settings.prefill_chunk,
                )
            running |= entering
            for slot, request in entering.items():
                position[slot] = len(request.prompt) - 1
            state, flags = self._decode(stepper, state, running, position, method, noise)
            position, done = np.array(flags)
            for completion in self._collect(state, running, position, done, store):
                completions[completion.id] = completion
                self.tokens += len(completion.tokens)
                self.steps += completion.steps
                if on_completion is not None:
                    on_completion(completion)
        return [completions[request.id] for request in requests]

    def warm_up(self, model: Transformer, *, method: Method) -> None:
        """Compiles every shape that `generate` can run with this model and method."""
        settings, seed = self.settings, np.uint32(0)
        stores = [self.make_store(model)] if settings.parked_rows else []
        caches = [None, *(store.cache for store in stores)]
        model, state = self._begin(model)
        for length in settings.prompt_buckets:
            for rows in settings.insert_rows:
                for slots, cache in itertools.product({rows, settings.num_slots}, caches):
                    empty = Insertion.empty(settings, rows=rows, length=length, slots=slots)
                    state = decode.insert(
                        model, state, **vars(empty), store=cache, chunk=settings.prefill_chunk
                    )
        stepper = decode.for_steps(model)
        for length in settings.length_sizes:
            for size in settings.slot_sizes:
                state, _ = self._run(stepper, state, (), size, length, method, seed)
        decode.generated(state, np.zeros(settings.insert_rows[-1], np.int32))
        for store in stores:
            store.park(state.cache, (), (), size=settings.insert_rows[-1])

    def make_store(self, model: Transformer) -> Store:
        """An empty store for `generate` with this model, of the settings' parked sizes."""
        s = self.settings
        return Store(model.config, rows=s.parked_rows, length=s.parked_length, dtype=s.cache_dtype)

    def parking(self) -> 'Engine | Parking':
        """This engine with stores of its own; the engine itself where the settings park nothing."""
        return Parking(self) if self.settings.parked_rows else self

    def _begin(self, model: Transformer) -> tuple[Transformer, decode.DecodeState]:
        """The model as it is read, and empty slots."""
        s = self.settings
        state = decode.init_state(
            model.config, batch=s.num_slots, length=s.max_length, dtype=s.cache_dtype
        )
        return quantization.quantize(model, s.quantize), state

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

    def _decode(self, model, state, running: dict[int, Request], position, method, seed):
        """One chunk, at the smallest shape that holds all that is running."""
        most = self.settings.chunk_steps * (1 + self.settings.draft_tokens)
        reach = max(
            min(
                position[slot] + most,
                len(request.prompt) + request.max_tokens - 1,
            )
            for slot, request in running.items()
        )
        size = holding(self.settings.slot_sizes, len(running))
        length = holding(self.settings.length_sizes, reach)
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
            lookup=self.settings.lookup,
        )

    def _collect(self, state, running: dict[int, Request], position, done, store):
        """Takes finished requests out of their slots, and parks what the slots hold."""
        finished = [slot for slot in running if done[slot]]
        size = self.settings.insert_rows[-1]
        for start in range(0, len(finished), size):
            some = finished[start : start + size]
            slots = np.zeros(size, np.int32)
            slots[: len(some)] = some
            tokens, logprobs, steps = jax.device_get(decode.generated(state, slots))
            held = []
            for i, slot in enumerate(some):
                request = running.pop(slot)
                made = slice(len(request.prompt), position[slot] + 1)
                ids = tuple(tokens[i, made].tolist())
                held.append((*request.prompt, *ids[:-1]))  # the last was sampled, not read
                ended = ids[-1] in self.stop_ids
                known = tuple(logprobs[i, made].tolist())
                yield Completion(request.id, ids, known, ended, int(steps[i]))
            if store is not None:
                store.park(state.cache, some, held, size=size)


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
