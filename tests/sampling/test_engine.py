import contextlib
import dataclasses
import functools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import block_weights, logprobs, quantization, sharding
from elenchus.sampling.engine import decode, engine, sampling_methods
from tests.support import tiny_model

EOS = 1
CONFIG = dataclasses.replace(
    tiny_model.CONFIG,
    vocab_size=64,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    max_length=32,
    scan_layers=False,
)
SAMPLING = sampling_methods.Sampling(1.0, 0, 1.0, 0.0, banned=(0,))
ENDLESS = sampling_methods.Sampling(1.0, 0, 1.0, 0.0, banned=(0, EOS))
SETTINGS = engine.EngineSettings(
    num_slots=8,
    max_length=32,
    chunk_steps=4,
    prompt_buckets=(8, 12),
    insert_rows=(2,),
    compact_slots=(),
    compact_lengths=(),
)
INT8 = {'cache_dtype': 'int8', 'quantize': 'int8'}


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
    made = []
    for _ in range(num_prompts):
        prompt = tuple(rng.integers(10, 64, rng.integers(1, 12)).tolist())
        made += [
            engine.Request(100 + len(made) + g, prompt, int(rng.integers(1, 20)))
            for g in range(samples)
        ]
    return tuple(made)


def generate(asked=None, *, method=SAMPLING, seed=0, on_completion=None, **changed):
    settings = dataclasses.replace(SETTINGS, **changed)
    return engine.Engine(settings, stop_ids=(EOS,)).generate(
        model(),
        requests() if asked is None else asked,
        method=method,
        seed=seed,
        on_completion=on_completion,
    )


@functools.cache
def reference(**held):
    return generate(**held)


@contextlib.contextmanager
def compilations():
    """Names of the compilation events inside the block."""
    events = []

    def listener(event, duration, **_):
        if 'backend_compile' in event:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listener)
    yield events
    jax.monitoring.unregister_event_duration_listener(listener)


def tokens(completions):
    return {completion.id: completion.tokens for completion in completions}


def test_completions_come_in_the_order_of_requests():
    assert [c.id for c in reference()] == [r.id for r in requests()]
    assert [c.id for c in generate(requests()[::-1])] == [r.id for r in requests()[::-1]]


def test_the_callback_sees_each_completion_once():
    seen = []
    made = generate(on_completion=seen.append)
    assert sorted(seen, key=lambda c: c.id) == sorted(made, key=lambda c: c.id)


@pytest.mark.parametrize(
    'changed',
    [
        {'num_slots': 3},
        {'chunk_steps': 1},
        {'chunk_steps': 32},
        {'prompt_buckets': (16,)},
        {'insert_rows': (1, 4)},
        {'prefill_chunk': 4},
        {'num_slots': 5, 'compact_slots': (2,), 'compact_lengths': (16,), **INT8}
        | {'prompt_buckets': (16,), 'insert_rows': (3,), 'prefill_chunk': 8},
    ],
    ids=str,
)
def test_settings_never_change_what_is_sampled(changed):
    held = {name: changed[name] for name in INT8 if name in changed}
    assert tokens(generate(**changed)) == tokens(reference(**held))


def test_order_never_changes_what_is_sampled():
    assert tokens(generate(requests()[::-1])) == tokens(reference())


def test_companions_never_change_what_is_sampled():
    for request in requests()[::7]:
        assert tokens(generate([request])).items() <= tokens(reference()).items()


def test_same_seed_repeats_and_another_does_not():
    assert generate() == reference()
    assert tokens(generate(seed=1)) != tokens(reference())


def test_samples_of_one_prompt_differ():
    asked = [engine.Request(i, (20, 30, 40), 12) for i in range(8)]
    assert len(set(tokens(generate(asked, method=ENDLESS)).values())) == 8


@pytest.mark.parametrize('held', [{}, INT8], ids=['model', 'int8'])
def test_recorded_log_probabilities_are_the_trainers(held):
    """In int8 they are those of the quantized model, which reads what its cache holds."""
    method = sampling_methods.Sampling(0.8, 30, 0.95, 0.0, banned=(0,))
    rows = np.zeros((len(requests()), 32), np.int32)
    made = generate(method=method, **held)
    for row, request, completion in zip(rows, requests(), made, strict=True):
        whole = request.prompt + completion.tokens
        row[: len(whole)] = whole
    read = quantization.quantize(model(), held.get('quantize', 'none'))
    positions = jnp.broadcast_to(jnp.arange(32), rows.shape)
    hidden, _ = read(rows, positions, return_cache=held.get('cache_dtype'))
    recomputed, _ = logprobs.token_logprobs(read, hidden, rows, transform=method.transform)
    for row, request, completion in zip(recomputed, requests(), made, strict=True):
        start = len(request.prompt)
        np.testing.assert_allclose(
            completion.logprobs, row[start : start + len(completion.tokens)], atol=1e-4
        )


