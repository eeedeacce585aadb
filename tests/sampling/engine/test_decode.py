import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import logprobs, platforms, quantization
from elenchus.sampling.engine import decode, prefill, sampling_methods
from tests.support import tiny_model

EOS = 1
CONFIG = dataclasses.replace(
    tiny_model.CONFIG,
    vocab_size=64,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    max_length=32,
    scan_layers=False,
)
SAMPLING = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=(0,))
ENDLESS = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=(0, EOS))
PROMPTS = np.array([[5, 9, 12, 7, 0, 0], [20, 21, 0, 0, 0, 0]], np.int32)
LENGTHS = np.array([4, 2], np.int32)


@functools.cache
def model():
    return tiny_model.make_model(CONFIG)


def prefilled(
    prompts=PROMPTS, *, slots=(2, 0, 9), rows=(0, 1, 0), batch=4, stop_at=14, length=16, chunk=0
):
    prefill_batch = prefill.PrefillBatch(
        tokens=prompts,
        starts=None,
        count=np.array([sum(slot < batch for slot in slots)], np.int32),
        rows=np.array(rows, np.int32),
        offsets=np.zeros(len(slots), np.int32),
        lengths=LENGTHS[list(rows)],
        slots=np.array(slots, np.int32),
        requests=np.arange(len(slots), dtype=np.int32) + 10,
        methods=np.zeros(len(slots), np.int32),
        turn_start=LENGTHS[list(rows)],
        stop_at=np.full(len(slots), stop_at, np.int32),
        prompts=None,
        prefix_rows=np.zeros(len(prompts), np.int32),
        prefix_lengths=np.zeros(len(prompts), np.int32),
    )
    state = decode.init_state(CONFIG, batch=batch, length=length)
    return prefill.fill_slots(model(), state, prefill_batch, chunk=chunk)


def run(state, method=ENDLESS, *, slots=None, seed=0, num_steps=20, length=16):
    return decode.decode_chunk(
        model(),
        state,
        slots,
        method=method,
        seed=np.uint32(seed),
        num_steps=num_steps,
        stop_ids=(EOS,),
        length=length,
    )


def sampled(state, slot, row):
    return np.asarray(state.tokens[slot, LENGTHS[row] : state.position[slot] + 1])


def test_prefill_fills_its_slots_and_ignores_indices_past_the_end():
    state = prefilled()
    np.testing.assert_array_equal(state.done, [False, True, False, True])
    np.testing.assert_array_equal(state.position, [1, 0, 3, 0])
    np.testing.assert_array_equal(state.last_token, [21, 0, 7, 0])
    np.testing.assert_array_equal(state.request, [11, 0, 10, 0])


def test_rows_that_share_a_prompt_share_its_cache():
    state = prefilled(slots=(1, 3, 0), rows=(0, 0, 1))
    for leaf in jax.tree.leaves(state.cache):
        np.testing.assert_array_equal(leaf[1], leaf[3])


def test_prompts_read_in_chunks_give_the_state_of_prompts_read_at_once():
    whole, pieces = prefilled(), prefilled(chunk=2)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_off_the_cpu_the_loop_itself_reads_int8_weights(monkeypatch):
    """Dequantized before the loop, they would be read as float32 in every step."""
    monkeypatch.setattr(platforms, 'target_platform', lambda: 'tpu')
    chunk = decode.decode_chunk.lower(
        quantization.quantize(model(), 'int8'),
        jax.eval_shape(lambda: decode.init_state(CONFIG, batch=4, length=16)),
        None,
        method=ENDLESS,
        seed=np.uint32(0),
        num_steps=5,
        stop_ids=(EOS,),
        length=16,
    )
    program = chunk.compile(compiler_options=tiny_model.QUICK).as_text()
    assert any(' while(' in line and 's8[' in line for line in program.splitlines())


