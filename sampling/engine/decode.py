"""The device's part of sampling: prefill into slots, and decoding by chunks of steps.

A slot is a row of the state. Everything here has fixed shapes; sampling/engine.py decides what
runs when. A token's noise depends on (seed, request, position) alone, so that never matters to
what is sampled. Nor do drafts (sampling/drafts.py): the model reads the last token and the draft
in one pass, each position samples its token with its own noise, and the tokens up to the first
that the draft did not guess are kept, which are those that single steps sample.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elenchus.model import block_weights, quantization, sharding
from elenchus.model import kv_cache as cache_lib
from elenchus.model.config import ModelConfig
from elenchus.model.kv_cache import CacheDtype, KVCache
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine import prompt_lookup
from elenchus.sampling.engine.prompt_lookup import Lookup
from elenchus.sampling.engine.sampling_methods import Method


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeState:
    """B slots of S positions. Generated tokens stand in the buffers at their own position.

    So do the prompt's, where drafts are made of them.
    """

    cache: KVCache
    last_token: jax.Array  # [B] int32, the next token to be read
    position: jax.Array  # [B] int32, where last_token stands
    request: jax.Array  # [B] int32, id of the request in the slot
    stop_at: jax.Array  # [B] int32, first position that may not be generated
    done: jax.Array  # [B] bool, True for empty slots too
    steps: jax.Array  # [B] int32, passes of the model that the request has taken
    tokens: jax.Array  # [B, S] int32
    logprobs: jax.Array  # [B, S] float32


class Noise(NamedTuple):
    """The random numbers of a stretch of positions of each request."""

    start: jax.Array  # [B] int32, the first position
    values: jax.Array  # [B, length, 2] float32 in [0, 1)

    @classmethod
    def of(cls, seed: jax.Array, request: jax.Array, start: jax.Array, *, length: int) -> 'Noise':
        """Made at once, outside of the loop over steps. request and start [B]."""

        def numbers(request, position):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), request), position)
            return jax.random.uniform(key, 2)

        positions = start[:, None] + jnp.arange(length)
        return cls(start, jax.vmap(jax.vmap(numbers, in_axes=(None, 0)))(request, positions))

    def at(self, positions: jax.Array) -> jax.Array:
        """positions [B, T] -> [B, T, 2]."""
        return self.values[jnp.arange(positions.shape[0])[:, None], positions - self.start[:, None]]


@functools.partial(jax.jit, static_argnames=('config', 'batch', 'length', 'dtype'))
def init_state(
    config: ModelConfig, *, batch: int, length: int, dtype: CacheDtype = 'model'
) -> DecodeState:
    """A state of `batch` empty slots and `length` positions."""
    zeros = jnp.zeros(batch, 'int32')
    return _constrain(
        DecodeState(
            cache=cache_lib.init_cache(config, batch=batch, length=length, dtype=dtype),
            last_token=zeros,
            position=zeros,
            request=zeros,
            stop_at=zeros,
            done=jnp.ones(batch, bool),
            steps=zeros,
            tokens=jnp.zeros((batch, length), 'int32'),
            logprobs=jnp.zeros((batch, length), 'float32'),
        )
    )


init_cache = jax.jit(cache_lib.init_cache, static_argnames=('config', 'batch', 'length', 'dtype'))


@functools.partial(jax.jit, donate_argnames='state', static_argnames='chunk')
def insert(
    model: Transformer,
    state: DecodeState,
    prompts: jax.Array,
    *,
    lengths: jax.Array,
    rows: jax.Array,
    slots: jax.Array,
    requests: jax.Array,
    stop_at: jax.Array,
    texts: jax.Array | None = None,
    parked: jax.Array | None = None,
    shared: jax.Array | None = None,
    store: KVCache | None = None,
    chunk: int = 0,
) -> DecodeState:
    """Reads R prompts once and puts them into M slots, several of which may share a prompt.

    prompts [R, P], padded on the right with anything, and their lengths [R]; rows, slots, requests
    and stop_at [M]: slot slots[i] gets prompt rows[i]. A slot past the end is no slot. For drafts,
    texts [R, W] are the prompts from their beginnings on. Longer prompts than a chunk that is not 0
    are read so many positions at a time; it divides P.

    With a store, prompt r begins with the first shared[r] tokens of the store's row parked[r], and
    prompts[r] has those after them; lengths[r] counts both. Without one, neither is read.
    """
    R, P = prompts.shape
    if store is None:
        begun, shared = None, jnp.zeros(R, 'int32')
    else:
        begun = _begun(store, parked, room=min(P, state.tokens.shape[1] - store.length))
    prompt_cache = _read(model, prompts, shared, begun, dtype=state.cache.dtype, chunk=chunk)
    last = lengths - 1

    def put(into, values):
        return into.at[slots].set(values, mode='drop')

    return _constrain(
        dataclasses.replace(
            state,
            cache=cache_lib.insert(state.cache, prompt_cache, slots=slots, rows=rows),
            last_token=put(state.last_token, prompts[jnp.arange(R), last - shared][rows]),
            position=put(state.position, last[rows]),
            request=put(state.request, requests),
            stop_at=put(state.stop_at, stop_at),
            done=put(state.done, False),
            steps=put(state.steps, 0),
            tokens=state.tokens if texts is None else _told(state.tokens, texts[rows], slots),
        )
    )


@functools.partial(jax.jit, donate_argnames='store')
def park(store: KVCache, cache: KVCache, *, slots: jax.Array, rows: jax.Array) -> KVCache:
    """Copies slot slots[i] of a cache, as far as rows are long, into row rows[i] of the store.

    slots and rows [M]; a row past the end is no row.
    """
    length = store.length
    kept = cache_lib.insert(
        store, jax.tree.map(lambda x: x[:, :, :length], cache), slots=rows, rows=slots
    )
    axes = ('batch', 'kv_heads', None, None)
    return jax.tree.map(lambda x: sharding.constrain(x, axes), kept)


def for_steps(model: Transformer) -> Transformer:
    """The model as decode_chunk reads it fastest; made once a call of `generate`.

    XLA on CPU copies slices of stacked weights at every step, and is up to 1.8 times faster with
    a large matrix on the left of few rows: there, a copy of the blocks. Elsewhere the model itself.
    """
    return _for_steps(model) if jax.default_backend() == 'cpu' else model


@jax.jit
def _for_steps(model: Transformer) -> Transformer:
    return block_weights.transpose_weights(model).unstacked()


@functools.partial(
    jax.jit,
    donate_argnames='state',
    static_argnames=('method', 'num_steps', 'stop_ids', 'length', 'lookup'),
)
def decode_chunk(
    model: Transformer,
    state: DecodeState,
    slots: jax.Array | None,
    *,
    method: Method,
    seed: jax.Array,
    num_steps: int,
    stop_ids: tuple[int, ...],
    length: int,
    lookup: Lookup = prompt_lookup.OFF,
) -> tuple[DecodeState, jax.Array]:
    """Samples in `num_steps` steps in each of `slots` [M]; None is every slot, in place.

    A step is one token, or up to 1 + lookup.num_tokens. A slot past the end is no slot. Of the
    cache only positions below `length` are read and written: it must hold every position that a
    running slot may reach. Stops early when all are done. Returns the state and, on every host,
    (position, done) of all slots as [2, B] int32.
    """
    part = _part(state, slots, length)
    most = num_steps * (1 + lookup.num_tokens)
    noise = Noise.of(seed, part.request, part.position + 1, length=most)
    narrow = quantization.is_quantized(model) and jax.default_backend() != 'cpu'

    def running(carry):
        step, part = carry
        return (step < num_steps) & ~part.done.all()

    def advance(carry):
        step, part = carry
        # Beside the step, which changes: else XLA dequantizes before the loop, into wide copies.
        held = jax.lax.optimization_barrier((model, step))[0] if narrow else model
        return step + 1, _step(held, part, noise, method=method, stop_ids=stop_ids, lookup=lookup)

    _, part = jax.lax.while_loop(running, advance, (jnp.int32(0), part))
    state = _constrain(_put_back(state, part, slots))
    flags = jnp.stack([state.position, state.done.astype('int32')])
    return state, sharding.constrain(flags, (None, None))


@jax.jit
def generated(state: DecodeState, slots: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of slots [M] on every host: tokens and log-probabilities, both [M, S], and steps [M]."""
    found = (state.tokens[slots], state.logprobs[slots], state.steps[slots])
    return tuple(sharding.constrain(x, (None,) * x.ndim) for x in found)


