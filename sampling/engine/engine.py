"""Engine: samples completions of many requests at once (continuous batching).

The life of a request in `Engine.generate`:

1. It waits in a queue until one of the `num_slots` slots is free.
2. `prefill.batches` puts it into a batch with other requests that enter a slot now. Requests with
   the same prompt share one row. With a prefix cache, a prompt may start from a cached prefix.
3. `prefill.fill_slots` reads the prompts in one forward pass and writes their keys and values into
   the slots.
4. `decode.decode_chunk` samples in all busy slots, up to `chunk_steps` steps in one jitted loop.
5. The host reads the position and the done flag of every slot. Step 4 repeats until the request has
   sampled a stop token or `max_tokens` tokens.
6. The host reads its tokens and log-probabilities, which become its Completion. With a prefix
   cache, its keys and values are copied there.
7. Its slot is free for the next request of the queue.

Noise is a function of (seed, request id, position), so this schedule cannot change the samples.
All shapes come from EngineSettings, so nothing compiles after `warm_up`. The schedule depends only
on values that all hosts have, so they agree on it without communication.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from elenchus.model import quantization
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine import decode, prefill, warm_up
from elenchus.sampling.engine.generator import Generator
from elenchus.sampling.engine.prefix_cache import PrefixCache
from elenchus.sampling.engine.requests import Completion, Request
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.engine.shapes import EngineSettings, smallest_bucket


class Engine:
    """Samples completions of many requests at once; implements Generator.

    A completion ends with one of `stop_ids` or at its request's max_tokens. The counters `tokens`
    and `steps` add up those of all completions so far.

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
        self.tokens, self.steps = 0, 0
        self._decode_chunk = functools.partial(
            decode.decode_chunk,
            num_steps=settings.chunk_steps,
            stop_ids=stop_ids,
            lookup=settings.lookup,
        )

    def generate(
        self,
        model: Transformer,
        requests: Sequence[Request],
        *,
        method: Method,
        seed: int,
        on_completion: Callable[[Completion], None] | None = None,
        prefix_cache: PrefixCache | None = None,
    ) -> list[Completion]:
        """Samples one completion per request and returns them in the order of `requests`.

        Calls `on_completion` with each completion as soon as it is done. `prefix_cache` must be of
        this model; prompts start from it, and finished sequences are added to it.

        Raises ValueError if a request is too long, if two have the same id, or if the seed is not
        in [0, 2 ** 32).
        """
        self._check(requests, seed)
        queue, running = collections.deque(requests), {}  # running: slot -> request
        completions = {}
        model, state = self._start(model)
        decode_model = decode.prepare_for_decoding(model)
        position = np.zeros(self.settings.num_slots, np.int32)
        while queue or running:
            free = [slot for slot in range(self.settings.num_slots) if slot not in running]
            entering = {slot: queue.popleft() for slot in free[: len(queue)]}
            state = self._prefill(model, state, entering, prefix_cache=prefix_cache)
            for slot, request in entering.items():
                running[slot] = request
                position[slot] = len(request.prompt) - 1  # of the next token to read
            slots, length = self._chunk_shape(running, position)
            state, flags = self._decode_chunk(
                decode_model, state, slots, method=method, seed=np.uint32(seed), length=length
            )
            # This waits for the device: the host needs the flags to schedule the next chunk.
            position, done = np.array(flags)
            finished = [slot for slot in running if done[slot]]
            for completion in self._collect(
                state, running, finished, position=position, prefix_cache=prefix_cache
            ):
                completions[completion.id] = completion
                self.tokens += len(completion.tokens)
                self.steps += completion.steps
                if on_completion is not None:
                    on_completion(completion)
        return [completions[request.id] for request in requests]

    def warm_up(self, model: Transformer, *, method: Method) -> None:
        """Compiles every program that `generate` can run with this model and method."""
        warm_up.run_programs(self.settings, model, method=method, stop_ids=self.stop_ids)

    def init_prefix_cache(self, model: Transformer) -> PrefixCache:
        """Creates an empty prefix cache for `generate` with this model."""
        s = self.settings
        return PrefixCache(
            model.config,
            rows=s.prefix_cache_rows,
            length=s.prefix_cache_length,
            dtype=s.cache_dtype,
        )

    def with_prefix_cache(self) -> Generator:
        """This engine with empty prefix caches, or itself if the settings have none."""
        return PrefixCachedEngine(self) if self.settings.prefix_cache_rows else self

    def _check(self, requests: Sequence[Request], seed: int) -> None:
        """Raises ValueError for requests and seeds that `generate` cannot take."""
        if not 0 <= seed < 2**32:
            raise ValueError(f'seed={seed} must be in [0, 2**32)')
        longest, max_length = self.settings.prompt_buckets[-1], self.settings.max_length
        counts = collections.Counter(request.id for request in requests)
        for request in requests:
            length = len(request.prompt)
            if counts[request.id] > 1:
                raise ValueError(
                    f'request id {request.id} occurs {counts[request.id]} times; '
                    f'use a different id for each request'
                )
            if length > longest:
                raise ValueError(
                    f'request {request.id}: {length} prompt tokens exceed the last of '
                    f'sampling.engine.prompt_buckets; use at most {longest}'
                )
            if length + request.max_tokens > max_length:
                raise ValueError(
                    f'request {request.id}: {length} prompt tokens and max_tokens='
                    f'{request.max_tokens} exceed sampling.engine.max_length={max_length}; '
                    f'use max_tokens of at most {max_length - length}'
                )

    def _start(self, model: Transformer) -> tuple[Transformer, decode.DecodeState]:
        """The model, quantized as the settings say, and empty slots."""
        s = self.settings
        state = decode.init_state(
            model.config, batch=s.num_slots, length=s.max_length, dtype=s.cache_dtype
        )
        return quantization.quantize(model, s.quantize), state

    def _prefill(self, model, state, entering: dict[int, Request], *, prefix_cache):
        """Reads the prompts of entering requests {slot: request} into their slots."""
        for batch in prefill.batches(self.settings, entering, prefix_cache=prefix_cache):
            state = prefill.fill_slots(
                model,
                state,
                batch,
                prefixes=prefix_cache.cache if batch.prefix_lengths.any() else None,
                chunk=self.settings.prefill_chunk,
            )
        return state

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
        slots = warm_up.pad_slots(s, running, smallest_bucket(s.decode_batch_buckets, len(running)))
        return slots, smallest_bucket(s.decode_length_buckets, end)

    def _collect(
        self,
        state,
        running: dict[int, Request],
        slots: Sequence[int],
        *,
        position: np.ndarray,
        prefix_cache: PrefixCache | None,
    ) -> Iterator[Completion]:
        """Takes finished requests out of their slots and adds them to the prefix cache."""
        size = self.settings.prefill_batch_sizes[-1]  # one shape for any number of slots
        for start in range(0, len(slots), size):
            group = slots[start : start + size]
            padded = np.zeros(size, np.int32)
            padded[: len(group)] = group
            tokens, logprobs, steps = jax.device_get(decode.read_slots(state, padded))
            prefixes = []
            for i, slot in enumerate(group):
                request = running.pop(slot)
                sampled = slice(len(request.prompt), position[slot] + 1)
                ids = tuple(tokens[i, sampled].tolist())
                # The model has not read the last sampled token: the cache ends before it.
                prefixes.append((*request.prompt, *ids[:-1]))
                yield Completion(
                    id=request.id,
                    tokens=ids,
                    logprobs=tuple(logprobs[i, sampled].tolist()),
                    finished=ids[-1] in self.stop_ids,
                    steps=int(steps[i]),
                )
            if prefix_cache is not None:
                prefix_cache.add(state.cache, group, prefixes, size=size)


class PrefixCachedEngine:
    """An engine with one prefix cache per model that it samples from; implements Generator.

    The caches live as long as this object. A sample's last digits may depend on which prefix it
    started from, so a new object per part of a stage makes the part reproducible on its own.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        # By id, as models are not hashable. Keeping the model keeps its id from being reused.
        self._caches: dict[int, tuple[Transformer, PrefixCache]] = {}

    @property
    def tokens(self) -> int:
        """Tokens of all completions of the underlying engine so far."""
        return self._engine.tokens

    @property
    def steps(self) -> int:
        """Forward passes of all completions of the underlying engine so far."""
        return self._engine.steps

    def generate(
        self,
        model: Transformer,
        requests: Sequence[Request],
        *,
        method: Method,
        seed: int,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """Samples like Engine.generate, with the prefix cache of this model."""
        if id(model) not in self._caches:
            self._caches[id(model)] = (model, self._engine.init_prefix_cache(model))
        return self._engine.generate(
            model,
            requests,
            method=method,
            seed=seed,
            on_completion=on_completion,
            prefix_cache=self._caches[id(model)][1],
        )

    def with_prefix_cache(self) -> Generator:
        """The same engine with new, empty caches."""
        return self._engine.with_prefix_cache()
