import dataclasses
import functools

import jax
import numpy as np
import pytest

from elenchus.model import sharding
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.sampling.engine.prompt_lookup import PromptLookup
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.shapes import EngineSettings
from tests.support import slow_cases, tiny_model
from tests.support.compilations import count_compilations
from tests.support.many_requests import many_requests

EOS = 4
CONFIG = dataclasses.replace(tiny_model.FLAT, max_length=40)
# With so few tokens, drafts are often right and often contain the end token.
BANNED = (0, *range(5, CONFIG.vocab_size))
METHODS = {
    'greedy': sampling_methods.Greedy(BANNED),
    'sampled': sampling_methods.TemperatureSampling(0.7, 0, 1.0, 0.0, BANNED),
    'truncated': sampling_methods.TemperatureSampling(1.5, 3, 0.9, 0.01, BANNED),
}
SETTINGS = EngineSettings(
    num_slots=4,
    max_length=40,
    chunk_steps=3,
    prompt_buckets=(6, 16),
    prefill_batch_sizes=(4,),
    decode_batch_sizes=(),
    decode_cache_lengths=(),
)
DRAFTS = {'draft_tokens': 3, 'draft_ngram': 2}


@functools.cache
def model():
    return tiny_model.make_model(CONFIG)


@functools.cache
def requests():
    """Prompts of many lengths, some with the end token; two of three may fill their slot."""
    return many_requests(SETTINGS, 24, end=5)


def make_engine(**changed):
    settings = dataclasses.replace(SETTINGS, **changed)
    return engine.Engine(settings, stop_ids=(EOS,)).with_prefix_cache()


def generate(method='sampled', **changed):
    return make_engine(**changed).generate(model(), requests(), method=METHODS[method], seed=3)


@functools.cache
def reference(method='sampled'):
    return generate(method)


def assert_same(completions, expected):
    assert [c.tokens for c in completions] == [c.tokens for c in expected]
    assert [c.finished for c in completions] == [c.finished for c in expected]
    for one, other in zip(completions, expected, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def expected_draft(tokens, num_tokens, ngram):
    """The draft of PromptLookup, computed in plain Python from the known tokens."""
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
    drafts = jax.jit(PromptLookup(num_tokens, ngram).draft)(tokens, position)
    for row, at, draft in zip(tokens.tolist(), position, np.asarray(drafts).tolist(), strict=True):
        assert draft == expected_draft(row[: at + 1], num_tokens, ngram)


@pytest.mark.slow
@slow_cases.combinations({('sampled',)}, method=list(METHODS))
def test_drafts_never_change_what_is_sampled(method):
    completions = generate(method, **DRAFTS)
    assert_same(completions, reference(method))
    # In fewer passes, each of which yields at least 1 and at most 1 + draft_tokens tokens.
    assert sum(c.steps for c in completions) < 0.8 * sum(len(c.tokens) for c in completions)
    for completion in completions:
        assert completion.steps <= len(completion.tokens) <= 4 * completion.steps


@pytest.mark.slow
def test_more_and_longer_drafts_never_change_what_is_sampled():
    completions = generate(draft_tokens=8, draft_ngram=1, chunk_steps=1)
    assert_same(completions, reference())


def test_without_drafts_a_step_yields_one_token():
    assert all(c.steps == len(c.tokens) for c in reference())


def test_an_engine_adds_up_tokens_and_steps():
    sampler = engine.Engine(dataclasses.replace(SETTINGS, **DRAFTS), stop_ids=(EOS,))
    completions = [
        c
        for batch in (requests()[:3], requests()[3:5])
        for c in sampler.generate(model(), batch, method=METHODS['sampled'], seed=3)
    ]
    assert sampler.tokens == sum(len(c.tokens) for c in completions)
    assert sampler.steps == sum(c.steps for c in completions) < sampler.tokens


def test_drafts_use_the_whole_prompt_if_it_starts_with_a_cached_prefix():
    method = METHODS['greedy']
    first_request = Request(0, (2, 3, 4, 4, 3, 2, 3, 3, 4, 2, 4, 3), 12)

    def second_completion(**changed):
        sampler = make_engine(**DRAFTS, **changed)
        (first,) = sampler.generate(model(), [first_request], method=method, seed=0)
        again = Request(1, (*first_request.prompt, *first.tokens[:2], 2, 2), 20)
        return sampler.generate(model(), [again], method=method, seed=0)

    # Layers with a window add up in another order where all their positions are kept.
    cached = second_completion(prefix_cache_rows=4, prefix_cache_length=14)
    assert_same(cached, second_completion())


def test_nothing_compiles_after_warm_up_and_shapes_never_change_what_is_sampled():
    shapes = {'prompt_buckets': (16,), 'decode_batch_sizes': (2,), 'decode_cache_lengths': (24,)}
    prefix_cache = {'prefix_cache_rows': 6, 'prefix_cache_length': 12}
    settings = dataclasses.replace(SETTINGS, **DRAFTS, **shapes, **prefix_cache)
    sampler, method = engine.Engine(settings, stop_ids=(EOS,)), METHODS['sampled']
    sampler.warm_up(model(), method=method)
    with count_compilations() as compiled:
        completions = sampler.with_prefix_cache().generate(
            model(), requests(), method=method, seed=3
        )
    assert not compiled
    assert_same(completions, reference())


@pytest.mark.slow
def test_a_mesh_samples_the_same_with_drafts():
    expected = reference()
    mesh = sharding.make_mesh((2, 2, 2))
    with jax.set_mesh(mesh):
        placed = jax.device_put(model(), sharding.shardings(model(), mesh))
        completions = make_engine(**DRAFTS).generate(
            placed, requests(), method=METHODS['sampled'], seed=3
        )
    assert_same(completions, expected)