def _step(
    model, state: DecodeState, noise: Noise, *, method: Method, stop_ids, lookup: Lookup
) -> DecodeState:
    """Reads the last tokens and drafts, and samples what follows; done slots stay as they are."""
    B, S = state.tokens.shape
    nowhere = max(S, state.cache.length)
    draft = lookup.draft(state.tokens, state.position)
    read = jnp.concatenate([state.last_token[:, None], draft], axis=1)
    read_at = state.position[:, None] + jnp.arange(read.shape[1])
    hidden, cache = model(read, jnp.where(state.done[:, None], nowhere, read_at), cache=state.cache)
    made_at = read_at + 1
    token, logprob = method.sample(noise.at(made_at), model.logits(hidden))
    stopped = (token[:, :, None] == jnp.asarray(stop_ids)).any(axis=2)
    ended = stopped | (made_at + 1 >= state.stop_at[:, None])
    # A token counts where all before it were guessed, and none of these was the last.
    goes_on = (draft == token[:, :-1]) & ~ended[:, :-1]
    kept = jnp.concatenate([~state.done[:, None], goes_on], axis=1).cumprod(axis=1).astype(bool)
    count = kept.sum(axis=1)
    last = jnp.take_along_axis(token, jnp.maximum(count - 1, 0)[:, None], axis=1)[:, 0]
    at = (jnp.arange(B)[:, None], jnp.where(kept, made_at, nowhere))
    return _constrain(
        dataclasses.replace(
            state,
            cache=cache,
            last_token=jnp.where(state.done, state.last_token, last),
            position=state.position + count,
            done=state.done | (kept & ended).any(axis=1),
            steps=state.steps + ~state.done,
            tokens=state.tokens.at[at].set(token, mode='drop'),
            logprobs=state.logprobs.at[at].set(logprob, mode='drop'),
        )
    )


