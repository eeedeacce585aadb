import dataclasses
import doctest
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import block_weights, logprobs, quantization
from elenchus.sampling.engine import engine, prefill, sampling_methods
from elenchus.sampling.engine.generator import Generator
from elenchus.sampling.engine.requests import Request, check_requests
from elenchus.sampling.engine.shapes import EngineSettings
from tests.support import fake_engine, tiny_model
from tests.support.compilations import count_compilations

EOS = 1
CONFIG = dataclasses.replace(
    tiny_model.CONFIG,
    num_layers=1,  # compiles sooner; test_decode.py has two
    vocab_size=64,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    max_length=32,
    scan_layers=False,
)
SAMPLING = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=(0,))
ENDLESS = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=(0, EOS))
SETTINGS = EngineSettings(
    num_slots=8,
    max_length=32,
    chunk_steps=4,
    prompt_buckets=(8, 12),
    prefill_batch_sizes=(2,),
    decode_batch_sizes=(),
    decode_cache_lengths=(),
)
INT8 = {'cache_dtype': 'int8', 'quantize': 'int8'}
MANY = {
    'num_slots': 5,
    'decode_batch_sizes': (2,),
    'decode_cache_lengths': (16,),
    'prompt_buckets': (16,),
    'prefill_batch_sizes': (3,),
    'prefill_chunk': 8,
}


@pytest.fixture(scope='module', autouse=True)
def small_matrices_are_transposed_too():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_weights, 'MIN_TRANSPOSED_SIZE', 1)
        yield


@functools.cache
def model():
    return tiny_model.make_model(CONFIG)


@functools.cache
def requests(num_prompts=5, samples=4):
    rng = np.random.default_rng(0)
    result = []
    for _ in range(num_prompts):
        prompt = tuple(rng.integers(10, 64, rng.integers(1, 12)).tolist())
        result += [
            Request(100 + len(result) + g, prompt, int(rng.integers(1, 20))) for g in range(samples)
        ]
    return tuple(result)


def generate(batch=None, *, method=SAMPLING, seed=0, on_completion=None, **changed):
    settings = dataclasses.replace(SETTINGS, **changed)
    return engine.Engine(settings, stop_ids=(EOS,)).generate(
        model(),
        requests() if batch is None else batch,
        method=method,
        seed=seed,
        on_completion=on_completion,
    )


@functools.cache
def reference(**changed):
    return generate(**changed)


def tokens(completions):
    return {completion.id: completion.tokens for completion in completions}


def test_the_example_in_the_docstring_runs():
    results = doctest.testmod(engine)
    assert results.attempted and not results.failed


def test_engines_and_fake_engines_implement_generator():
    plain = engine.Engine(SETTINGS, stop_ids=(EOS,))
    fakes = (fake_engine.ScriptedEngine({}), fake_engine.RuleEngine(print))
    for generator in (plain, engine.PrefixCachedEngine(plain), *fakes):
        assert isinstance(generator, Generator)
        assert isinstance(generator.with_prefix_cache(), Generator)


def test_completions_come_in_the_order_of_requests():
    assert [c.id for c in reference()] == [r.id for r in requests()]
    assert [c.id for c in generate(requests()[::-1])] == [r.id for r in requests()[::-1]]


def test_the_callback_sees_each_completion_once():
    seen = []
    completions = generate(on_completion=seen.append)
    assert sorted(seen, key=lambda c: c.id) == sorted(completions, key=lambda c: c.id)


