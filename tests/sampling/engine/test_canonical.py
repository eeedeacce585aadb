"""Canonical numerics: sampler and trainer agree bit for bit, whatever is computed side by side."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import kv_cache, logprobs, lora
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.config import ModelConfig, YarnScaling
from elenchus.sampling.engine import engine, sampling_methods, weights
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.shapes import EngineSettings
from tests.support import tiny_model

EOS = 1
PLAIN = dataclasses.replace(
    tiny_model.CONFIG, numerics='canonical', vocab_size=96, embed_dim=128, mlp_dim=352,
    num_heads=4, num_kv_heads=2, head_dim=32, max_length=96, logits_chunk=100,
)  # fmt: skip
EVERYTHING = dataclasses.replace(tiny_model.EVERYTHING, numerics='canonical', max_length=96)
SETTINGS = EngineSettings(
    num_slots=8,
    max_length=96,
    chunk_steps=4,
    prompt_buckets=(32,),
    prefill_batch_sizes=(2,),
    decode_batch_sizes=(),
    decode_cache_lengths=(48,),
)
METHOD = sampling_methods.TemperatureSampling(0.7, 0, 1.0, 0.0, banned=(0,))
NUCLEUS = sampling_methods.TemperatureSampling(1.3, 20, 0.8, 0.01, banned=(0,))
DRAFTS = {'draft_tokens': 2, 'draft_ngram': 1}
PREFIXES = {'prefix_cache_rows': 8, 'prefix_cache_length': 16}
YARN = YarnScaling('yarn', 4.0, 1.0, 32.0, 64, 1.3, truncate=True)
CASES = {
    'YaRN': (dataclasses.replace(PLAIN, rope_scaling=YARN), METHOD, {}),
    'scaled embeddings': (
        dataclasses.replace(EVERYTHING, embed_dim=24, scan_layers=True),
        METHOD,
        {},
    ),
    'plain': (PLAIN, METHOD, {}),
    'every part of a model': (EVERYTHING, METHOD, {}),
    'bfloat16': (dataclasses.replace(PLAIN, dtype='bfloat16'), METHOD, {}),
    'unrolled, truncated': (dataclasses.replace(PLAIN, scan_layers=False), NUCLEUS, {}),
    'drafts': (PLAIN, METHOD, DRAFTS),
    'drafts with windows': (EVERYTHING, METHOD, DRAFTS),
    'three slots, prompts in parts': (PLAIN, METHOD, {'num_slots': 3, 'prefill_chunk': 8}),
    'kept prefixes': (PLAIN, METHOD, PREFIXES),
}


@functools.cache
def requests(vocab_size: int):
    rng = np.random.default_rng(0)

    def request(i):
        prompt = rng.integers(2, vocab_size, rng.integers(3, 30)).tolist()
        return Request(i, tuple(prompt), int(rng.integers(5, 30)))

    return [request(i) for i in range(24)]


def sampled(model, method=METHOD, **changes):
    """Sequences of tokens, the length of each prompt, and the sampler's log-probabilities."""
    batch = requests(model.config.vocab_size)
    settings = dataclasses.replace(SETTINGS, **changes)
    results = engine.Engine(settings, stop_ids=(EOS,)).generate(model, batch, method=method, seed=0)
    return [
        ((*request.prompt, *result.tokens), len(request.prompt), result.logprobs)
        for request, result in zip(batch, results, strict=True)
    ]


def read(model, sequences, length, transform, *, scanned=None):
    """Log-probabilities of sequences that are packed into rows of this length."""
    rows, row = [], []
    for i, tokens in enumerate(sequences):
        if sum(len(sequences[j]) for j in row) + len(tokens) > length:
            rows, row = [*rows, row], []
        row.append(i)
    rows.append(row)
    arrays = np.zeros((3, len(rows), length), np.int32)
    places = {}
    for b, row in enumerate(rows):
        start = 0
        for segment, i in enumerate(row, start=1):
            end = start + len(sequences[i])
            arrays[:, b, start:end] = sequences[i], range(end - start), [segment] * (end - start)
            places[i] = (b, start, end)
            start = end

    @jax.jit
    def score(model, tokens, positions, segments):
        hidden, _ = model(tokens, positions, segments=segments)
        return logprobs.token_logprobs(model, hidden, tokens, transform=transform)[0]

    values = np.asarray(score(model, *arrays))
    return [values[b, start:end] for b, start, end in map(places.get, range(len(sequences)))]


FAST_CASES = ('every part of a model', 'three slots, prompts in parts', 'bfloat16')
"""Of the parts of a model, of the engine and of the arithmetic; the others are of one each."""


