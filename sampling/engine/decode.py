"""Decoding on the device: the state of all slots, and the jitted loop that samples tokens.

A slot is one row of DecodeState; all arrays have fixed shapes, and engine.py decides which request
is in which slot. Noise is a function of (seed, request id, position), so scheduling cannot change
the samples.

With prompt lookup, one forward pass reads the last token and a draft of the next ones. Each
position samples a token with its own noise, and tokens are kept up to the first one that differs
from the draft. These are the tokens that single steps would sample, so no random rejection as in
arXiv 2211.17192 is needed. With a reflection the samples are others (reflection.py).
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elenchus.model import kv_cache, numerics, placement, platforms, quantization, sharding
from elenchus.model.config import ModelConfig
from elenchus.model.kv_cache import CacheDtype, KVCache
from elenchus.model.row_shards import any_shard, map_row_shards
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine import prompt_lookup
from elenchus.sampling.engine.prompt_lookup import PromptLookup
from elenchus.sampling.engine.request_methods import AnyMethod, draw
from elenchus.sampling.engine.token_rules import Place


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeState:
    """B slots of S positions each.

    A sampled token is at its own position in `tokens` and `logprobs`. The prompt's tokens are there
    only with prompt lookup, which searches them.
    """

    cache: KVCache
    last_token: jax.Array  # [B] int32, the next token to read
    position: jax.Array  # [B] int32, position of last_token
    request: jax.Array  # [B] int32, id of the request in the slot
    method: jax.Array  # [B] int32, index of the request's sampling method
    turn_start: jax.Array  # [B] int32, position of the first token of the turn
    stop_at: jax.Array  # [B] int32, first position that may not be sampled
    done: jax.Array  # [B] bool, also True for empty slots
    steps: jax.Array  # [B] int32, forward passes of the request
    tokens: jax.Array  # [B, S] int32
    logprobs: jax.Array  # [B, S] float32


STATE_AXES = DecodeState(
    cache=kv_cache.AXES,
    **{
        field.name: placement.ROWS
        for field in dataclasses.fields(DecodeState)
        if field.name != 'cache'
    },
)
"""Logical axes of the slots, see `placement.Axes`."""


class Noise(NamedTuple):
    """Random numbers of a range of positions of each slot."""

    start: jax.Array  # [B] int32, first position
    values: jax.Array  # [B, length, 2] float32 in [0, 1)

    @classmethod
    def draw(cls, seed: jax.Array, request: jax.Array, start: jax.Array, *, length: int) -> 'Noise':
        """Draws the numbers of `length` positions from start [B] on, of requests [B]."""

        def draw_two(request, position):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), request), position)
            return jax.random.uniform(key, 2)

        positions = start[:, None] + jnp.arange(length)
        return cls(start, jax.vmap(jax.vmap(draw_two, in_axes=(None, 0)))(request, positions))

    def at(self, positions: jax.Array) -> jax.Array:
        """Selects positions [B, T] -> [B, T, 2]."""
        # Row by row (`vmap`), so that rows split over a mesh stay where they are.
        return jax.vmap(lambda values, at: values[at])(self.values, positions - self.start[:, None])


@placement.pinned_jit(
    static_argnames=('config', 'batch', 'length', 'dtype', 'step_tokens'), out_axes=STATE_AXES
)
def init_state(
    config: ModelConfig,
    *,
    batch: int,
    length: int,
    dtype: CacheDtype = 'model',
    step_tokens: int = 0,
) -> DecodeState:
    """Creates `batch` empty slots of `length` positions; `step_tokens` as in `init_cache`."""
    zeros = jnp.zeros(batch, 'int32')
    return DecodeState(
        cache=kv_cache.init_cache(
            config, batch=batch, length=length, dtype=dtype, step_tokens=step_tokens
        ),
        last_token=zeros,
        position=zeros,
        request=zeros,
        method=zeros,
        turn_start=zeros,
        stop_at=zeros,
        done=jnp.ones(batch, bool),
        steps=zeros,
        tokens=jnp.zeros((batch, length), 'int32'),
        logprobs=jnp.zeros((batch, length), 'float32'),
    )


@placement.pinned_jit(
    donate_argnames='state',
    static_argnames=('method', 'num_steps', 'stop_ids', 'length', 'lookup'),
    axes={'state': STATE_AXES, 'slots': placement.ROWS},
    out_axes=(STATE_AXES, None),
)
def decode_chunk(
    model: Transformer,
    state: DecodeState,
    slots: jax.Array | None,
    *,
    method: AnyMethod,
    seed: jax.Array,
    num_steps: int,
    stop_ids: tuple[int, ...],
    length: int,
    lookup: PromptLookup = prompt_lookup.OFF,
) -> tuple[DecodeState, jax.Array]:
    """Runs up to `num_steps` steps in slots [M], or in all slots in place if `slots` is None.

    A step samples one token per slot, or up to 1 + lookup.num_tokens. The loop ends early once all
    slots are done. Only the first `length` positions of the cache are used; no running slot may get
    past them in this chunk.

    On a mesh, each shard of the slots runs this on its own. `slots` is then the concatenation of
    the shards' parts, with indices within a shard; indices >= a shard's number of slots are padding
    and are ignored.

    Returns the state and [2, B] int32: the position and the done flag of every slot. These are
    replicated, so every host schedules alike.
    """
    run = functools.partial(
        _decode_rows,
        method=method,
        num_steps=num_steps,
        stop_ids=stop_ids,
        length=length,
        lookup=lookup,
    )
    state = map_row_shards(run, (model, jnp.asarray(seed)), state, slots, whole=(0,))
    flags = jnp.stack([state.position, state.done.astype('int32')])
    return state, sharding.constrain(flags, (None, None))


def _decode_rows(
    model_and_seed: tuple[Transformer, jax.Array],
    state: DecodeState,
    slots: jax.Array | None,
    *,
    method: AnyMethod,
    num_steps: int,
    stop_ids: tuple[int, ...],
    length: int,
    lookup: PromptLookup,
) -> DecodeState:
    """`decode_chunk` of the slots of one shard."""
    model, seed = model_and_seed
    part = select_slots(state, slots, length)
    # Drawn before the loop, which is faster than in every step.
    max_tokens = num_steps * (1 + lookup.num_tokens)
    noise = Noise.draw(seed, part.request, part.position + 1, length=max_tokens)
    dequantize_in_loop = quantization.is_quantized(model) and platforms.target_platform() != 'cpu'

    def is_running(carry):
        step, part = carry
        return (step < num_steps) & any_shard(~part.done.all())

    def advance(carry):
        step, part = carry
        weights_now = model
        if dequantize_in_loop:
            # The barrier ties the weights to the changing `step`. Without it XLA moves the
            # dequantization out of the loop and reads wide copies of the weights instead.
            weights_now = jax.lax.optimization_barrier((model, step))[0]
        part = _step(weights_now, part, noise, method=method, stop_ids=stop_ids, lookup=lookup)
        return step + 1, part

    _, part = jax.lax.while_loop(is_running, advance, (jnp.int32(0), part))
    return constrain(scatter_slots(state, part, slots))


@placement.pinned_jit(axes={'state': STATE_AXES, 'slots': placement.ROWS})
def read_slots(state: DecodeState, slots: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tokens [M, S], log-probabilities [M, S] and steps [M] of slots [M], on every host.

    On a mesh, `slots` are as in `decode_chunk`.
    """

    def read(arrays, slots):
        return tuple(x[slots] for x in arrays)

    return map_row_shards(read, (state.tokens, state.logprobs, state.steps), slots)