def test_a_model_that_never_ends_stops_at_max_tokens():
    for request, completion in zip(requests(), generate(method=ENDLESS), strict=True):
        assert len(completion.tokens) == len(completion.logprobs) == request.max_tokens
        assert not completion.finished


def test_the_end_token_stands_once_and_last():
    made = generate([dataclasses.replace(r, max_tokens=20) for r in requests(20, 4)])
    assert any(completion.finished for completion in made)
    for completion in made:
        assert completion.finished == (completion.tokens[-1] == EOS)
        assert EOS not in completion.tokens[:-1]


def test_adjacent_requests_with_one_prompt_share_its_prefill(monkeypatch):
    shapes = []
    insert = decode.insert

    def counted(model, state, prompts, **arrays):
        shapes.append(int((arrays['lengths'] > 1).sum()))
        return insert(model, state, prompts, **arrays)

    monkeypatch.setattr(decode, 'insert', counted)
    generate([engine.Request(i, (20 + i // 4, 30), 4) for i in range(8)])
    assert shapes == [2]


def test_compilations_are_seen():
    with compilations() as compiled:
        jax.jit(lambda x: x + 17)(np.arange(3))
    assert compiled


def test_nothing_compiles_after_warm_up():
    settings = dataclasses.replace(
        SETTINGS,
        num_slots=6,
        chunk_steps=3,
        insert_rows=(1, 3),
        compact_slots=(2,),
        compact_lengths=(16,),
    )
    sampler = engine.Engine(settings, stop_ids=(EOS,))
    sampler.warm_up(model(), method=SAMPLING)
    with compilations() as compiled:
        for seed in range(3):
            sampler.generate(model(), requests()[seed * 3 :], method=SAMPLING, seed=seed)
    assert not compiled


@pytest.mark.parametrize('shape', [(2, 2, 2)], ids=str)
def test_a_mesh_samples_the_same_tokens_and_compiles_nothing_after_warm_up(shape):
    mesh = sharding.make_mesh(shape)
    settings = dataclasses.replace(SETTINGS, compact_lengths=(16,))
    sampler = engine.Engine(settings, stop_ids=(EOS,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(model(), sharding.shardings(model(), mesh))
        sampler.warm_up(placed, method=SAMPLING)
        with compilations() as compiled:
            made = sampler.generate(placed, requests(), method=SAMPLING, seed=0)
    assert tokens(made) == tokens(reference())
    assert not compiled


def test_a_seed_out_of_range_is_an_error():
    with pytest.raises(ValueError, match='seed=-1'):
        generate(seed=-1)


@pytest.mark.parametrize(
    'request_, word',
    [
        (engine.Request(5, (9,) * 13, 1), 'request 5: a prompt of 13 tokens exceeds .* 12'),
        (engine.Request(5, (9,) * 10, 23), 'nearest max_tokens: 22'),
    ],
)
def test_a_request_that_does_not_fit_is_an_error_with_the_sizes(request_, word):
    with pytest.raises(ValueError, match=word):
        generate([request_])


def test_a_request_id_given_twice_is_an_error():
    with pytest.raises(ValueError, match='request id 5 is given 2 times'):
        generate([engine.Request(5, (9,), 1), engine.Request(5, (9,), 1)])


@pytest.mark.parametrize(
    'given',
    [
        {'id': -1},
        {'id': 2**31},
        {'prompt': ()},
        {'max_tokens': 0},
    ],
    ids=str,
)
def test_a_malformed_request_is_an_error(given):
    with pytest.raises(ValueError, match='request'):
        engine.Request(**({'id': 0, 'prompt': (9,), 'max_tokens': 1} | given))


@pytest.mark.parametrize(
    'given',
    [
        {'num_slots': 0},
        {'chunk_steps': 0},
        {'prompt_buckets': ()},
        {'prompt_buckets': (12, 8)},
        {'prompt_buckets': (64,)},
        {'insert_rows': (9,)},
        {'compact_slots': (8,)},
        {'compact_lengths': (32,)},
        {'draft_tokens': 2},
        {'draft_ngram': 2},
        {'draft_tokens': -1, 'draft_ngram': 2},
        {'draft_tokens': 2, 'draft_ngram': 32},
        {'prefill_chunk': -1},
    ],
    ids=str,
)
def test_malformed_settings_are_an_error(given):
    with pytest.raises(ValueError, match='sampling'):
        dataclasses.replace(SETTINGS, **given)


def test_a_prefill_chunk_that_does_not_divide_is_told_the_nearest_that_does():
    with pytest.raises(ValueError, match=r'sampling.prefill_chunk=5 .*\(8, 12\).*nearest: 4'):
        dataclasses.replace(SETTINGS, prefill_chunk=5)