def _read(
    model, prompts: jax.Array, start: jax.Array, cache: KVCache | None, *, dtype, chunk: int
) -> KVCache:
    """The cache of prompts [R, P] from positions [R] on: a given one, or one of length P."""
    R, P = prompts.shape
    positions = start[:, None] + jnp.arange(P)
    if not 0 < chunk < P:
        return model(prompts, positions, cache=cache, return_cache=dtype)[1]
    if cache is None:
        cache = cache_lib.init_cache(model.config, batch=R, length=P, dtype=dtype)

    def read_on(cache, piece):
        return model(*piece, cache=cache)[1], None

    pieces = [x.reshape(R, P // chunk, chunk).swapaxes(0, 1) for x in (prompts, positions)]
    return jax.lax.scan(read_on, cache, tuple(pieces))[0]


def _begun(store: KVCache, rows: jax.Array, *, room: int) -> KVCache:
    """Rows [R] of a store, with `room` positions more."""
    return jax.tree.map(lambda x: jnp.pad(x[rows], ((0, 0), (0, 0), (0, room), (0, 0))), store)


def _told(tokens: jax.Array, texts: jax.Array, slots: jax.Array) -> jax.Array:
    """The buffers [B, S] that begin with texts [M, W] in slots [M]."""
    return tokens.at[slots, : texts.shape[1]].set(texts, mode='drop')


def _part(state: DecodeState, slots: jax.Array | None, length: int) -> DecodeState:
    """The state of the given slots, with the first `length` positions of its cache."""
    cache = jax.tree.map(lambda x: x[:, :, :length], state.cache)
    part = dataclasses.replace(state, cache=cache)
    if slots is None:
        return part
    part = jax.tree.map(lambda x: x.at[slots].get(mode='clip'), part)
    absent = slots >= state.done.shape[0]
    return _constrain(dataclasses.replace(part, done=part.done | absent))


def _put_back(state: DecodeState, part: DecodeState, slots: jax.Array | None) -> DecodeState:
    """Undoes _part."""

    def put(into, values):
        index = () if into.ndim < 3 else (slice(None), slice(values.shape[2]))
        return into.at[(slice(None) if slots is None else slots, *index)].set(values, mode='drop')

    return jax.tree.map(put, state, part)


def _constrain(state: DecodeState) -> DecodeState:
    """Slots over the mesh's batch axes, key and value heads as the model has them."""
    axes = {1: ('batch',), 2: ('batch', None), 4: ('batch', 'kv_heads', None, None)}
    return jax.tree.map(lambda x: sharding.constrain(x, axes[x.ndim]), state)