def test_padding_content_changes_nothing():
    other = np.where(np.arange(6) < LENGTHS[:, None], PROMPTS, 33)
    one, two = run(prefilled())[0], run(prefilled(other))[0]
    for slot, row in ((2, 0), (0, 1)):
        np.testing.assert_array_equal(sampled(one, slot, row), sampled(two, slot, row))


def test_greedy_equals_full_recomputation():
    greedy = sampling_methods.Greedy(banned=(0, EOS))
    state, _ = run(prefilled(), greedy)

    @tiny_model.jit
    def scores(tokens):
        hidden, _ = model()(tokens[None], jnp.arange(14)[None])
        return greedy.transform(model().logits(hidden[0]))

    for slot, row in ((2, 0), (0, 1)):
        sequence = PROMPTS[row, : LENGTHS[row]].tolist()
        while len(sequence) < 14:
            whole = jnp.array(sequence + [0] * (14 - len(sequence)))
            sequence.append(int(scores(whole)[len(sequence) - 1].argmax()))
        np.testing.assert_array_equal(sampled(state, slot, row), sequence[LENGTHS[row] :])


@pytest.mark.parametrize(
    'method',
    [
        sampling_methods.TemperatureSampling(0.7, 20, 0.9, 0.01, banned=(0, EOS)),
        pytest.param(sampling_methods.Greedy(banned=(0,)), marks=pytest.mark.slow),
    ],
    ids=['truncated', 'greedy'],
)
def test_recorded_log_probabilities_are_the_trainers(method):
    state, _ = run(prefilled(), method)

    @tiny_model.jit
    def recompute(model, tokens):
        hidden, _ = model(tokens, jnp.arange(16)[None])
        return logprobs.token_logprobs(model, hidden, tokens, transform=method.transform)[0]

    for slot, row in ((2, 0), (0, 1)):
        tokens = np.array(state.tokens[slot])
        tokens[: LENGTHS[row]] = PROMPTS[row, : LENGTHS[row]]
        expected = recompute(model(), tokens[None])
        part = slice(LENGTHS[row], int(state.position[slot]) + 1)
        np.testing.assert_allclose(state.logprobs[slot, part], expected[0, part], atol=1e-4)


def test_one_chunk_equals_many():
    whole, _ = run(prefilled())
    state = prefilled()
    for _ in range(7):
        state, _ = run(state, num_steps=2)
    for field in ('tokens', 'logprobs', 'position', 'done', 'last_token'):
        np.testing.assert_allclose(getattr(state, field), getattr(whole, field), atol=1e-5)


def test_a_part_of_the_slots_and_of_the_cache_gives_the_same():
    whole, _ = run(prefilled(), num_steps=5)
    part, flags = run(prefilled(), slots=np.array([2, 0, 4], np.int32), num_steps=5, length=10)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
        np.testing.assert_allclose(one[np.array([0, 2])], other[np.array([0, 2])], atol=1e-5)
    np.testing.assert_array_equal(flags, [part.position, part.done])


def test_done_slots_stay_as_they_are():
    state = prefilled()
    state = dataclasses.replace(state, done=state.done.at[2].set(True))
    before = jax.tree.map(lambda x: np.array(x[2]), state)
    after, _ = run(state)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[2]), before, after)


def test_it_stops_at_the_limit_and_not_before():
    state, flags = run(prefilled(stop_at=9))
    np.testing.assert_array_equal(flags, [[8, 0, 8, 0], [1, 1, 1, 1]])
    assert len(sampled(state, 2, 0)) == 5


def test_the_end_token_ends_a_slot_where_it_stands():
    seen = 0
    for seed in range(30):
        state, _ = run(prefilled(), SAMPLING, seed=seed)
        for slot, row in ((2, 0), (0, 1)):
            tokens = sampled(state, slot, row).tolist()
            assert EOS not in tokens[:-1]
            assert tokens[-1] == EOS or len(tokens) == 14 - LENGTHS[row]
            seen += tokens[-1] == EOS
    assert seen