@pytest.mark.parametrize(
    'name',
    [n if n in FAST_CASES else pytest.param(n, marks=pytest.mark.slow) for n in CASES],
)
def test_the_trainer_reads_the_bits_that_were_sampled(name):
    config, method, changes = CASES[name]
    model = tiny_model.make_model(config)
    samples = sampled(model, method, **changes)
    for length in (64, 173):
        values = read(model, [tokens for tokens, *_ in samples], length, method.transform)
        for (_, start, expected), of_row in zip(samples, values, strict=True):
            np.testing.assert_array_equal(of_row[start:], expected)


def test_fast_numerics_differ_in_the_same_test():
    model = tiny_model.make_model(dataclasses.replace(PLAIN, numerics='fast'))
    samples = sampled(model)
    values = read(model, [tokens for tokens, *_ in samples], 173, METHOD.transform)
    pairs = [(of_row[start:], own) for (_, start, own), of_row in zip(samples, values, strict=True)]
    assert any((a != b).any() for a, b in pairs)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_adapters_and_rows_with_a_shared_prompt():
    settings = lora.LoraSettings(rank=4, alpha=8.0, targets=('query', 'up'))
    adaptation = lora.Adaptation(settings, folder='', fingerprint=0, quantize='none')
    adapters = lora.init_adapters(PLAIN, adaptation, jax.random.key(1))
    adapters = jax.tree.map(lambda x: x + 0.01, adapters)  # the second factor starts at 0
    model = lora.attach(tiny_model.make_model(PLAIN), adapters)
    (tokens, start, _), *_ = sampled(model)
    shared = SharedPrompt(samples=2, prompt=32, response=32)
    row = np.zeros((2, 1, shared.length), np.int32)
    prompt, response = tokens[:start], tokens[start:]
    begin = shared.prompt + shared.response
    row[:, 0, shared.prompt - start : shared.prompt] = prompt, range(start)
    for first in (shared.prompt, begin):
        positions = range(start, start + len(response))
        row[:, 0, first : first + len(response)] = response, positions

    @jax.jit
    def hidden_of(model, tokens, positions):
        segments = (jnp.arange(shared.length) >= shared.prompt - start).astype('int32')[None]
        return model(tokens, positions, segments=segments, shared=shared)[0]

    hidden = hidden_of(model, *row)
    whole = jax.jit(lambda model, tokens, at: model(tokens, at)[0])(
        model, np.array([tokens]), np.arange(len(tokens))[None]
    )
    np.testing.assert_array_equal(
        hidden[0, begin : begin + len(response)], whole[0, start : len(tokens)]
    )


def test_gradients_are_those_of_fast_numerics():
    def gradient(numerics):
        model = tiny_model.make_model(dataclasses.replace(EVERYTHING, numerics=numerics))
        tokens = np.random.default_rng(0).integers(2, model.config.vocab_size, (2, 40))

        @jax.jit
        @jax.grad
        def of(model):
            hidden, _ = model(tokens, np.arange(40)[None].repeat(2, 0))
            return logprobs.token_logprobs(model, hidden, tokens, transform=METHOD.transform)[
                0
            ].sum()

        return of(model)

    for a, b in zip(*map(jax.tree.leaves, map(gradient, ('fast', 'canonical'))), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    'changes', [{'attention': 'splash'}, {'num_experts': 2, 'experts_per_token': 1}]
)
def test_models_without_canonical_numerics_are_refused(changes):
    with pytest.raises(ValueError, match='canonical'):
        ModelConfig(**(dataclasses.asdict(PLAIN) | changes))


@pytest.mark.parametrize(
    'changes', [{'cache_dtype': 'int8'}, {'quantize': 'int8'}, {'dtype': 'bfloat16'}]
)
def test_samplers_that_round_otherwise_are_refused(changes):
    settings, mesh = dataclasses.replace(SETTINGS, **changes), tiny_model.one_device()
    with pytest.raises(ValueError, match=f'sampling.engine.{next(iter(changes))}='):
        weights.check_sampler(PLAIN, settings, mesh)
    weights.check_sampler(PLAIN, dataclasses.replace(SETTINGS, dtype='float32'), mesh)


def test_caches_of_windows_are_counted_as_they_are():
    cache = kv_cache.init_cache(EVERYTHING, batch=2, length=64, step_tokens=1)
    size = sum(x.nbytes for x in jax.tree.leaves(cache.layers))
    assert size == kv_cache.cache_bytes(EVERYTHING, batch=2, length=64, step_tokens=1)