def select_slots(state: DecodeState, slots: jax.Array | None, length: int) -> DecodeState:
    """The state of slots [M], or of all if None, with the first `length` positions of the cache."""
    cache = jax.tree.map(lambda x: x[:, :, :length], state.cache)
    part = dataclasses.replace(state, cache=cache)
    if slots is None:
        return part
    part = jax.tree.map(lambda x: x.at[slots].get(mode='clip'), part)
    padding = slots >= state.done.shape[0]
    return constrain(dataclasses.replace(part, done=part.done | padding))


def scatter_slots(state: DecodeState, part: DecodeState, slots: jax.Array | None) -> DecodeState:
    """Writes the result of `select_slots` back to the slots that it came from."""

    def put(into, values):
        # Leaves of three and more dimensions are of the cache, of which `part` has a shorter one.
        index = () if into.ndim < 3 else (slice(None), slice(values.shape[2]))
        return into.at[(slice(None) if slots is None else slots, *index)].set(values, mode='drop')

    return jax.tree.map(put, state, part)


def constrain(state: DecodeState) -> DecodeState:
    """Splits cache heads over the mesh as the model's key/value heads; slots are split already."""
    axes = {1: ('batch',), 2: ('batch', None), 4: ('batch', 'kv_heads', None, None)}
    return jax.tree.map(lambda x: sharding.constrain(x, axes[x.ndim]), state)


def _step(
    model: Transformer,
    state: DecodeState,
    noise: Noise,
    *,
    method: AnyMethod,
    stop_ids: tuple[int, ...],
    lookup: PromptLookup,
) -> DecodeState:
    """Reads the last tokens and their drafts and samples what follows; skips done slots."""
    nowhere = kv_cache.NOWHERE
    draft = lookup.draft(state.tokens, state.position)
    tokens = lookup.sequence(state.last_token, draft)
    positions = state.position[:, None] + jnp.arange(tokens.shape[1])
    read_at = jnp.where(state.done[:, None], nowhere, positions)
    hidden, cache = model(tokens, read_at, cache=state.cache)
    next_positions = positions[:, : 1 + lookup.num_tokens] + 1
    sample_noise, logits = noise.at(next_positions), lookup.logits(model, hidden)
    place = Place(next_positions, next_positions - state.turn_start[:, None], role=None)
    index = state.method[:, None]
    with numerics.of(model.config):
        token, logprob, pauses = draw(method, sample_noise, logits, place=place, index=index)
    stopped = (token[:, :, None] == jnp.asarray(stop_ids)).any(axis=2)
    if pauses is not None:
        stopped |= pauses
    ended = stopped | (next_positions + 1 >= state.stop_at[:, None])
    # A sampled token is valid if the draft predicted all tokens before it and none of these ended
    # the sequence. What the pass wrote to the cache after it is masked until it is overwritten.
    predicted = (draft == token[:, :-1]) & ~ended[:, :-1]
    valid = jnp.concatenate([~state.done[:, None], predicted], axis=1).cumprod(axis=1).astype(bool)
    count = valid.sum(axis=1)
    last = jnp.take_along_axis(token, jnp.maximum(count - 1, 0)[:, None], axis=1)[:, 0]
    at = jnp.where(valid, next_positions, nowhere)
    put = jax.vmap(lambda into, at, values: into.at[at].set(values, mode='drop'))
    return constrain(
        dataclasses.replace(
            state,
            cache=cache,
            last_token=jnp.where(state.done, state.last_token, last),
            position=state.position + count,
            done=state.done | (valid & ended).any(axis=1),
            steps=state.steps + ~state.done,
            tokens=put(state.tokens, at, token),
            logprobs=put(state.logprobs, at, logprob),
        )
    )
