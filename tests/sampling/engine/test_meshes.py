"""The sampler on meshes: its compiled programs, real arrays, and the same tokens."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from elenchus.model import lora, placement, quantization, row_shards, sharding
from elenchus.sampling.engine import decode, engine, prefill, refill, sampling_methods, weights
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.shapes import EngineSettings
from tests.support import slow_cases, tiny_model
from tests.support.compilations import count_compilations
from tests.support.compiled_programs import collectives, num_loops

EOS = 1
CONFIG = dataclasses.replace(
    tiny_model.CONFIG,
    vocab_size=64,
    embed_dim=32,
    mlp_dim=48,
    num_heads=8,
    num_kv_heads=8,
    head_dim=8,
    max_length=64,
)
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)]
SETTINGS = EngineSettings(
    num_slots=16,
    max_length=64,
    chunk_steps=4,
    prompt_buckets=(24,),
    prefill_batch_sizes=(8, 16),
    decode_batch_sizes=(8,),
    decode_cache_lengths=(32,),
)
SMALL = dataclasses.replace(
    SETTINGS,
    prefill_batch_sizes=(8,),
    decode_batch_sizes=(),
    decode_cache_lengths=(),
)
"""Settings with few programs, which sample the same."""
SAMPLING = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=(0,))


@functools.cache
def model(config=CONFIG, seed=0):
    # Host arrays belong to no mesh.
    return jax.device_get(tiny_model.make_model(config, seed))


@functools.cache
def requests(count=30, samples=3):
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(10, 64, rng.integers(1, 22)).tolist()) for _ in range(count)]
    lengths = rng.integers(1, 30, count)
    return tuple(Request(i, prompts[i // samples], int(lengths[i])) for i in range(count))


def tokens(completions):
    return {completion.id: completion.tokens for completion in completions}


@functools.cache
def alone(config=CONFIG, **changed):
    """Tokens sampled on one device."""
    settings = dataclasses.replace(SMALL, **changed)
    sampler = engine.Engine(settings, stop_ids=(EOS,))
    return tokens(sampler.generate(model(config), requests(), method=SAMPLING, seed=0))


def lowered_chunk(shape, config=CONFIG, slots=None):
    """The compiled decode chunk of an engine on a trainer's mesh of this shape."""
    with jax.set_mesh(sharding.make_mesh(shape)):
        here = weights.sampler_placement(SETTINGS)
        placed = weights.place_weights(
            placement.current().place(model(config)), SETTINGS, here
        ).decode
        with here.in_force():
            state = decode.init_state(placed.config, batch=16, length=64)
            return decode.decode_chunk.lower(
                placed,
                state,
                slots,
                method=SAMPLING,
                seed=np.uint32(0),
                num_steps=16,
                stop_ids=(EOS,),
                length=64,
            ).compile()


@slow_cases.combinations(
    {((8, 1, 1), None), ((2, 4, 1), 8)},
    shape=[(8, 1, 1), (1, 8, 1), (2, 4, 1)],
    slots=[None, 8],
)
def test_decoding_without_a_tensor_axis_has_no_collective_in_its_loop(shape, slots):
    slots = None if slots is None else np.zeros(slots, np.int32)
    text = lowered_chunk(shape, slots=slots).as_text()
    assert num_loops(text) >= 1
    assert [c.line for c in collectives(text) if c.in_loop] == []
    # Outside, the flags alone: [2, B] int32.
    assert all(c.size <= 2 * 16 for c in collectives(text)), collectives(text)


@slow_cases.combinations({((2, 2, 2),)}, shape=[(2, 2, 2), (1, 2, 4), (1, 1, 8)])
def test_decoding_with_a_tensor_axis_moves_activations_of_its_own_rows_only(shape):
    text = lowered_chunk(shape).as_text()
    rows, smallest_weight = 16 * shape[2] // 8, 32 * 48 // 8
    in_loop = [c for c in collectives(text) if c.in_loop]
    assert in_loop
    for c in in_loop:
        assert c.kind == 'all-reduce' or c.size <= rows * 64, c  # logits of the own rows at most
        assert not c.shape or c.shape[0] == rows or c.size <= rows * 32, c
    outside = [c for c in collectives(text) if not c.in_loop]
    assert all(c.size < smallest_weight for c in outside), outside


