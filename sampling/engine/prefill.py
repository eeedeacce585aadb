"""Prefill: reads prompts with the model and writes their keys and values into slots.

On the host, `batches` groups requests and pads them to the shapes of EngineSettings. On the device,
`fill_slots` reads one such batch. Requests with the same prompt share one row of it, so the samples
of a question cost one reading of their prompt.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.model import kv_cache
from elenchus.model.kv_cache import CacheDtype, KVCache
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine import decode
from elenchus.sampling.engine.decode import DecodeState
from elenchus.sampling.engine.prefix_cache import NO_MATCH, PrefixCache, PrefixMatch
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.shapes import EngineSettings, smallest_bucket

Array = np.ndarray | jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PrefillBatch:
    """R different prompts, and the M slots that they are written to.

    Several slots may get the same prompt. With a cached prefix, the model reads only the tokens
    after it; `lengths` still count the whole prompt.
    """

    tokens: Array  # [R, P] int32, the tokens to read; padding on the right is never attended to
    lengths: Array  # [R] int32, tokens of the whole prompt
    rows: Array  # [M] int32, row of each slot's prompt
    slots: Array  # [M] int32, the slot; indices >= num_slots are padding and are ignored
    requests: Array  # [M] int32, request ids
    stop_at: Array  # [M] int32, first position that may not be sampled
    prompts: Array | None  # [R, W] int32, whole prompts, for prompt lookup; None = not in use
    prefix_rows: Array  # [R] int32, row of the prefix cache
    prefix_lengths: Array  # [R] int32, tokens taken from that row; 0 in all rows = not in use

    @classmethod
    def empty(
        cls, settings: EngineSettings, *, rows: int, length: int, slots: int
    ) -> 'PrefillBatch':
        """A batch of padding only."""
        longest = settings.prompt_buckets[-1]
        return cls(
            tokens=np.zeros((rows, length), np.int32),
            lengths=np.ones(rows, np.int32),
            rows=np.zeros(slots, np.int32),
            slots=np.full(slots, settings.num_slots, np.int32),
            requests=np.zeros(slots, np.int32),
            stop_at=np.zeros(slots, np.int32),
            prompts=np.zeros((rows, longest), np.int32) if settings.draft_tokens else None,
            prefix_rows=np.zeros(rows, np.int32),
            prefix_lengths=np.zeros(rows, np.int32),
        )


# On the host


def batches(
    settings: EngineSettings, entering: dict[int, Request], *, prefix_cache: PrefixCache | None
) -> Iterator[PrefillBatch]:
    """Batches of requests {slot: request}, of at most prefill_batch_sizes[-1] different prompts.

    Prompts with and without a cached prefix are apart, as they run different programs.
    """
    matches = {r.prompt: _match(settings, r.prompt, prefix_cache) for r in entering.values()}
    for has_prefix in (False, True):
        group, prompts = {}, set()  # prompts: the different ones of the group
        for slot, request in entering.items():
            prompt = request.prompt
            if bool(matches[prompt].length) != has_prefix:
                continue
            if prompt not in prompts and len(prompts) == settings.prefill_batch_sizes[-1]:
                yield _pack(settings, group, matches)
                group, prompts = {}, set()
            group[slot] = request
            prompts.add(prompt)
        if group:
            yield _pack(settings, group, matches)


def _match(
    settings: EngineSettings, prompt: tuple[int, ...], prefix_cache: PrefixCache | None
) -> PrefixMatch:
    """The cached prefix of a prompt, if the rest then fits a smaller bucket; else NO_MATCH."""
    if prefix_cache is None:
        return NO_MATCH
    match = prefix_cache.longest_prefix(prompt)
    # At least the last token must be read, as the first sample follows it.
    length = min(match.length, len(prompt) - 1)
    whole = smallest_bucket(settings.prompt_buckets, len(prompt))
    rest = smallest_bucket(settings.prompt_buckets, len(prompt) - length)
    return PrefixMatch(match.row, length) if rest < whole else NO_MATCH


def _pack(
    settings: EngineSettings,
    group: dict[int, Request],
    matches: dict[tuple[int, ...], PrefixMatch],
) -> PrefillBatch:
    """The arrays of a group {slot: request}, with each different prompt once."""
    prompts = dict.fromkeys(request.prompt for request in group.values())
    row_of = {prompt: row for row, prompt in enumerate(prompts)}
    longest = max(len(prompt) - matches[prompt].length for prompt in row_of)
    num_rows = smallest_bucket(settings.prefill_batch_sizes, len(row_of))
    batch = PrefillBatch.empty(
        settings,
        rows=num_rows,
        length=smallest_bucket(settings.prompt_buckets, longest),
        # Two sizes only: every size is one more program to compile.
        slots=num_rows if len(group) <= num_rows else settings.num_slots,
    )
    for prompt, row in row_of.items():
        match = matches[prompt]
        batch.tokens[row, : len(prompt) - match.length] = prompt[match.length :]
        batch.lengths[row] = len(prompt)
        batch.prefix_rows[row], batch.prefix_lengths[row] = match
        if batch.prompts is not None:
            batch.prompts[row, : len(prompt)] = prompt
    for i, (slot, request) in enumerate(group.items()):
        batch.rows[i], batch.slots[i] = row_of[request.prompt], slot
        batch.requests[i] = request.id
        batch.stop_at[i] = len(request.prompt) + request.max_tokens
    return batch


# On the device


@functools.partial(jax.jit, donate_argnames='state', static_argnames='chunk')
def fill_slots(
    model: Transformer,
    state: DecodeState,
    batch: PrefillBatch,
    *,
    prefixes: KVCache | None = None,
    chunk: int = 0,
) -> DecodeState:
    """Reads the prompts of a batch and writes their caches and bookkeeping into the slots.

    `prefixes` is the prefix cache's; None reads all prompts from their first token. `chunk`
    positions are read per forward pass, all at once if it is 0; it must divide longer prompts.
    """
    R, P = batch.tokens.shape
    if prefixes is None:
        cache, prefix_lengths = None, jnp.zeros(R, 'int32')
    else:
        # Positions past the end are dropped. These are only padding: prompts fit max_length.
        room = min(P, state.tokens.shape[1] - prefixes.length)
        cache = extend_prefix(prefixes, batch.prefix_rows, room)
        prefix_lengths = batch.prefix_lengths
    cache = _read_prompts(
        model, batch.tokens, prefix_lengths, cache=cache, dtype=state.cache.dtype, chunk=chunk
    )
    last = batch.lengths - 1
    last_token = batch.tokens[jnp.arange(R), last - prefix_lengths]

    def put(into, values):
        return into.at[batch.slots].set(values, mode='drop')

    tokens = state.tokens
    if batch.prompts is not None:
        tokens = write_prompts(tokens, batch.prompts[batch.rows], batch.slots)
    return decode.constrain(
        dataclasses.replace(
            state,
            cache=kv_cache.insert(state.cache, cache, slots=batch.slots, rows=batch.rows),
            # The first decode step reads the last prompt token again, as it needs the logits there;
            # prefill computes none. It writes the same keys and values.
            last_token=put(state.last_token, last_token[batch.rows]),
            position=put(state.position, last[batch.rows]),
            request=put(state.request, batch.requests),
            stop_at=put(state.stop_at, batch.stop_at),
            done=put(state.done, False),
            steps=put(state.steps, 0),
            tokens=tokens,
        )
    )


def extend_prefix(prefixes: KVCache, rows: jax.Array, room: int) -> KVCache:
    """Rows [R] of the prefix cache, each with `room` more positions."""
    return jax.tree.map(lambda x: jnp.pad(x[rows], ((0, 0), (0, 0), (0, room), (0, 0))), prefixes)


def write_prompts(tokens: jax.Array, prompts: jax.Array, slots: jax.Array) -> jax.Array:
    """Writes prompts [M, W] at the start of the token buffers [B, S] of slots [M]."""
    return tokens.at[slots, : prompts.shape[1]].set(prompts, mode='drop')


def _read_prompts(
    model: Transformer,
    tokens: jax.Array,
    start: jax.Array,
    *,
    cache: KVCache | None,
    dtype: CacheDtype,
    chunk: int,
) -> KVCache:
    """The cache of tokens [R, P] at positions from start [R] on; new, of length P, if None."""
    R, P = tokens.shape
    positions = start[:, None] + jnp.arange(P)
    if not 0 < chunk < P:
        return model(tokens, positions, cache=cache, return_cache=dtype)[1]
    if cache is None:
        cache = kv_cache.init_cache(model.config, batch=R, length=P, dtype=dtype)

    def read_chunk(cache, piece):
        return model(*piece, cache=cache)[1], None

    pieces = [x.reshape(R, P // chunk, chunk).swapaxes(0, 1) for x in (tokens, positions)]
    return jax.lax.scan(read_chunk, cache, tuple(pieces))[0]
