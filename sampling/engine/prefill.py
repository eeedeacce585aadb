"""Prefill: reads prompts with the model and writes their keys and values into slots.

A row of a prefill holds several prompts (refill.py chooses them), which do not attend to each
other. The keys and values of a prompt are copied into its slots in place, by blocks of positions,
so no array of the size of all slots, or of a row for each slot, is ever built.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.model import kv_cache, placement
from elenchus.model.kv_cache import CacheDtype, KVCache
from elenchus.model.row_shards import map_row_shards
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine import decode
from elenchus.sampling.engine.decode import DecodeState

Array = np.ndarray | jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PrefillBatch:
    """R rows of prompts, and M entries: a slot and the prompt that it gets.

    Several slots may get the same prompt. With a cached prefix, the model reads only the tokens
    after it, and a row has one prompt. On a mesh, every array is the shards' parts behind each
    other, and rows and slots count within a shard.
    """

    tokens: Array  # [R, P] int32, the tokens to read
    starts: Array | None  # [R, P] int32, index where a token's prompt starts; None: at 0, alone
    count: Array  # [shards] int32, entries in use, which come first
    rows: Array  # [M] int32, row of the prompt
    offsets: Array  # [M] int32, index of its first token in the row
    lengths: Array  # [M] int32, tokens of the whole prompt
    slots: Array  # [M] int32, the slot; that of an unused entry does not exist
    requests: Array  # [M] int32, request ids
    methods: Array  # [M] int32, indices of the requests' sampling methods
    turn_start: Array  # [M] int32, position of the first token of the turn
    stop_at: Array  # [M] int32, first position that may not be sampled
    prompts: Array | None  # [M, W] int32, whole prompts, for prompt lookup; None = not in use
    prefix_rows: Array  # [R] int32, row of the prefix cache
    prefix_lengths: Array  # [R] int32, tokens taken from that row; 0 in all rows = not in use


def block_width(length: int) -> int:
    """Returns how many positions of a prompt in a row of `length` are copied at once.

    A shorter prompt is copied with what follows it, so it needs as much room in its row.
    """
    return max(1, min(128, length // 4))


@placement.pinned_jit(
    donate_argnames='state',
    static_argnames='chunk',
    axes={'state': decode.STATE_AXES, 'batch': placement.ROWS, 'prefixes': kv_cache.AXES},
    out_axes=decode.STATE_AXES,
)
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
    positions are read per forward pass, all at once if it is 0; it must divide longer prompts. On a
    mesh, each shard of the slots reads the prompts of its own slots.
    """
    fill = functools.partial(_fill_rows, chunk=chunk)
    return map_row_shards(fill, model, state, (batch, prefixes), whole=(0,))


def _fill_rows(
    model: Transformer,
    state: DecodeState,
    prompts: tuple[PrefillBatch, KVCache | None],
    *,
    chunk: int,
) -> DecodeState:
    """`fill_slots` of one shard; `prompts` are the batch and the prefix cache."""
    batch, prefixes = prompts
    R, P = batch.tokens.shape
    if prefixes is None:
        cache, prefix_lengths = None, jnp.zeros(R, 'int32')
    else:
        # Positions past the end are dropped. These are only padding: prompts fit max_length.
        room = min(P, state.tokens.shape[1] - prefixes.length)
        cache = extend_prefix(prefixes, batch.prefix_rows, room)
        prefix_lengths = batch.prefix_lengths
    cache = _read_prompts(
        model, batch, prefix_lengths, cache=cache, dtype=state.cache.dtype, chunk=chunk
    )
    last = batch.lengths - 1
    at = batch.offsets + last - prefix_lengths[batch.rows]

    def put(into, values):
        return into.at[batch.slots].set(values, mode='drop')

    tokens = state.tokens
    if batch.prompts is not None:
        tokens = write_prompts(tokens, batch.prompts, batch.slots)
    return decode.constrain(
        dataclasses.replace(
            state,
            cache=copy_prompts(state.cache, cache, batch),
            # The first decode step reads the last prompt token again, as it needs the logits there;
            # prefill computes none. It writes the same keys and values.
            last_token=put(state.last_token, batch.tokens[batch.rows, at]),
            position=put(state.position, last),
            request=put(state.request, batch.requests),
            method=put(state.method, batch.methods),
            turn_start=put(state.turn_start, batch.turn_start),
            stop_at=put(state.stop_at, batch.stop_at),
            done=put(state.done, False),
            steps=put(state.steps, 0),
            tokens=tokens,
        )
    )


