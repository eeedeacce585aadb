"""Engine: samples completions of many requests at once (continuous batching).

The life of a request, in `Engine.generate` or as it comes (service.py):

1. It waits in a queue until one of the `num_slots` slots is free.
2. `Refill.next` packs its prompt with those of other requests that enter a slot now. Equal prompts
   are read once. With a prefix cache, a prompt may start from a cached prefix.
3. `prefill.fill_slots` reads the prompts in one forward pass and copies their keys and values into
   the slots.
4. `decode.decode_chunk` samples in all busy slots, up to `chunk_steps` steps in one jitted loop.
5. The host reads the position and the done flag of every slot. Step 4 repeats until the request has
   sampled a stop token or `max_tokens` tokens.
6. The next request of the queue gets the slot, and the next chunk starts.
7. While this chunk runs, the host reads the tokens and log-probabilities of the finished request
   and makes its Completion. (With a prefix cache step 7 comes before 6 and fills the cache.)

Noise is a function of (seed, request id, position), so this schedule cannot change the samples.
All shapes come from EngineSettings, so nothing compiles after `warm_up`. The schedule depends only
on values that all hosts have, so they agree on it without communication. On a mesh each shard of
rows has its own slots and runs all of the above by itself (weights.py has the sampler's mesh).
"""

import collections
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

from elenchus.model.placement import Placement
from elenchus.model.row_shards import num_row_shards
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine import decode, prefill
from elenchus.sampling.engine import weights as weights_lib
from elenchus.sampling.engine.calls import Call, execute
from elenchus.sampling.engine.compile_ahead import CompileAhead
from elenchus.sampling.engine.decode import DecodeState
from elenchus.sampling.engine.generator import Generator
from elenchus.sampling.engine.prefix_cache import PrefixCache, copy_slots, init_cache
from elenchus.sampling.engine.prefix_cached_engine import PrefixCachedEngine
from elenchus.sampling.engine.refill import Prefill, by_shard, to_batch
from elenchus.sampling.engine.request_methods import AnyMethod
from elenchus.sampling.engine.requests import Completion, Request, check_requests
from elenchus.sampling.engine.service import Finished, Service
from elenchus.sampling.engine.shapes import EngineSettings, smallest_bucket
from elenchus.sampling.engine.work import Work, chunk_work


