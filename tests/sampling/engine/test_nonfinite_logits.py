"""Logits that are no distribution are an error that names the request, and never tokens."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from elenchus.sampling.engine import engine, requests, sampling_methods
from elenchus.sampling.engine.requests import Completion
from tests.support import slow_cases, tiny_model

SHAPES = engine.EngineSettings(
    num_slots=4,
    max_length=16,
    chunk_steps=3,
    prompt_buckets=(8,),
    prefill_batch_sizes=(4,),
    decode_batch_sizes=(),
    decode_cache_lengths=(),
    prefix_cache_rows=0,
    prefix_cache_length=0,
)
VOCABULARY = tiny_model.CONFIG.vocab_size
METHODS = {
    'greedy': lambda banned: sampling_methods.Greedy(banned),
    'temperature': lambda banned: sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned),
    'top_k': lambda banned: sampling_methods.TemperatureSampling(1.0, 3, 1.0, 0.0, banned),
    'top_p': lambda banned: sampling_methods.TemperatureSampling(1.0, 0, 0.5, 0.0, banned),
    'min_p': lambda banned: sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.3, banned),
    'truncated': lambda banned: sampling_methods.TemperatureSampling(0.7, 5, 0.9, 0.01, banned),
}


def spoiled(value, *, everywhere):
    """A model with one weight, or all of a kind, of this value."""
    model = tiny_model.make_model(tiny_model.FLAT)

    def leaf(path, x):
        if 'mlp' not in jax.tree_util.keystr(path):
            return x
        return jnp.full_like(x, value) if everywhere else x.at[(0,) * x.ndim].set(value)

    return jax.tree_util.tree_map_with_path(leaf, model)


def generate(model, method, banned=()):
    batch = [requests.Request(i, (3, 4, 5 + i % 3), 4) for i in (11, 12, 13, 14, 15)]
    sampler = engine.Engine(SHAPES, stop_ids=(1,))
    return sampler.generate(model, batch, method=METHODS[method](banned), seed=0)


@slow_cases.combinations(
    {
        ('greedy', math.inf, True),
        ('temperature', -math.inf, True),
        ('top_p', -math.inf, False),
        ('truncated', math.inf, True),
    },
    method=list(METHODS),
    value=[math.nan, math.inf, -math.inf],
    everywhere=[False, True],
)
def test_weights_that_are_not_finite_are_an_error_that_names_a_request(method, value, everywhere):
    with pytest.raises(FloatingPointError, match=r'^request 1[1-5]: .*log-prob') as error:
        generate(spoiled(value, everywhere=everywhere), method)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('method', METHODS)
def test_one_logit_that_is_nan_is_an_error_whatever_is_truncated(method):
    model = tiny_model.make_model(tiny_model.FLAT)
    model.head[...] = model.head[...].at[:, 30].set(math.nan)
    with pytest.raises(FloatingPointError, match=r'^request 1[1-5]: .*log-prob'):
        generate(model, method)


@slow_cases.combinations({('greedy',), ('truncated',)}, method=list(METHODS))
def test_a_ban_of_every_token_is_an_error_that_names_a_request(method):
    model = tiny_model.make_model(tiny_model.FLAT)
    with pytest.raises(FloatingPointError, match=r'^request 1[1-5]: .*banned'):
        generate(model, method, banned=tuple(range(VOCABULARY)))
    allowed = 7
    banned = tuple(i for i in range(VOCABULARY) if i != allowed)
    for completion in generate(model, method, banned=banned):
        assert set(completion.tokens) == {allowed} and not any(completion.logprobs)


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_a_completion_names_the_token(bad):
    good = Completion(5, (3, 4, 1), (-0.5, -1e30, 0.0), True, 3)
    with pytest.raises(FloatingPointError, match=r'request 5: .* of token 1 is (nan|-?inf)'):
        dataclasses.replace(good, logprobs=(-0.5, bad, -1.0))
