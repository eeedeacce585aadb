"""Reflective verification: the engine's samples are those of whole passes, one step after another.

The model has layers with a window, whose caches are short.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import sharding
from elenchus.sampling.engine import decode, engine, sampling_methods
from elenchus.sampling.engine.prompt_lookup import PromptLookup
from elenchus.sampling.engine.reflection import Reflection
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.shapes import EngineSettings
from tests.sampling.engine.test_prompt_lookup import expected_draft
from tests.support import tiny_model
from tests.support.compilations import count_compilations
from tests.support.many_requests import many_requests

EOS, LENGTH, SEED = 4, 48, 3
CONFIG = dataclasses.replace(tiny_model.EVERYTHING, max_length=LENGTH)
# With so few tokens, drafts are often right and often contain the end token.
BANNED = (0, *range(5, CONFIG.vocab_size))
SAMPLING = sampling_methods.TemperatureSampling(0.7, 3, 0.95, 0.0, BANNED)
IDS = (7, 9, 30, 2)
SETTINGS = EngineSettings(
    num_slots=4,
    max_length=LENGTH,
    chunk_steps=3,
    prompt_buckets=(16,),
    prefill_batch_sizes=(4,),
    decode_batch_sizes=(),
    decode_cache_lengths=(),
    draft_tokens=3,
    draft_ngram=2,
    reflection=IDS,
    reflection_weight=0.6,
)


@functools.cache
def model():
    return tiny_model.make_model(CONFIG)


@functools.cache
def requests():
    """Prompts of many lengths; of three, two may go on until a draft has no more room."""
    return many_requests(SETTINGS, 10, end=4)


def make_engine(**changed):
    return engine.Engine(dataclasses.replace(SETTINGS, **changed), stop_ids=(EOS,))


def generate(**changed):
    sampler = make_engine(**changed).with_prefix_cache()
    return sampler.generate(model(), requests(), method=SAMPLING, seed=SEED)


@functools.partial(tiny_model.jit)
def whole_pass(model, tokens):
    positions = jnp.arange(LENGTH)[None]
    return model.logits(model(tokens, positions, cache=None)[0])[0]


@functools.partial(jax.jit)
def draw(request, position, logits):
    noise = decode.Noise.draw(jnp.uint32(SEED), request[None], position[None], length=1).values
    token, logprob = SAMPLING.sample(noise, logits[None, None])
    return token[0, 0], logprob[0, 0]


def expected_completion(request, weight):
    """(tokens, log-probabilities, steps), of a pass over all tokens for each step."""
    known, logprobs, steps, done = list(request.prompt), [], 0, False
    while not done:
        steps += 1
        draft = expected_draft(known, SETTINGS.draft_tokens, SETTINGS.draft_ngram)
        read = [*known, *draft, *IDS, *draft]
        logits = whole_pass(model(), np.array([read + [0] * (LENGTH - len(read))]))
        last, behind = len(known) - 1, len(known) + len(draft) + len(IDS) - 1
        for i, drafted in enumerate([*draft, None]):
            fused = logits[last + i]
            if drafted is not None:
                fused = (1 - weight) * fused + weight * logits[behind + i]
            at = jnp.int32(len(known))
            token, logprob = draw(jnp.int32(request.id), at, fused)
            known.append(int(token))
            logprobs.append(float(logprob))
            done = token == EOS or len(known) == len(request.prompt) + request.max_tokens
            if done or token != drafted:
                break
    return tuple(known[len(request.prompt) :]), logprobs, steps


@functools.cache
def expected(weight=SETTINGS.reflection_weight):
    return [expected_completion(request, weight) for request in requests()]


def assert_same(completions, wanted):
    assert [c.tokens for c in completions] == [tokens for tokens, _, _ in wanted]
    assert [c.steps for c in completions] == [steps for _, _, steps in wanted]
    for one, (_, logprobs, _) in zip(completions, wanted, strict=True):
        np.testing.assert_allclose(one.logprobs, logprobs, atol=2e-5)


@pytest.mark.slow
def test_samples_are_those_of_whole_passes_and_nothing_compiles_after_warm_up():
    sampler = make_engine(decode_cache_lengths=(24,))
    sampler.warm_up(model(), method=SAMPLING)
    with count_compilations() as compiled:
        completions = sampler.generate(model(), requests(), method=SAMPLING, seed=SEED)
        alone = [
            completion
            for request in requests()[:4]
            for completion in sampler.generate(model(), [request], method=SAMPLING, seed=SEED)
        ]
    assert not compiled
    assert_same(completions, expected())
    assert_same(alone, expected()[:4])
    tokens = sum(len(c.tokens) for c in completions)
    assert sum(c.steps for c in completions) < 0.8 * tokens
    assert [c.tokens for c in completions] != [tokens for tokens, _, _ in expected(0.0)]


def test_without_weight_the_program_and_the_samples_are_those_of_prompt_lookup():
    settings = dataclasses.replace(SETTINGS, reflection_weight=0.0)
    assert type(settings.lookup) is PromptLookup and settings.lookup == PromptLookup(3, 2)
    assert (settings.step_tokens, settings.sequence_length) == (4, LENGTH)
    assert_same(generate(reflection_weight=0.0), expected(0.0))


@pytest.mark.slow
def test_a_wider_pass_of_weight_0_samples_the_same():
    sampler, lookup = make_engine(), Reflection(3, 2, IDS, 0.0)
    sampler._decode_chunk = functools.partial(
        decode.decode_chunk, **sampler._decode_options | {'lookup': lookup}
    )
    completions = sampler.generate(model(), requests(), method=SAMPLING, seed=SEED)
    assert_same(completions, expected(0.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    'changed',
    [
        {'prefix_cache_rows': 6, 'prefix_cache_length': 12},
        pytest.param({'chunk_steps': 1, 'decode_batch_sizes': (2,)}, marks=pytest.mark.slow),
        pytest.param({'prefill_chunk': 4, 'chunk_steps': 16}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_how_requests_are_scheduled_changes_nothing(changed):
    assert_same(generate(**changed), expected())


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(2, 1, 1), (2, 2, 2)], ids=str)
def test_rows_over_devices_change_nothing(shape):
    mesh = sharding.make_mesh(shape, jax.devices()[: math.prod(shape)])
    with jax.set_mesh(mesh):
        placed = jax.device_put(model(), sharding.shardings(model(), mesh))
        completions = make_engine().generate(placed, requests(), method=SAMPLING, seed=SEED)
    assert_same(completions, expected())


def test_a_step_reads_and_computes_what_a_reflection_says():
    lookup = SETTINGS.lookup
    read = lookup.sequence(jnp.array([1, 2]), jnp.array([[3, 4, 5], [6, 7, 8]]))
    assert read.tolist() == [[1, 3, 4, 5, *IDS, 3, 4], [2, 6, 7, 8, *IDS, 6, 7]]
    assert lookup.num_read == read.shape[1] == SETTINGS.step_tokens == 10
    assert lookup.num_logits == 7
    assert SETTINGS.sequence_length == LENGTH - 9


def test_a_request_leaves_room_for_what_a_step_reads():
    request = Request(0, (1, 2), LENGTH - 10)
    with pytest.raises(ValueError, match=r'max_length=48, of which reflection takes 9; use .* 37'):
        make_engine().generate(model(), [request], method=SAMPLING, seed=SEED)


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'draft_tokens': 0, 'draft_ngram': 0}, 'draft_tokens=0 drafts none; nearest: draft_tok'),
        ({'reflection': ''}, r'set sampling\.engine\.reflection; nearest: reflection_weight=0\.0'),
        ({'reflection': ()}, r'set sampling\.engine\.reflection; nearest: reflection_weight=0\.0'),
        ({'reflection_weight': 1.5}, r'reflection_weight=1\.5 must be at most 1\.0; nearest: 1'),
        ({'reflection': (1,) * 60}, r'max_length=48 has no room for two .*; nearest: 67'),
    ],
)
def test_a_bad_value_is_one_line(changed, message):
    with pytest.raises(ValueError, match=message) as error:
        make_engine(**changed)
    assert '\n' not in str(error.value)


def test_an_engine_takes_ids_and_settings_make_them_of_a_text():
    settings = dataclasses.replace(SETTINGS, reflection='check it')
    with pytest.raises(ValueError, match="reflection='check it' is a text, of which `encoded`"):
        engine.Engine(settings, stop_ids=(EOS,))
    assert settings.encoded(lambda text: [len(text)]).lookup.ids == (8,)
    assert SETTINGS.encoded(None) is SETTINGS
    off = dataclasses.replace(settings, reflection_weight=0.0)
    assert off.encoded(None) is off