class Engine:
    """Samples completions of many requests at once; implements Generator.

    A completion ends with one of `stop_ids`, after its request's max_tokens, or at a pause of the
    method. The counters `tokens` and `steps` are sums over all completions so far.

    Example, with a model of random weights:

    >>> import jax
    >>> from elenchus.model import config, transformer
    >>> from elenchus.sampling.engine import engine, requests, sampling_methods, shapes
    >>> tiny = config.ModelConfig(
    ...     vocab_size=32, num_layers=1, embed_dim=8, mlp_dim=16, num_heads=2, num_kv_heads=1,
    ...     head_dim=4, max_length=16, windows=(0,), rope_theta=1e4, local_rope_theta=0.0,
    ...     rope_scaling=None, norm_epsilon=1e-6, zero_centered_norms=False, post_norms=False,
    ...     qkv_bias=False, qk_norm=False, query_scale_dim=0, attention_soft_cap=0.0,
    ...     logits_soft_cap=0.0, scale_embeddings=False, tie_embeddings=True, activation='silu',
    ...     dtype='float32', param_dtype='float32', attention='einsum', remat='none',
    ...     scan_layers=False, logits_chunk=16)
    >>> model = transformer.init_model(tiny, jax.random.key(0))
    >>> settings = shapes.EngineSettings(
    ...     num_slots=2, max_length=16, chunk_steps=4, prompt_buckets=(8,),
    ...     prefill_batch_sizes=(2,), decode_batch_sizes=(), decode_cache_lengths=())
    >>> sampler = engine.Engine(settings, stop_ids=(1,))
    >>> prompts = [(5, 6, 7), (8, 9), (5, 6, 7)]
    >>> completions = sampler.generate(
    ...     model, [requests.Request(i, p, max_tokens=6) for i, p in enumerate(prompts)],
    ...     method=sampling_methods.Greedy(banned=(0, 1)), seed=0)
    >>> [(completion.id, len(completion.tokens)) for completion in completions]
    [(0, 6), (1, 6), (2, 6)]
    >>> completions[0].tokens == completions[2].tokens
    True
    >>> sampler.tokens
    18
    """

    def __init__(self, settings: EngineSettings, *, stop_ids: tuple[int, ...]):
        self.settings = settings
        self.stop_ids = stop_ids
        self.tokens, self.steps, self.work = 0, 0, Work()
        self.on_chunk: Callable[[], None] = lambda: None  # called after every chunk of decoding
        # Called with what a request has so far, after every chunk; for who reads along.
        self.on_tokens: Callable[[int, tuple[int, ...]], None] | None = None
        self._shards, self.compile_ahead = 1, CompileAhead(settings.compile_threads)
        self._decode_options = {
            'num_steps': settings.chunk_steps,
            'stop_ids': stop_ids,
            'lookup': settings.lookup,
        }
        self._decode_chunk = functools.partial(decode.decode_chunk, **self._decode_options)

    def generate(
        self,
        model: Transformer,
        requests: Sequence[Request],
        *,
        method: AnyMethod,
        seed: int,
        on_completion: Callable[[Completion], None] | None = None,
        prefix_cache: PrefixCache | None = None,
    ) -> list[Completion]:
        """Samples one completion per request and returns them in the order of `requests`.

        Calls `on_completion` with each completion as soon as it is done. `prefix_cache` must have
        keys and values of this model; prompts start from it, and it gets finished sequences.

        Raises ValueError if a request is too long or has a method that is not there, if two have
        the same id, or if the seed is not in [0, 2 ** 32).
        """
        check_requests(self.settings, requests, seed)
        service = self.serve(model, method=method, seed=seed, prefix_cache=prefix_cache)
        tickets = [service.submit(request) for request in requests]
        while not service.is_idle:
            service.step()
            for ticket in service.poll() if on_completion else ():
                on_completion(ticket.completion)
        return [ticket.completion for ticket in tickets]

    def serve(
        self,
        model: Transformer,
        *,
        method: AnyMethod,
        seed: int,
        prefix_cache: PrefixCache | None = None,
    ) -> Service:
        """Returns a Service, which samples requests that come one by one; arguments as above."""
        return Service(self, model, method=method, seed=seed, prefix_cache=prefix_cache)

    def _show_tokens(self, state, running: dict[int, Request], position: np.ndarray) -> None:
        for slot, request in running.items() if self.on_tokens else ():
            tokens = np.asarray(state.tokens[slot])
            sampled = tokens[len(request.prompt) : position[slot] + 1]
            self.on_tokens(request.id, tuple(sampled.tolist()))

    def _count_chunk(
        self, advances: np.ndarray, running, *, shape: tuple[int, int], start: float
    ) -> float:
        """Adds a chunk to `work`: what each slot sampled, its program's slots and cache length.

        `start` is when the chunk before it ended; returns the time now.
        """
        now = time.perf_counter()
        self.work += Work(seconds=now - start) + chunk_work(
            advances[list(running)],
            slots=shape[0],
            length=shape[1],
            tokens_per_step=1 + self.settings.draft_tokens,
        )
        self.on_chunk()
        return now

    def warm_up(self, model: Transformer, *, method: AnyMethod, call: Call = execute) -> None:
        """Compiles every program that `generate` can run with this model and method.

        `call` runs each of them, by a name.
        """
        s = self.settings
        here = self._placement()
        with here.in_force():
            # Prefill without and with cached prefixes are different programs.
            caches = (None, *self._call_prefix_cache(model, here, call))
            weights = weights_lib.place_weights(model, s, here, call=call)
            state = call('slots', decode.init_state, weights.prefill.config, **s.slot_shapes)
            for length, rows, cache in itertools.product(
                s.prompt_buckets, s.prefill_batch_sizes, caches
            ):
                empty = Prefill(
                    ((),) * self._shards, rows // self._shards, length, cache is not None
                )
                state = call(
                    f'prefill {rows} x {length}' + (' from prefixes' if empty.has_prefix else ''),
                    prefill.fill_slots,
                    weights.prefill,
                    state,
                    to_batch(s, empty),
                    prefixes=cache,
                    chunk=s.prefill_chunk,
                )
            for length, size in itertools.product(s.decode_length_buckets, s.decode_batch_buckets):
                state, _ = call(
                    f'decode {size} x {length}',
                    decode.decode_chunk,
                    weights.decode,
                    state,
                    self._pad_slots((), size),
                    method=method,
                    seed=np.uint32(0),
                    length=length,
                    **self._decode_options,
                )
            slots = np.zeros(self._read_size * self._shards, np.int32)
            call('read slots', decode.read_slots, state, slots)
            for cache in caches[1:]:
                call('add prefixes', copy_slots, cache, state.cache, slots=slots, rows=slots)

    def _call_prefix_cache(self, model: Transformer, here: Placement, call: Call) -> tuple:
        """An empty prefix cache; () if the settings have none."""
        s = self.settings
        if not s.prefix_cache_rows:
            return ()
        config = weights_lib.sampler_config(model.config, s, here)
        shape = {'batch': s.prefix_cache_rows, 'length': s.prefix_cache_length}
        return (call('prefix cache', init_cache, config, dtype=s.cache_dtype, **shape),)

    def init_prefix_cache(self, model: Transformer) -> PrefixCache:
        """Creates an empty prefix cache for `generate` with this model."""
        s, here = self.settings, self._placement()
        with here.in_force():
            return PrefixCache(
                weights_lib.sampler_config(model.config, s, here),
                rows=s.prefix_cache_rows,
                length=s.prefix_cache_length,
                dtype=s.cache_dtype,
                shards=self._shards,
            )

    def with_prefix_cache(self) -> Generator:
        """This engine with empty prefix caches, or itself if the settings have none."""
        return PrefixCachedEngine(self) if self.settings.prefix_cache_rows else self

    def _placement(self) -> Placement:
        """The sampler's placement on the mesh in force; its slots are in `_shards` shards."""
        here = weights_lib.sampler_placement(self.settings)
        self._shards = num_row_shards(here.mesh)
        self.settings.check_shards(self._shards)
        return here

    def _prefill(
        self, model, state, batch: Prefill, *, prefix_cache: PrefixCache | None
    ) -> DecodeState:
        """Reads the prompts of a batch into their slots."""
        self.work += batch.work
        return prefill.fill_slots(
            model,
            state,
            to_batch(self.settings, batch),
            prefixes=prefix_cache.cache if batch.has_prefix else None,
            chunk=self.settings.prefill_chunk,
        )

    def _chunk_shape(
        self, running: dict[int, Request], position: np.ndarray
    ) -> tuple[np.ndarray | None, int]:
        """Returns the slots and the cache length of the next chunk: the smallest that fit.

        The time of a decode step grows with both.
        """
        s = self.settings
        # `end` is one past the last cache position that a slot may write in this chunk; the last
        # token of a request is sampled but never read.
        max_new = s.chunk_steps * (1 + s.draft_tokens)
        end = max(
            min(position[slot] + max_new, len(request.prompt) + request.max_tokens - 1)
            for slot, request in running.items()
        )
        # The fullest shard decides: all shards have slot lists of one length.
        busiest = max(collections.Counter(slot // self._shard_slots for slot in running).values())
        size = smallest_bucket(s.decode_batch_buckets, busiest * self._shards)
        return self._pad_slots(running, size), smallest_bucket(
            s.decode_length_buckets, end + s.lookup.room
        )

    def _pad_slots(self, slots: Iterable[int], size: int) -> np.ndarray | None:
        """Sorted slots within their shards, each shard's padded; None: all slots in place."""
        if size == self.settings.num_slots:
            return None
        return by_shard(
            sorted(slots),
            (self._shards, size // self._shards),
            per_shard=self._shard_slots,
            fill=self._shard_slots,
        )

    @property
    def _shard_slots(self) -> int:
        return self.settings.num_slots // self._shards

    @property
    def _read_size(self) -> int:
        """Slots of a shard that are read at once: one shape for any number of finished ones."""
        return min(self._shard_slots, -(-self.settings.prefill_batch_sizes[-1] // self._shards))

    def _read_finished(
        self, state, running: dict[int, Request], slots: Sequence[int], *, position: np.ndarray
    ) -> list[Finished]:
        """Takes finished requests out of their slots and starts to read what they sampled."""
        size, in_shards = self._read_size, [[] for _ in range(self._shards)]
        for slot in slots:
            in_shards[slot // self._shard_slots].append(slot)
        finished = []
        for start in range(0, max(map(len, in_shards)), size):
            groups = [slots[start : start + size] for slots in in_shards]
            chosen = [slot for group in groups for slot in group]
            indices = by_shard(chosen, (self._shards, size), per_shard=self._shard_slots, fill=0)
            arrays = decode.read_slots(state, indices)
            for array in arrays:
                array.copy_to_host_async()
            entries = [[(slot, running.pop(slot)) for slot in group] for group in groups]
            # Copied, because the next prompts change the positions.
            finished.append(Finished(entries, arrays, position.copy()))
        return finished

    def _completions(
        self, state, finished: Sequence[Finished], prefix_cache: PrefixCache | None
    ) -> Iterator[tuple[Request, Completion | FloatingPointError]]:
        """Yields requests with what they sampled, or why not; adds that to the prefix cache."""
        size = self._read_size
        for entries, arrays, position in finished:
            arrays = jax.device_get(arrays)
            prefixes = [[] for _ in entries]
            for shard, group in enumerate(entries):
                for i, (slot, request) in enumerate(group):
                    tokens, logprobs, steps = (x[shard * size + i] for x in arrays)
                    sampled = slice(len(request.prompt), position[slot] + 1)
                    try:
                        completion = self._completion(
                            request, tokens[sampled], logprobs[sampled], steps=int(steps)
                        )
                    except FloatingPointError as error:
                        yield request, error
                        continue
                    # The model has not read the last sampled token: the cache ends before it.
                    prefix = (*request.prompt, *completion.tokens[:-1])
                    prefixes[shard].append((slot % self._shard_slots, prefix))
                    self.tokens += len(completion.tokens)
                    self.steps += completion.steps
                    yield request, completion
            if prefix_cache is not None:
                prefix_cache.add(state.cache, prefixes, size=size)

    def _completion(self, request: Request, tokens, logprobs, *, steps: int) -> Completion:
        ids = tuple(tokens.tolist())
        return Completion(
            id=request.id,
            tokens=ids,
            logprobs=tuple(logprobs.tolist()),
            finished=ids[-1] in self.stop_ids,
            steps=steps,
        )