@pytest.mark.parametrize(
    'changed',
    [
        {'num_slots': 3, 'chunk_steps': 1},
        pytest.param({'chunk_steps': 32, 'prompt_buckets': (16,)}, marks=pytest.mark.slow),
        pytest.param({'prefill_batch_sizes': (1, 4)}, marks=pytest.mark.slow),
        pytest.param({'prefill_chunk': 4}, marks=pytest.mark.slow),
        MANY,
        pytest.param(MANY | INT8, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_settings_never_change_what_is_sampled(changed):
    precision = {name: changed[name] for name in INT8 if name in changed}
    assert tokens(generate(**changed)) == tokens(reference(**precision))


def test_order_never_changes_what_is_sampled():
    assert tokens(generate(requests()[::-1])) == tokens(reference())


def test_companions_never_change_what_is_sampled():
    for request in requests()[::7]:
        assert tokens(generate([request])).items() <= tokens(reference()).items()


def test_same_seed_repeats_and_another_does_not():
    assert generate() == reference()
    assert tokens(generate(seed=1)) != tokens(reference())


def test_samples_of_one_prompt_differ():
    batch = [Request(i, (20, 30, 40), 12) for i in range(8)]
    assert len(set(tokens(generate(batch, method=ENDLESS)).values())) == 8


@pytest.mark.parametrize('precision', [{}, INT8], ids=['model', 'int8'])
def test_recorded_log_probabilities_are_the_trainers(precision):
    """In int8, those of the quantized model, which attends to the quantized keys and values."""
    method = sampling_methods.TemperatureSampling(0.8, 30, 0.95, 0.0, banned=(0,))
    rows = np.zeros((len(requests()), 32), np.int32)
    completions = generate(method=method, **precision)
    for row, request, completion in zip(rows, requests(), completions, strict=True):
        whole = request.prompt + completion.tokens
        row[: len(whole)] = whole
    read = quantization.quantize(model(), precision.get('quantize', 'none'))
    positions = jnp.broadcast_to(jnp.arange(32), rows.shape)

    @tiny_model.jit
    def recompute(model):
        hidden, _ = model(rows, positions, return_cache=precision.get('cache_dtype'))
        return logprobs.token_logprobs(model, hidden, rows, transform=method.transform)[0]

    recomputed = recompute(read)
    for row, request, completion in zip(recomputed, requests(), completions, strict=True):
        start = len(request.prompt)
        np.testing.assert_allclose(
            completion.logprobs, row[start : start + len(completion.tokens)], atol=1e-4
        )


def test_a_model_that_never_ends_stops_at_max_tokens():
    for request, completion in zip(requests(), generate(method=ENDLESS), strict=True):
        assert len(completion.tokens) == len(completion.logprobs) == request.max_tokens
        assert not completion.finished


def test_the_end_token_stands_once_and_last():
    completions = generate([dataclasses.replace(r, max_tokens=20) for r in requests(20, 4)])
    assert any(completion.finished for completion in completions)
    for completion in completions:
        assert completion.finished == (completion.tokens[-1] == EOS)
        assert EOS not in completion.tokens[:-1]


def test_adjacent_requests_with_one_prompt_share_its_prefill(monkeypatch):
    num_prompts = []
    fill_slots = prefill.fill_slots

    def counting(model, state, batch, **options):
        num_prompts.append(len(set(zip(batch.rows, batch.offsets, strict=True))))
        return fill_slots(model, state, batch, **options)

    monkeypatch.setattr(prefill, 'fill_slots', counting)
    generate([Request(i, (20 + i // 4, 30), 4) for i in range(8)])
    assert num_prompts == [2]


def test_compilations_are_seen():
    with count_compilations() as compiled:
        jax.jit(lambda x: x + 17)(np.arange(3))
    assert compiled


def test_nothing_compiles_after_warm_up():
    settings = dataclasses.replace(
        SETTINGS,
        num_slots=6,
        chunk_steps=3,
        prompt_buckets=(12,),
        prefill_batch_sizes=(1, 3),
        decode_batch_sizes=(2,),
        decode_cache_lengths=(16,),
    )
    sampler = engine.Engine(settings, stop_ids=(EOS,))
    sampler.warm_up(model(), method=SAMPLING)
    with count_compilations() as compiled:
        for seed in range(3):
            sampler.generate(model(), requests()[seed * 3 :], method=SAMPLING, seed=seed)
    assert not compiled


@pytest.mark.slow
def test_programs_compiled_side_by_side_are_those_that_sampling_runs(capsys):
    settings = dataclasses.replace(
        SETTINGS,
        num_slots=4,
        prompt_buckets=(12,),
        prefill_batch_sizes=(2,),
        decode_batch_sizes=(2,),
    )
    completions = generate(seed=3)
    ahead = dataclasses.replace(settings, compile_threads=2, num_slots=5, chunk_steps=4)
    sampler = engine.Engine(ahead, stop_ids=(EOS,))
    sampler.compile_ahead(sampler.warm_up, model(), SAMPLING)
    assert ' programs in ' in capsys.readouterr().out
    with count_compilations() as compiled:
        actual = sampler.generate(model(), requests(), method=SAMPLING, seed=3)
        sampler.generate(model(), requests(), method=SAMPLING, seed=4)
    assert not compiled and capsys.readouterr().out == ''
    assert [c.tokens for c in actual] == [c.tokens for c in completions]


def test_a_seed_out_of_range_is_an_error():
    with pytest.raises(ValueError, match='seed=-1'):
        generate(seed=-1)


@pytest.mark.parametrize(
    'request_, word',
    [
        (Request(5, (9,) * 13, 1), 'request 5: 13 prompt tokens exceed .* at most 12'),
        (Request(5, (9,) * 10, 23), 'max_tokens of at most 22'),
    ],
)
def test_a_request_that_does_not_fit_is_an_error_with_the_sizes(request_, word):
    with pytest.raises(ValueError, match=word):
        generate([request_])


@pytest.mark.parametrize('reflection', [{}, {'reflection': (5, 6), 'reflection_weight': 0.3}])
def test_a_prompt_that_leaves_no_room_is_an_error_with_the_longest_that_does(reflection):
    settings = dataclasses.replace(
        SETTINGS, prompt_buckets=(32,), draft_tokens=3, draft_ngram=2, **reflection
    )
    longest = settings.sequence_length - 1
    with pytest.raises(ValueError, match=f'; use at most {longest} prompt tokens$'):
        check_requests(settings, [Request(5, (9,) * 32, 1)], 0)
    check_requests(settings, [Request(5, (9,) * longest, 1)], 0)


def test_a_repeated_request_id_is_an_error():
    with pytest.raises(ValueError, match='request id 5 occurs 2 times'):
        generate([Request(5, (9,), 1), Request(5, (9,), 1)])


@pytest.mark.parametrize(
    'fields',
    [
        {'id': -1},
        {'id': 2**31},
        {'prompt': ()},
        {'max_tokens': 0},
    ],
    ids=str,
)
def test_a_malformed_request_is_an_error(fields):
    with pytest.raises(ValueError, match='request'):
        Request(**({'id': 0, 'prompt': (9,), 'max_tokens': 1} | fields))


@pytest.mark.parametrize(
    'changed',
    [
        {'num_slots': 0},
        {'chunk_steps': 0},
        {'prompt_buckets': ()},
        {'prompt_buckets': (12, 8)},
        {'prompt_buckets': (64,)},
        {'prefill_batch_sizes': (9,)},
        {'decode_batch_sizes': (8,)},
        {'decode_cache_lengths': (32,)},
        {'draft_tokens': 2},
        {'draft_ngram': 2},
        {'draft_tokens': -1, 'draft_ngram': 2},
        {'draft_tokens': 2, 'draft_ngram': 32},
        {'prefill_chunk': -1},
    ],
    ids=str,
)
def test_malformed_settings_are_an_error(changed):
    with pytest.raises(ValueError, match=r'sampling\.engine\.'):
        dataclasses.replace(SETTINGS, **changed)


def test_the_error_for_a_prefill_chunk_that_does_not_divide_names_the_nearest_one():
    with pytest.raises(
        ValueError, match=r'sampling\.engine\.prefill_chunk=5 .*\(8, 12\).*nearest: 4'
    ):
        dataclasses.replace(SETTINGS, prefill_chunk=5)