def compiled_prefill(shape, *, rows, slots, length=32):
    settings = dataclasses.replace(
        SETTINGS, num_slots=slots, prefill_batch_sizes=(rows,), prompt_buckets=(length,),
        decode_batch_sizes=(),
    )  # fmt: skip
    with jax.set_mesh(sharding.make_mesh(shape)):
        here = weights.sampler_placement(settings)
        placed = weights.place_weights(placement.current().place(model()), settings, here).prefill
        shards = row_shards.num_row_shards(here.mesh)
        empty = refill.Prefill(((),) * shards, rows // shards, length, False)
        with here.in_force():
            state = decode.init_state(placed.config, batch=slots, length=64)
            compiled = prefill.fill_slots.lower(placed, state, refill.to_batch(settings, empty))
            return compiled.compile(), state, placed


@slow_cases.combinations({((1, 8, 1),)}, shape=[(8, 1, 1), (1, 8, 1)])
def test_a_prefill_stays_in_its_shard_and_takes_the_memory_of_its_rows(shape):
    compiled, state, _ = compiled_prefill(shape, rows=32, slots=64)
    assert collectives(compiled.as_text()) == []
    one = compiled_prefill((8, 1, 1), rows=8, slots=64)[0]
    usage, least = compiled.memory_analysis(), one.memory_analysis()
    prompt_cache = 2 * 2 * 32 * 8 * 32 * 8 * 4  # layers, keys and values, rows, K, P, H, float32
    assert usage.temp_size_in_bytes < prompt_cache
    assert usage.temp_size_in_bytes < 5 * least.temp_size_in_bytes
    # The slots are updated in place.
    local = sum(x.nbytes for x in jax.tree.leaves(state)) // 8
    assert usage.alias_size_in_bytes >= local


def test_a_prefill_computes_only_its_own_rows():
    flops = {
        rows: compiled_prefill((8, 1, 1), rows=rows, slots=64)[0].cost_analysis()['flops']
        for rows in (8, 32)
    }
    assert flops[8] < 0.3 * flops[32]


@slow_cases.combinations({((2, 2, 2),)}, shape=MESHES)
def test_an_engine_on_a_mesh_samples_the_same_and_compiles_each_program_once(shape):
    with jax.set_mesh(sharding.make_mesh(shape)):
        placed = placement.current().place(model())
        sampler = engine.Engine(SETTINGS, stop_ids=(EOS,))
        sampler.warm_up(placed, method=SAMPLING)
        before = [len(f.programs) for f in (decode.decode_chunk, prefill.fill_slots)]
        with count_compilations() as compiled:
            first = sampler.generate(placed, requests(), method=SAMPLING, seed=0)
            again = sampler.generate(placed, requests(), method=SAMPLING, seed=0)
        after = [len(f.programs) for f in (decode.decode_chunk, prefill.fill_slots)]
    assert not compiled and after == before
    assert tokens(first) == tokens(again) == alone()


@slow_cases.combinations({((2, 2, 2),)}, shape=[(2, 2, 2), (1, 8, 1)])
def test_slots_and_weights_lie_where_the_sampler_says(shape, monkeypatch):
    states, decode_chunk = [], decode.decode_chunk

    def recording(model, state, *args, **kwargs):
        state, flags = decode_chunk(model, state, *args, **kwargs)
        states.append((model, jax.tree.map(lambda x: x.sharding, state), flags.sharding))
        return state, flags

    monkeypatch.setattr(decode, 'decode_chunk', recording)
    with jax.set_mesh(sharding.make_mesh(shape)):
        placed = placement.current().place(model())
        sampler = engine.Engine(SETTINGS, stop_ids=(EOS,))
        sampler.generate(placed, requests(), method=SAMPLING, seed=0)
        here = weights.sampler_placement(SETTINGS)
    assert len(states) > 3
    for read, places, flags in states:
        pairs = zip(jax.tree.leaves(read), jax.tree.leaves(here.shardings(read)), strict=True)
        assert all(x.sharding == place for x, place in pairs)
        assert flags.is_fully_replicated
        for name, place in jax.tree_util.tree_leaves_with_path(places):
            rows = place.shard_shape((16, 8, 64, 8)[: 4 if 'cache' in str(name) else 1])
            assert rows[0] == 16 * shape[2] // 8
    # Nothing of the sampler's copies is alive after the call.
    up = states[0][0].blocks[0].mlp.up[...]
    assert up.sharding.shard_shape(up.shape) == (32, 48 // shape[2])


@slow_cases.combinations({(1,)}, tensor=[1, 2, 8])
def test_the_samplers_tensor_shards_are_its_own(tensor):
    with jax.set_mesh(sharding.make_mesh((1, 4, 2))):
        placed = placement.current().place(model())
        settings = dataclasses.replace(SMALL, tensor_shards=tensor)
        sampler = engine.Engine(settings, stop_ids=(EOS,))
        completions = sampler.generate(placed, requests(), method=SAMPLING, seed=0)
    assert tokens(completions) == alone()


HEADS = {
    'gemma 3 1B': {'num_heads': 4, 'num_kv_heads': 1},
    'qwen 2.5 1.5B': {'num_heads': 12, 'num_kv_heads': 2, 'qkv_bias': True},
    'three of six': {'num_heads': 6, 'num_kv_heads': 3, 'qk_norm': True},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'tensor', 'kind'),
    [
        ('gemma 3 1B', 4, 'none'),
        ('gemma 3 1B', 8, 'int8'),
        ('qwen 2.5 1.5B', 4, 'lora'),
        ('qwen 2.5 1.5B', 8, 'none'),
        ('three of six', 4, 'none'),
    ],
)
def test_heads_that_tensor_does_not_divide_are_repeated(name, tensor, kind):
    config = dataclasses.replace(CONFIG, **HEADS[name], windows=(5, 0), attention_soft_cap=5.0)
    player = model(config)
    settings = SMALL
    if kind == 'int8':
        settings = dataclasses.replace(settings, quantize='int8', cache_dtype='int8')
    if kind == 'lora':
        player = with_adapters(player)
    sampler = engine.Engine(settings, stop_ids=(EOS,))
    expected = tokens(sampler.generate(player, requests(), method=SAMPLING, seed=0))
    settings = dataclasses.replace(settings, tensor_shards=tensor)
    with jax.set_mesh(sharding.make_mesh((8, 1, 1))):
        placed = placement.current().place(player)
        sampler = engine.Engine(settings, stop_ids=(EOS,))
        completions = sampler.generate(placed, requests(), method=SAMPLING, seed=0)
        here = weights.sampler_placement(settings)
        read = weights.place_weights(placed, settings, here).decode
    assert tokens(completions) == expected
    key = jax.tree.leaves(read.blocks[0].attention.key)[0]
    assert key.shape[1] == read.config.num_kv_heads == np.lcm(config.num_kv_heads, tensor)
    assert key.sharding.shard_shape(key.shape)[1] == key.shape[1] // tensor


def with_adapters(player):
    settings = lora.LoraSettings(rank=2, alpha=4.0, targets=('query', 'key', 'out', 'up'))
    adaptation = lora.Adaptation(settings, '', '', 'none')
    adapters = lora.init_adapters(player.config, adaptation, jax.random.key(3))
    rng = np.random.default_rng(5)
    adapters = jax.tree.map(
        lambda x: (0.2 * rng.standard_normal(x.shape)).astype(x.dtype), adapters
    )
    return lora.join(adapters, player)


def test_bfloat16_activations_store_weights_once_in_bfloat16_and_norms_as_they_are():
    config = dataclasses.replace(CONFIG, dtype='bfloat16')
    player = model(config)
    with jax.set_mesh(sharding.make_mesh((1, 8, 1))):
        placed = placement.current().place(player)
        here = weights.sampler_placement(SETTINGS)
        read = weights.place_weights(placed, SETTINGS, here).decode
    for path, leaf in jax.tree_util.tree_leaves_with_path(read):
        assert leaf.dtype == ('float32' if 'scale' in str(path) else 'bfloat16'), path
    assert read.config == config


@pytest.mark.slow
def test_the_samplers_dtype_is_that_of_a_model_in_it():
    half = dataclasses.replace(CONFIG, dtype='bfloat16')
    settings = dataclasses.replace(SMALL, dtype='bfloat16')
    sampler = engine.Engine(settings, stop_ids=(EOS,))
    completions = sampler.generate(model(), requests(), method=SAMPLING, seed=0)
    assert tokens(completions) == alone(half) != alone()


@pytest.mark.slow
def test_half_precision_runs_on_a_mesh_with_a_tensor_axis():
    settings = dataclasses.replace(SMALL, dtype='bfloat16')
    with jax.set_mesh(sharding.make_mesh((2, 2, 2))):
        placed = placement.current().place(model())
        sampler = engine.Engine(settings, stop_ids=(EOS,))
        completions = sampler.generate(placed, requests(), method=SAMPLING, seed=0)
    assert [c.id for c in completions] == [r.id for r in requests()]
    assert all(np.isfinite(c.logprobs).all() for c in completions)


def test_quantized_is_quantized_from_the_weights_as_trained():
    settings = dataclasses.replace(SETTINGS, quantize='int8')
    config = dataclasses.replace(CONFIG, dtype='bfloat16')
    whole = quantization.quantize(model(config), 'int8').unstacked()
    with jax.set_mesh(sharding.make_mesh((4, 2, 1))):
        placed = placement.current().place(model(config))
        here = weights.sampler_placement(settings)
        read = weights.place_weights(placed, settings, here).decode
    for one, other in zip(
        *(jax.tree.leaves(m.blocks[1].mlp.down) for m in (read, whole)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'num_slots': 20, 'decode_batch_sizes': ()}, r'num_slots=20: 20 .* 8 shards.*nearest: 16'),
        ({'prefill_batch_sizes': (4, 16)}, r'prefill_batch_sizes=\(4, 16\): 4 .*nearest: 8'),
        ({'decode_batch_sizes': (12,)}, r'decode_batch_sizes=\(12,\): 12 .*nearest: 16'),
        (
            {'prefix_cache_rows': 9, 'prefix_cache_length': 8},
            r'prefix_cache_rows=9: 9 .*nearest: 8',
        ),
        ({'tensor_shards': 3}, r'tensor_shards=3 must divide the 8 devices.*nearest: (2|4)'),
    ],
    ids=str,
)
def test_shapes_that_do_not_divide_are_an_error_with_the_nearest_size(changed, message):
    settings = dataclasses.replace(SETTINGS, **changed)
    with jax.set_mesh(sharding.make_mesh((4, 2, 1))):
        sampler = engine.Engine(settings, stop_ids=(EOS,))
        with pytest.raises(ValueError, match=r'sampling\.engine\.' + message):
            sampler.generate(model(), requests(), method=SAMPLING, seed=0)