def copy_prompts(cache: KVCache, source: KVCache, batch: PrefillBatch) -> KVCache:
    """Copies the prompt of each entry from its place in `source` to the start of its slot.

    Blocks of one width are copied, and the last one ends with the prompt: it never reads or writes
    past the end of a row. Of layers that are shorter than a row, the last positions are copied.
    """
    width = block_width(source.length)
    is_short = [cache.is_windowed and n < source.length for n in cache.lengths]
    short, long = (
        [i for i, is_of_these in enumerate(is_short) if is_of_these == wanted]
        for wanted in (True, False)
    )
    of_source = [kv_cache.as_bits([source.layers[i] for i in n]) for n in (short, long)]

    def copy_entry(i, layers):
        row, offset, length = batch.rows[i], batch.offsets[i], batch.lengths[i]
        last = kv_cache.copy_last(
            layers[0], of_source[0], length=length, slot=batch.slots[i], origin=(row, offset)
        )

        def copy_one(j, layers):
            at = jnp.minimum(j * width, jnp.maximum(length - width, 0))
            return kv_cache.copy_block(
                layers,
                of_source[1],
                width=width,
                destination=(batch.slots[i], at),
                origin=(row, offset + at),
            )

        count = -(-length // width) if long else 0
        return last, jax.lax.fori_loop(0, count, copy_one, layers[1])

    of_slots = [kv_cache.as_bits([cache.layers[i] for i in n]) for n in (short, long)]
    copied = jax.lax.fori_loop(0, batch.count[0], copy_entry, tuple(of_slots))
    copied = kv_cache.from_bits(copied)
    layers = dict(zip([*short, *long], [*copied[0], *copied[1]], strict=True))
    return dataclasses.replace(cache, layers=tuple(layers[i] for i in range(len(layers))))


def extend_prefix(prefixes: KVCache, rows: jax.Array, room: int) -> KVCache:
    """Rows [R] of the prefix cache, each with `room` more positions."""
    return jax.tree.map(lambda x: jnp.pad(x[rows], ((0, 0), (0, 0), (0, room), (0, 0))), prefixes)


def write_prompts(tokens: jax.Array, prompts: jax.Array, slots: jax.Array) -> jax.Array:
    """Writes prompts [M, W] at the start of the token buffers [B, S] of slots [M]."""
    return tokens.at[slots, : prompts.shape[1]].set(prompts, mode='drop')


def _read_prompts(
    model: Transformer,
    batch: PrefillBatch,
    prefix_lengths: jax.Array,
    *,
    cache: KVCache | None,
    dtype: CacheDtype,
    chunk: int,
) -> KVCache:
    """The cache of a batch's tokens [R, P] behind their prefixes; new, of length P, if None."""
    tokens = batch.tokens
    R, P = tokens.shape
    if batch.starts is not None:
        positions = jnp.arange(P) - batch.starts
        return model(tokens, positions, segments=batch.starts + 1, return_cache=dtype)[1]
    positions = prefix_lengths[:, None] + jnp.arange(P)
    if not 0 < chunk < P:
        return model(tokens, positions, cache=cache, return_cache=dtype)[1]
    if cache is None:
        cache = kv_cache.init_cache(model.config, batch=R, length=P, dtype=dtype)

    def read_chunk(cache, piece):
        return model(*piece, cache=cache)[1], None

    pieces = [x.reshape(R, P // chunk, chunk).swapaxes(0, 1) for x in (tokens, positions)]
    return jax.lax.scan(read_chunk, cache, tuple(pieces))[0]
