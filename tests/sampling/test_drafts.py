import dataclasses
import functools

import jax
import numpy as np
import pytest

from elenchus.model import sharding
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.sampling.engine.prompt_lookup import Lookup
from tests.sampling.test_engine import compilations
from tests.support import tiny_model

EOS = 4
CONFIG = dataclasses.replace(tiny_model.FLAT, max_length=40)
# So few tokens that drafts are often right, and often hold the end token.
BANNED = (0, *range(5, CONFIG.vocab_size))
METHODS = {
    'greedy': sampling_methods.Greedy(BANNED),
    'sampled': sampling_methods.Sampling(0.7, 0, 1.0, 0.0, BANNED),
    'truncated': sampling_methods.Sampling(1.5, 3, 0.9, 0.01, BANNED),
}
SETTINGS = engine.EngineSettings(
    num_slots=4,
    max_length=40,
    chunk_steps=3,
    prompt_buckets=(6, 16),
    insert_rows=(4,),
    compact_slots=(),
    compact_lengths=(),
)
DRAFTS = {'draft_tokens': 3, 'draft_ngram': 2}


@functools.cache
def model():
    return tiny_model.make_model(CONFIG)


@functools.cache
def requests():
    """Ragged, the end token in their prompts; every third may fill the buffer to its end."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(24):
        prompt = tuple(rng.integers(1, 5, rng.integers(1, 17)).tolist())
        room = SETTINGS.max_length - len(prompt)
        made.append(engine.Request(7 * i, prompt, int(room if i % 3 else rng.integers(1, room))))
    return tuple(made)


def make(**changed):
    settings = dataclasses.replace(SETTINGS, **changed)
    return engine.Engine(settings, stop_ids=(EOS,)).parking()


def generate(method='sampled', **changed):
    return make(**changed).generate(model(), requests(), method=METHODS[method], seed=3)


@functools.cache
def reference(method='sampled'):
    return generate(method)


def assert_same(made, expected):
    assert [c.tokens for c in made] == [c.tokens for c in expected]
    assert [c.finished for c in made] == [c.finished for c in expected]
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def looked_up(tokens, num_tokens, ngram):
    """What Lookup says it drafts, of all tokens known."""
    end, best = len(tokens) - 2, 0
    for i in range(len(tokens) - 1):
        same = 0
        while same < min(ngram, i + 1) and tokens[i - same] == tokens[len(tokens) - 1 - same]:
            same += 1
        if same >= best:
            end, best = i, same
    grown = list(tokens)
    for i in range(num_tokens):
        grown.append(grown[end + 1 + i])
    return grown[len(tokens) :]


@pytest.mark.parametrize('num_tokens, ngram', [(1, 1), (4, 2), (7, 3)])
def test_a_draft_is_what_followed_the_latest_of_the_longest_matches(num_tokens, ngram):
    rng = np.random.default_rng(ngram)
    tokens = rng.integers(0, 3, (400, 13))
    position = rng.integers(0, 13, 400)
    drafts = jax.jit(Lookup(num_tokens, ngram).draft)(tokens, position)
    for row, at, draft in zip(tokens.tolist(), position, np.asarray(drafts).tolist(), strict=True):
        assert draft == looked_up(row[: at + 1], num_tokens, ngram)


@pytest.mark.parametrize('method', METHODS)
def test_drafts_never_change_what_is_sampled(method):
    made = generate(method, **DRAFTS)
    assert_same(made, reference(method))
    # In fewer passes, each of which makes at least a token and at most 1 + draft_tokens.
    assert sum(c.steps for c in made) < 0.8 * sum(len(c.tokens) for c in made)
    for completion in made:
        assert completion.steps <= len(completion.tokens) <= 4 * completion.steps


def test_more_and_longer_drafts_never_change_what_is_sampled():
    made = generate(draft_tokens=8, draft_ngram=1, chunk_steps=1)
    assert_same(made, reference())


def test_without_drafts_a_step_makes_a_token():
    assert all(c.steps == len(c.tokens) for c in reference())


def test_an_engine_adds_up_tokens_and_steps():
    sampler = engine.Engine(dataclasses.replace(SETTINGS, **DRAFTS), stop_ids=(EOS,))
    made = [
        c
        for asked in (requests()[:3], requests()[3:5])
        for c in sampler.generate(model(), asked, method=METHODS['sampled'], seed=3)
    ]
    assert sampler.tokens == sum(len(c.tokens) for c in made)
    assert sampler.steps == sum(c.steps for c in made) < sampler.tokens


def test_prompts_that_go_on_from_a_store_are_drafted_from_as_a_whole():
    method = METHODS['greedy']
    begun = engine.Request(0, (2, 3, 4, 4, 3, 2, 3, 3, 4, 2, 4, 3), 12)

    def played(**changed):
        sampler = make(**DRAFTS, **changed)
        (first,) = sampler.generate(model(), [begun], method=method, seed=0)
        again = engine.Request(1, (*begun.prompt, *first.tokens[:2], 2, 2), 20)
        return sampler.generate(model(), [again], method=method, seed=0)

    assert played(parked_rows=4, parked_length=14) == played()


def test_nothing_compiles_after_warm_up_and_shapes_never_change_what_is_sampled():
    shapes = {'prompt_buckets': (16,), 'compact_slots': (2,), 'compact_lengths': (24,)}
    store = {'parked_rows': 6, 'parked_length': 12}
    settings = dataclasses.replace(SETTINGS, **DRAFTS, **shapes, **store)
    sampler, method = engine.Engine(settings, stop_ids=(EOS,)), METHODS['sampled']
    sampler.warm_up(model(), method=method)
    with compilations() as compiled:
        made = sampler.parking().generate(model(), requests(), method=method, seed=3)
    assert not compiled
    assert_same(made, reference())


@pytest.mark.slow
def test_a_mesh_samples_the_same_with_drafts():
    mesh = sharding.make_mesh((2, 2, 2))
    with jax.set_mesh(mesh):
        placed = jax.device_put(model(), sharding.shardings(model(), mesh))
        made = make(**DRAFTS).generate(placed, requests(), method=METHODS['sampled'], seed=3)
    assert_same(made, reference())
