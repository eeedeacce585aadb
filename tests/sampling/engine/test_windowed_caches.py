"""Layers with a window keep the positions that they still read, and results are those of all."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import kv_cache, sharding
from elenchus.sampling.engine import decode, engine
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.sampling_methods import TemperatureSampling
from elenchus.sampling.engine.shapes import EngineSettings
from tests.support import tiny_model

SLOW = pytest.mark.slow
CONFIG = dataclasses.replace(tiny_model.EVERYTHING, max_length=48, num_heads=4, num_kv_heads=2)
LOCAL = dataclasses.replace(CONFIG, windows=(4,))  # every layer has a window, as Mistral's
V, WINDOW = CONFIG.vocab_size, CONFIG.windows[0]
SAMPLING = TemperatureSampling(1.0, 0, 1.0, 0.0, banned=(0, 1))
SETTINGS = EngineSettings(
    num_slots=8,
    max_length=48,
    chunk_steps=4,
    prompt_buckets=(8, 32),
    prefill_batch_sizes=(2,),
    decode_batch_sizes=(),
    decode_cache_lengths=(),
)


@functools.cache
def model(config=CONFIG):
    return tiny_model.make_model(config)


@functools.partial(tiny_model.jit)
def read(model, tokens, positions, cache):
    hidden, cache = model(tokens, positions, cache=cache)
    return hidden, cache


@pytest.mark.parametrize(
    'config, dtype, seed',
    [
        (CONFIG, 'model', 0),
        pytest.param(LOCAL, 'model', 1, marks=SLOW),
        pytest.param(CONFIG, 'int8', 2, marks=SLOW),
        *(pytest.param(CONFIG, 'model', seed, marks=SLOW) for seed in range(3, 9)),
    ],
    ids=['mixed', 'all', 'int8', *map(str, range(3, 9))],
)
def test_steps_of_several_tokens_read_what_a_whole_cache_holds(config, dtype, seed):
    """Of each step only some tokens are right; what follows them is written again by the next."""
    size, length, rows = 3, 40, 2
    rng = np.random.default_rng(seed)
    tokens = rng.integers(4, V, (rows, length + size))
    shape = {'batch': rows, 'length': length, 'dtype': dtype}
    whole = kv_cache.init_cache(config, **shape)
    short = kv_cache.init_cache(config, **shape, step_tokens=size)
    position, errors = np.zeros(rows, int), []
    while position.max() + size <= length:
        count = rng.integers(1, size + 1, rows)
        positions = position[:, None] + np.arange(size)
        new = np.take_along_axis(tokens, positions, axis=1)
        new = np.where(np.arange(size) < count[:, None], new, rng.integers(4, V, new.shape))
        expected, whole = read(model(config), new, positions, whole)
        actual, short = read(model(config), new, positions, short)
        errors.append(np.abs(actual - expected))
        position += count
    errors = np.stack(errors)
    # A last digit decides to which of two int8 numbers an entry is rounded.
    assert np.quantile(errors, 0.9) < 2e-5
    assert errors.max() < (0.1 if dtype == 'int8' else 2e-5)
    assert sum(short.lengths) < sum(whole.lengths)


def test_only_layers_with_a_window_are_short_and_only_as_short_as_a_step_allows():
    lengths = functools.partial(kv_cache.layer_lengths, CONFIG)
    assert CONFIG.layer_windows == (WINDOW, 0)
    assert lengths(48) == lengths(48, 0) == (48, 48)
    assert lengths(48, 1) == (WINDOW, 48) and lengths(48, 4) == (WINDOW + 3, 48)
    assert lengths(3, 1) == (3, 3)


@pytest.mark.parametrize('step_tokens', [0, 1, 4])
@pytest.mark.parametrize('dtype', ['model', 'int8'])
def test_bytes_are_those_of_the_arrays(step_tokens, dtype):
    shape = {'batch': 3, 'length': 48, 'dtype': dtype, 'step_tokens': step_tokens}
    cache = jax.eval_shape(lambda: kv_cache.init_cache(CONFIG, **shape))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache))
    assert kv_cache.cache_bytes(CONFIG, **shape) == size


def test_a_write_to_nowhere_changes_no_layer():
    cache = kv_cache.init_cache(CONFIG, batch=2, length=48, step_tokens=1)
    at = jnp.full((2, 1), kv_cache.NOWHERE)
    _, after = read(model(), jnp.full((2, 1), 5), at, cache)
    for x in jax.tree.leaves(after):
        assert not x.any()


def requests():
    """Prompts shorter and longer than a window and than a bucket; some are equal."""
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(4, V, n).tolist()) for n in (1, 3, 5, 6, 9, 14, 20, 31)]
    return [Request(i, prompts[i % len(prompts)], 16 - i % 5) for i in range(12)]


def generate(config=CONFIG, **changed):
    sampler = engine.Engine(dataclasses.replace(SETTINGS, **changed), stop_ids=(1,))
    return sampler.generate(model(config), requests(), method=SAMPLING, seed=0)


def with_whole_caches(**options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EngineSettings, 'step_tokens', 0)
        return generate(**options)


def assert_same(actual, expected, tolerance=2e-5):
    assert [c.tokens for c in actual] == [c.tokens for c in expected]
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=tolerance)


DRAFTS = {'draft_tokens': 3, 'draft_ngram': 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    'options',
    [
        {},
        DRAFTS | {'decode_cache_lengths': (16, 24), 'decode_batch_sizes': (4,)},
        {'decode_cache_lengths': (4, 16), 'chunk_steps': 2},
        {'prefill_chunk': 8},
        {'cache_dtype': 'int8'},
        {'config': LOCAL},
        {'config': LOCAL, **DRAFTS},
    ],
    ids=str,
)
def test_samples_are_those_of_whole_caches(options):
    assert_same(generate(**options), with_whole_caches(**options))


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(8, 1, 1), (2, 2, 2), (1, 2, 4)], ids=str)
def test_samples_on_meshes_are_those_of_one_device(shape):
    config = dataclasses.replace(CONFIG, num_heads=8, num_kv_heads=4)
    shards = {'prefill_batch_sizes': (8,)}
    expected = generate(config, **shards)
    with jax.set_mesh(sharding.make_mesh(shape)):
        assert_same(generate(config, **shards), expected)


def test_a_prefix_cache_keeps_all_positions_and_slots_do_not():
    for rows, lengths in ((0, (WINDOW, 48)), (4, (48, 48))):
        changed = {'prefix_cache_rows': rows, 'prefix_cache_length': 24 if rows else 0}
        shapes = dataclasses.replace(SETTINGS, **changed).slot_shapes
        state = jax.eval_shape(lambda shapes=shapes: decode.init_state(CONFIG, **shapes))
        assert state.cache.lengths == lengths
