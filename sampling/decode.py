"""The device's part of sampling: prefill into slots, and decoding by chunks of steps.

A slot is a row of the state. Everything here has fixed shapes; sampling/engine.py decides what
runs when. A token's noise depends on (seed, request, position) alone, so that never matters to
what is sampled.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from model import cache as cache_lib
from model import sharding
from model.cache import KVCache
from model.config import ModelConfig
from model.transformer import Transformer
from sampling.methods import Method


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeState:
    """B slots of S positions. Generated tokens stand in the buffers at their own position."""

    cache: KVCache
    last_token: jax.Array  # [B] int32, the next token to be read
    position: jax.Array  # [B] int32, where last_token stands
    request: jax.Array  # [B] int32, id of the request in the slot
    stop_at: jax.Array  # [B] int32, first position that may not be generated
    done: jax.Array  # [B] bool, True for empty slots too
    tokens: jax.Array  # [B, S] int32
    logprobs: jax.Array  # [B, S] float32


@functools.partial(jax.jit, static_argnames=('config', 'batch', 'length'))
def init_state(config: ModelConfig, *, batch: int, length: int) -> DecodeState:
    """A state of `batch` empty slots and `length` positions."""
    zeros = jnp.zeros(batch, 'int32')
    return _constrain(
        DecodeState(
            cache=cache_lib.init_cache(config, batch=batch, length=length),
            last_token=zeros,
            position=zeros,
            request=zeros,
            stop_at=zeros,
            done=jnp.ones(batch, bool),
            tokens=jnp.zeros((batch, length), 'int32'),
            logprobs=jnp.zeros((batch, length), 'float32'),
        )
    )


init_cache = jax.jit(cache_lib.init_cache, static_argnames=('config', 'batch', 'length'))


@functools.partial(jax.jit, donate_argnames='state')
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
    parked: jax.Array | None = None,
    shared: jax.Array | None = None,
    store: KVCache | None = None,
) -> DecodeState:
    """Reads R prompts once and puts them into M slots, several of which may share a prompt.

    prompts [R, P], padded on the right with anything, and their lengths [R]; rows, slots, requests
    and stop_at [M]: slot slots[i] gets prompt rows[i]. A slot past the end is no slot.

    With a store, prompt r begins with the first shared[r] tokens of the store's row parked[r], and
    prompts[r] has those after them; lengths[r] counts both. Without one, neither is read.
    """
    R, P = prompts.shape
    if store is None:
        shared = jnp.zeros(R, 'int32')
        prompt_cache = cache_lib.init_cache(model.config, batch=R, length=P)
    else:
        room = min(P, state.tokens.shape[1] - store.layers[0][0].shape[2])
        prompt_cache = jax.tree.map(
            lambda x: jnp.pad(x[parked], ((0, 0), (0, 0), (0, room), (0, 0))), store
        )
    _, prompt_cache = model(prompts, shared[:, None] + jnp.arange(P), cache=prompt_cache)
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
        )
    )


@functools.partial(jax.jit, donate_argnames='store')
def park(store: KVCache, cache: KVCache, *, slots: jax.Array, rows: jax.Array) -> KVCache:
    """Copies slot slots[i] of a cache, as far as rows are long, into row rows[i] of the store.

    slots and rows [M]; a row past the end is no row.
    """
    length = store.layers[0][0].shape[2]
    kept = cache_lib.insert(
        store, jax.tree.map(lambda x: x[:, :, :length], cache), slots=rows, rows=slots
    )
    axes = ('batch', 'kv_heads', None, None)
    return jax.tree.map(lambda x: sharding.constrain(x, axes), kept)


@functools.partial(
    jax.jit,
    donate_argnames='state',
    static_argnames=('method', 'num_steps', 'stop_ids', 'length'),
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
) -> tuple[DecodeState, jax.Array]:
    """Samples up to `num_steps` tokens in each of `slots` [M]; None is every slot, in place.

    A slot past the end is no slot. Of the cache only positions below `length` are read and
    written: it must hold every position that a running slot may reach. Stops early when all are
    done. Returns the state and, on every host, (position, done) of all slots as [2, B] int32.
    """
    key = jax.random.key(seed)

    def running(carry):
        step, part = carry
        return (step < num_steps) & ~part.done.all()

    def advance(carry):
        step, part = carry
        return step + 1, _step(model, part, key, method=method, stop_ids=stop_ids)

    part = _part(state, slots, length)
    _, part = jax.lax.while_loop(running, advance, (jnp.int32(0), part))
    state = _constrain(_put_back(state, part, slots))
    flags = jnp.stack([state.position, state.done.astype('int32')])
    return state, sharding.constrain(flags, (None, None))


@jax.jit
def generated(state: DecodeState, slots: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The buffers of slots [M] on every host: tokens and log-probabilities, both [M, S]."""
    pair = (state.tokens[slots], state.logprobs[slots])
    return tuple(sharding.constrain(x, (None, None)) for x in pair)


def _step(model, state: DecodeState, key, *, method: Method, stop_ids) -> DecodeState:
    """Reads the last tokens and samples the next ones; done slots stay as they are."""
    B, S = state.tokens.shape
    nowhere = max(S, state.cache.layers[0][0].shape[2])
    position = state.position + 1
    read_at = jnp.where(state.done, nowhere, state.position)
    write_at = jnp.where(state.done, nowhere, position)
    hidden, cache = model(state.last_token[:, None], read_at[:, None], cache=state.cache)
    keys = jax.vmap(lambda request, at: jax.random.fold_in(jax.random.fold_in(key, request), at))(
        state.request, position
    )
    token, logprob = jax.vmap(method.sample)(keys, model.logits(hidden[:, 0]))
    stopped = (token[:, None] == jnp.asarray(stop_ids)).any(axis=1)
    slots = jnp.arange(B)
    return _constrain(
        dataclasses.replace(
            state,
            cache=cache,
            last_token=jnp.where(state.done, state.last_token, token),
            position=jnp.where(state.done, state.position, position),
            done=state.done | stopped | (position + 1 >= state.stop_at),
            tokens=state.tokens.at[slots, write_at].set(token, mode='drop'),
            logprobs=state.logprobs.at[slots, write_at].set(logprob, mode='drop'),
        )
    )


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
