import dataclasses
import functools
import os.path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.model import kv_cache, sharding
from elenchus.sampling.engine import engine, prefill, prefix_cache, sampling_methods
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.shapes import EngineSettings
from tests.support import tiny_model
from tests.support.compilations import count_compilations

EOS = 1
CONFIG = dataclasses.replace(tiny_model.FLAT, vocab_size=64, max_length=48)
GREEDY = sampling_methods.Greedy(banned=(0, EOS))
SAMPLING = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=(0, EOS))
SETTINGS = EngineSettings(
    num_slots=8,
    max_length=48,
    chunk_steps=4,
    prompt_buckets=(16, 32),
    prefill_batch_sizes=(8,),
    decode_batch_sizes=(),
    decode_cache_lengths=(),
    prefix_cache_rows=12,
    prefix_cache_length=20,
)
INT8 = {'cache_dtype': 'int8', 'quantize': 'int8'}
WORDS = st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple)


@functools.cache
def model(seed=0):
    return tiny_model.make_model(CONFIG, seed)


def make_engine(**changed):
    return engine.Engine(dataclasses.replace(SETTINGS, **changed), stop_ids=(EOS,))


@functools.cache
def attempts():
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(10, 64, n).tolist()) for n in (9, 11, 13)]
    return [Request(i, prompts[i // 4], 5 + i % 4) for i in range(12)]


def refinements(completions):
    """Two requests per completion, with its prompt, its tokens and a critique of its own."""
    rng = np.random.default_rng(1)
    result = []
    for request, done in zip(attempts(), completions, strict=True):
        critique = tuple(rng.integers(10, 64, 3 + request.id % 5).tolist())
        prompt = (*request.prompt, *done.tokens, *critique)
        result += [Request(100 + 2 * request.id + i, prompt, 9) for i in range(2)]
    return result


def episode(sampler, method):
    """Attempts and refinements, by the actor, with a critic's turns between them."""
    first = sampler.generate(model(), attempts(), method=method, seed=3)
    again = refinements(first)
    sampler.generate(model(1), again[::2], method=method, seed=4)
    return first, sampler.generate(model(), again, method=method, seed=5)


def assert_same(one, other):
    assert [c.tokens for c in one] == [c.tokens for c in other]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


@functools.cache
def reference(method, **precision):
    return episode(
        make_engine(prefix_cache_rows=0, prefix_cache_length=0, **precision).with_prefix_cache(),
        method,
    )


@pytest.fixture
def prefills(monkeypatch):
    """(length of the tokens read, whether they follow a cached prefix) of every prefill."""
    calls, fill_slots = [], prefill.fill_slots

    def recording(model, state, batch, *, prefixes, chunk):
        calls.append((batch.tokens.shape[1], prefixes is not None))
        return fill_slots(model, state, batch, prefixes=prefixes, chunk=chunk)

    monkeypatch.setattr(prefill, 'fill_slots', recording)
    return calls


@pytest.mark.parametrize(
    ('method', 'changed'),
    [
        pytest.param(GREEDY, {}, marks=pytest.mark.slow),
        (SAMPLING, {}),
        pytest.param(SAMPLING, INT8, marks=pytest.mark.slow),
        (GREEDY, {'prefill_chunk': 8}),
    ],
    ids=['greedy', 'sampled', 'sampled-int8', 'greedy-in-chunks'],
)
def test_cached_prefixes_never_change_what_is_sampled(method, changed, prefills):
    expected = reference(method, **({} if 'prefill_chunk' in changed else changed))
    prefills.clear()
    for one, other in zip(
        episode(make_engine(**changed).with_prefix_cache(), method), expected, strict=True
    ):
        assert_same(one, other)
    assert {bucket for bucket, has_prefix in prefills if has_prefix} == {16}
    assert sum(has_prefix for _, has_prefix in prefills) >= 3


def test_the_size_of_the_cache_never_changes_what_is_sampled():
    turns = episode(
        make_engine(prefix_cache_rows=2, prefix_cache_length=10).with_prefix_cache(), SAMPLING
    )
    for one, other in zip(turns, reference(SAMPLING), strict=True):
        assert_same(one, other)


def test_a_prompt_uses_a_cached_sequence_only_as_far_as_they_agree():
    sampler, plain = make_engine().with_prefix_cache(), make_engine()
    (done,) = sampler.generate(model(), attempts()[:1], method=GREEDY, seed=0)
    for length in (8, 9, 11):
        prompt = (*attempts()[0].prompt, *done.tokens)[:length] + (60,) * 9
        batch = [Request(0, prompt, 12)]
        assert_same(
            sampler.generate(model(), batch, method=GREEDY, seed=0),
            plain.generate(model(), batch, method=GREEDY, seed=0),
        )


def test_each_model_has_its_own_cache(prefills):
    sampler = make_engine().with_prefix_cache()
    sampler.generate(model(), attempts(), method=GREEDY, seed=0)
    prefills.clear()
    sampler.generate(model(1), attempts()[:4], method=GREEDY, seed=0)
    sampler.with_prefix_cache().generate(model(), attempts()[:4], method=GREEDY, seed=0)
    assert prefills == [(16, False), (16, False)]


@pytest.mark.slow
def test_a_mesh_samples_the_same_and_nothing_compiles_after_warm_up():
    mesh = sharding.make_mesh((2, 2, 2))
    with jax.set_mesh(mesh):
        placed = jax.device_put(model(), sharding.shardings(model(), mesh))
        sampler = make_engine(**INT8, prefill_chunk=8)
        sampler.warm_up(placed, method=SAMPLING)
        cached = sampler.with_prefix_cache()
        with count_compilations() as compiled:
            first = cached.generate(placed, attempts(), method=SAMPLING, seed=3)
            again = cached.generate(placed, refinements(first), method=SAMPLING, seed=5)
    assert not compiled
    assert_same(again, reference(SAMPLING, **INT8)[1])


@given(st.lists(WORDS, max_size=20), st.lists(WORDS, min_size=1, max_size=5), st.integers(1, 4))
def test_the_longest_cached_prefix_is_matched(prefixes, prompts, size):
    stored = {}

    def copy_slots(_, cache, *, slots, rows):
        stored.update({row: cache[slot] for slot, row in zip(slots, rows, strict=True) if row < 5})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_cache, 'init_cache', lambda *_, **__: None)
        patch.setattr(prefix_cache, 'copy_slots', copy_slots)
        cache = prefix_cache.PrefixCache(None, rows=5, length=4)
        for start in range(0, len(prefixes), size):
            group = prefixes[start : start + size]
            cache.add(group, [list(enumerate(group))], size=size)
    entries = {row: prefix[:4] for row, prefix in stored.items()}
    for prompt in prompts:
        row, length = cache.longest_prefix(prompt)
        shared = [len(os.path.commonprefix([prefix, prompt])) for prefix in entries.values()]
        assert length == max(shared, default=0)
        assert not length or entries[row][:length] == prompt[:length]


@pytest.mark.parametrize('dtype', ['model', 'int8'])
def test_cache_bytes_is_the_size_of_the_arrays(dtype):
    entries = make_engine(cache_dtype=dtype).init_prefix_cache(model()).cache
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(entries))
    assert kv_cache.cache_bytes(CONFIG, batch=12, length=20, dtype=dtype) == num_bytes


@pytest.mark.parametrize(
    'changed',
    [
        {'prefix_cache_rows': -1},
        {'prefix_cache_length': 0},
        {'prefix_cache_length': 48},
        {'prefix_cache_rows': 0},
    ],
)
def test_inconsistent_sizes_are_an_error(changed):
    with pytest.raises(
        ValueError, match=r'sampling\.engine\.prefix_cache_rows=.*(at most 47|nearest: 0)'
    ):
        dataclasses.replace(SETTINGS, **changed)
