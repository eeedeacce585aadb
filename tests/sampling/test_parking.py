import dataclasses
import functools
import os.path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.model import kv_cache as cache_lib
from elenchus.model import sharding
from elenchus.sampling.engine import decode, engine, prefix_cache, sampling_methods
from tests.sampling.test_engine import INT8, compilations
from tests.support import tiny_model

EOS = 1
CONFIG = dataclasses.replace(tiny_model.FLAT, vocab_size=64, max_length=48)
GREEDY = sampling_methods.Greedy(banned=(0, EOS))
SAMPLING = sampling_methods.Sampling(1.0, 0, 1.0, 0.0, banned=(0, EOS))
SETTINGS = engine.EngineSettings(
    num_slots=8,
    max_length=48,
    chunk_steps=4,
    prompt_buckets=(16, 32),
    insert_rows=(8,),
    compact_slots=(),
    compact_lengths=(),
    parked_rows=12,
    parked_length=20,
)
WORDS = st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple)


@functools.cache
def model(seed=0):
    return tiny_model.make_model(CONFIG, seed)


def make(**changed):
    return engine.Engine(dataclasses.replace(SETTINGS, **changed), stop_ids=(EOS,))


@functools.cache
def attempts():
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(10, 64, n).tolist()) for n in (9, 11, 13)]
    return [engine.Request(i, prompts[i // 4], 5 + i % 4) for i in range(12)]


def refinements(completions):
    """Two a completion: its prompt, its tokens, and a critique of its own."""
    rng = np.random.default_rng(1)
    made = []
    for request, done in zip(attempts(), completions, strict=True):
        critique = tuple(rng.integers(10, 64, 3 + request.id % 5).tolist())
        prompt = (*request.prompt, *done.tokens, *critique)
        made += [engine.Request(100 + 2 * request.id + i, prompt, 9) for i in range(2)]
    return made


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
def reference(method, **held):
    return episode(make(parked_rows=0, parked_length=0, **held).parking(), method)


@pytest.fixture
def inserted(monkeypatch):
    """(tokens read, whether from a store) of every insertion."""
    calls, insert = [], decode.insert

    def counted(model, state, **arrays):
        calls.append((arrays['prompts'].shape[1], arrays['store'] is not None))
        return insert(model, state, **arrays)

    monkeypatch.setattr(decode, 'insert', counted)
    return calls


@pytest.mark.parametrize(
    ('method', 'changed'),
    [(GREEDY, {}), (SAMPLING, {}), (SAMPLING, INT8), (GREEDY, {'prefill_chunk': 8})],
    ids=['greedy', 'sampled', 'sampled-int8', 'greedy-in-chunks'],
)
def test_going_on_from_what_is_parked_samples_the_same(method, changed, inserted):
    expected = reference(method, **({} if 'prefill_chunk' in changed else changed))
    inserted.clear()
    for one, other in zip(episode(make(**changed).parking(), method), expected, strict=True):
        assert_same(one, other)
    assert {bucket for bucket, going_on in inserted if going_on} == {16}
    assert sum(going_on for _, going_on in inserted) >= 3


def test_the_store_s_size_never_changes_what_is_sampled():
    made = episode(make(parked_rows=2, parked_length=10).parking(), SAMPLING)
    for one, other in zip(made, reference(SAMPLING), strict=True):
        assert_same(one, other)


def test_a_prompt_that_turns_away_from_what_is_parked_reads_nothing_of_the_rest():
    sampler, plain = make().parking(), make()
    (done,) = sampler.generate(model(), attempts()[:1], method=GREEDY, seed=0)
    for kept in (8, 9, 11):
        prompt = (*attempts()[0].prompt, *done.tokens)[:kept] + (60,) * 9
        asked = [engine.Request(0, prompt, 12)]
        assert_same(
            sampler.generate(model(), asked, method=GREEDY, seed=0),
            plain.generate(model(), asked, method=GREEDY, seed=0),
        )


def test_models_have_stores_of_their_own(inserted):
    sampler = make().parking()
    sampler.generate(model(), attempts(), method=GREEDY, seed=0)
    inserted.clear()
    sampler.generate(model(1), attempts()[:4], method=GREEDY, seed=0)
    sampler.parking().generate(model(), attempts()[:4], method=GREEDY, seed=0)
    assert inserted == [(16, False), (16, False)]


def test_a_mesh_samples_the_same_and_nothing_compiles_after_warm_up():
    mesh = sharding.make_mesh((2, 2, 2))
    with jax.set_mesh(mesh):
        placed = jax.device_put(model(), sharding.shardings(model(), mesh))
        sampler = make(**INT8, prefill_chunk=8)
        sampler.warm_up(placed, method=SAMPLING)
        parked = sampler.parking()
        with compilations() as compiled:
            first = parked.generate(placed, attempts(), method=SAMPLING, seed=3)
            again = parked.generate(placed, refinements(first), method=SAMPLING, seed=5)
    assert not compiled
    assert_same(again, reference(SAMPLING, **INT8)[1])


@given(st.lists(WORDS, max_size=20), st.lists(WORDS, min_size=1, max_size=5), st.integers(1, 4))
def test_the_longest_parked_beginning_is_found(prefixes, prompts, size):
    held = {}

    def copied(store, cache, *, slots, rows):
        held.update({row: cache[slot] for slot, row in zip(slots, rows, strict=True) if row < 5})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, 'init_cache', lambda *_, **__: None)
        patch.setattr(decode, 'park', copied)
        store = prefix_cache.Store(None, rows=5, length=4)
        for start in range(0, len(prefixes), size):
            some = prefixes[start : start + size]
            store.park(some, range(len(some)), some, size=size)
    kept = {row: prefix[:4] for row, prefix in held.items()}
    for prompt in prompts:
        row, length = store.find(prompt)
        shared = [len(os.path.commonprefix([prefix, prompt])) for prefix in kept.values()]
        assert length == max(shared, default=0)
        assert not length or kept[row][:length] == prompt[:length]


@pytest.mark.parametrize('dtype', ['model', 'int8'])
def test_the_bytes_stated_are_the_bytes_held(dtype):
    store = make(cache_dtype=dtype).make_store(model())
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(store.cache))
    assert cache_lib.cache_bytes(CONFIG, batch=12, length=20, dtype=dtype) == held


@pytest.mark.parametrize(
    'given_', [{'parked_rows': -1}, {'parked_length': 0}, {'parked_length': 48}, {'parked_rows': 0}]
)
def test_parked_sizes_that_make_no_sense_are_an_error(given_):
    with pytest.raises(ValueError, match='sampling.parked_rows=.* at most 47'):
        dataclasses.replace(SETTINGS, **given_)
