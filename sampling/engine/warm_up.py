"""All programs of an engine, by name, in the order in which they depend on each other.

`Engine.warm_up` runs them, so that nothing compiles later. The dry run compiles the same calls for
a machine that need not be present (train/planning/compiled.py).
"""

import itertools
from typing import Any, Protocol

import numpy as np

from elenchus.model import quantization
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine import decode, prefill, prefix_cache
from elenchus.sampling.engine.decode import DecodeState
from elenchus.sampling.engine.prefill import PrefillBatch
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.engine.shapes import EngineSettings


class Call(Protocol):
    """Runs, or compiles, one program: a function with a method `lower`, such as `jax.jit` makes."""

    def __call__(self, name: str, function, /, *args, **kwargs) -> Any:
        """Returns function(*args, **kwargs), or the shapes and shardings of that."""


def execute(name: str, function, /, *args, **kwargs) -> Any:
    """Runs a program; the name is for other kinds of `Call`."""
    return function(*args, **kwargs)


def run_programs(
    settings: EngineSettings,
    model: Transformer,
    *,
    method: Method,
    stop_ids: tuple[int, ...],
    call: Call = execute,
) -> None:
    """Calls every program that `Engine.generate` can run with this model and method."""
    s = settings
    if s.quantize != 'none':
        model = call('quantize', quantization.quantize_matrices, model, kind=s.quantize)
    state = call(
        'slots',
        decode.init_state,
        model.config,
        batch=s.num_slots,
        length=s.max_length,
        dtype=s.cache_dtype,
    )
    prefixes = _prefixes(s, model, call)
    state = _prefills(s, model, state, caches=(None, *prefixes), call=call)
    layout = decode.decoding_layout()
    decode_model = model if layout is None else call('decoding layout', layout, model)
    for length, size in itertools.product(s.decode_length_buckets, s.decode_batch_buckets):
        state, _ = call(
            f'decode {size} x {length}',
            decode.decode_chunk,
            decode_model,
            state,
            pad_slots(s, (), size),
            method=method,
            seed=np.uint32(0),
            num_steps=s.chunk_steps,
            stop_ids=stop_ids,
            length=length,
            lookup=s.lookup,
        )
    slots = np.zeros(s.prefill_batch_sizes[-1], np.int32)
    call('read slots', decode.read_slots, state, slots)
    for cache in prefixes:
        call('add prefixes', prefix_cache.copy_slots, cache, state.cache, slots=slots, rows=slots)


def _prefixes(s: EngineSettings, model: Transformer, call: Call) -> tuple:
    """The prefix cache, () if the settings have none."""
    if not s.prefix_cache_rows:
        return ()
    shape = {'batch': s.prefix_cache_rows, 'length': s.prefix_cache_length, 'dtype': s.cache_dtype}
    return (call('prefix cache', prefix_cache.init_cache, model.config, **shape),)


def _prefills(s: EngineSettings, model: Transformer, state, *, caches, call: Call) -> DecodeState:
    """Calls prefill in all shapes, without and with cached prefixes; returns the slots."""
    for length, rows in itertools.product(s.prompt_buckets, s.prefill_batch_sizes):
        for slots, cache in itertools.product(sorted({rows, s.num_slots}), caches):
            name = f'prefill {rows} x {length} into {slots} slots'
            state = call(
                name if cache is None else f'{name} from prefixes',
                prefill.fill_slots,
                model,
                state,
                PrefillBatch.empty(s, rows=rows, length=length, slots=slots),
                prefixes=cache,
                chunk=s.prefill_chunk,
            )
    return state


def pad_slots(settings: EngineSettings, slots, size: int) -> np.ndarray | None:
    """Sorted slots padded to `size`; None, which is all slots in place, if that is all."""
    num_slots = settings.num_slots
    if size == num_slots:
        return None
    return np.array((*sorted(slots), *[num_slots] * size)[:size], np.int32)
