"""Which request enters which slot, and how prompts are packed."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.sampling.engine import prefill, refill
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.shapes import EngineSettings
from tests.support import simulated_engine
from tests.support.shipped_configs import settings_of

SETTINGS = EngineSettings(
    num_slots=16,
    max_length=64,
    chunk_steps=4,
    prompt_buckets=(8, 20, 40),
    prefill_batch_sizes=(4, 8),
    decode_batch_sizes=(),
    decode_cache_lengths=(),
)
GROUPS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6)), min_size=1, max_size=12)


def requests_of(groups):
    """Requests of (length of the prompt, samples)."""
    requests = []
    for i, (length, samples) in enumerate(groups):
        prompt = tuple(1000 * i + np.arange(1, length + 1))
        requests += [Request(len(requests) + j, prompt, 5) for j in range(samples)]
    return requests


@given(GROUPS, st.sampled_from([1, 2, 4]), st.sets(st.integers(0, 15), max_size=14), st.booleans())
def test_every_prompt_is_read_once_and_reaches_its_slots(groups, shards, busy, chunked):
    settings = dataclasses.replace(SETTINGS, prefill_chunk=4 if chunked else 0)
    requests = requests_of(groups)
    running = dict.fromkeys(busy, requests[0])
    queue = refill.Refill(settings, shards, requests)
    prefills = queue.next(running)
    entries = [entry for p in prefills for entry in p.entries]
    count = min(len(requests), 16 - len(busy))
    assert sorted(r.id for _, r in entries) == [r.id for r in requests[:count]]
    assert [r.id for r in queue.queue] == [r.id for r in requests[count:]]
    slots = [slot for slot, _ in entries]
    assert len(set(slots)) == len(slots) and not busy & set(slots)
    for p in prefills:
        check_arrays(settings, p, shards)


def check_arrays(settings, p, shards):
    batch, size = refill.to_batch(settings, p), 16 // shards
    rows, width = len(batch.tokens) // shards, prefill.block_width(p.length)
    assert rows * shards in settings.prefill_batch_sizes and p.length in settings.prompt_buckets
    expected = dict(p.entries)
    for shard in range(shards):
        for i in range(shard * size, shard * size + batch.count[shard]):
            request = expected.pop(shard * size + batch.slots[i])
            row, start, length = (x[i] for x in (batch.rows, batch.offsets, batch.lengths))
            tokens = batch.tokens[shard * rows + row]
            assert tuple(tokens[start : start + length]) == request.prompt
            assert start + max(length, width) <= p.length
            assert batch.stop_at[i] == length + 5 and batch.requests[i] == request.id
            if batch.starts is None:
                assert start == 0
            else:
                same = batch.starts[shard * rows + row] == start
                np.testing.assert_array_equal(
                    np.flatnonzero(same), np.arange(start, start + length)
                )
        unused = batch.slots[shard * size + batch.count[shard] : (shard + 1) * size]
        assert (unused >= size).all()
    assert not expected


@given(st.integers(1, 4), st.integers(1, 6))
def test_samples_of_a_prompt_share_a_shard_and_one_reading_of_it(num_prompts, samples):
    settings = dataclasses.replace(SETTINGS, num_slots=32)
    requests = requests_of([(7, samples)] * num_prompts)
    prefills = refill.Refill(settings, 4, requests).next({})
    prompts = [prompt for p in prefills for _, prompt in p.prompts]
    assert len(prompts) == num_prompts
    for prompt in prompts:
        assert len({slot // 8 for slot, _ in prompt.entries}) == 1
        assert len(prompt.entries) == samples
    # Prompts are spread over the shards.
    assert len({shard for p in prefills for shard, _ in p.prompts}) == num_prompts


def test_samples_that_do_not_fit_one_shard_go_on_in_the_emptiest_one():
    prefills = refill.Refill(SETTINGS, 4, requests_of([(7, 6)])).next({0: None, 1: None, 4: None})
    slots = [slot for p in prefills for slot, _ in p.entries]
    assert slots == [8, 9, 10, 11, 12, 13]


def lengths_of(p):
    return [[[prompt.length for _, prompt in row] for row in rows] for rows in p.rows]


def test_prompts_are_packed_behind_each_other_longest_first():
    requests = requests_of([(10, 1)] * 6 + [(37, 1), (30, 1)])
    (p,) = refill.Refill(SETTINGS, 1, requests).next({})
    assert (p.num_rows, p.length) == (4, 40)
    assert lengths_of(p) == [[[37], [30, 10], [10, 10, 10, 10], [10]]]
    alone = dataclasses.replace(SETTINGS, prefill_chunk=20)
    first, *_ = refill.Refill(alone, 1, requests).next({})
    assert lengths_of(first) == [[[37], [30], *[[10]] * 6]]


def test_rows_are_longer_than_the_longest_prompt_where_that_saves_padding():
    requests = requests_of([(11, 1)] * 12)
    (p,) = refill.Refill(SETTINGS, 1, requests).next({})  # 12 rows of 20 would be 240 tokens
    assert lengths_of(p) == [[[11, 11, 11]] * 4] and p.length == 40
    (p,) = refill.Refill(SETTINGS, 1, requests_of([(18, 1)] * 4)).next({})
    assert lengths_of(p) == [[[18]] * 4] and p.length == 20


def test_a_prefill_of_mostly_padding_waits_for_other_prompts():
    settings = dataclasses.replace(SETTINGS, min_prefill_use=0.6)
    busy = dict.fromkeys(range(12))
    queue = refill.Refill(settings, 1, requests_of([(9, 1)] * 20))
    assert queue.next(busy) == [] and len(queue.queue) == 20
    # A third of the slots is free; nothing runs; or nobody else will come.
    assert queue.next(dict.fromkeys(range(10))) and len(queue.queue) == 14
    assert queue.next({}) and not queue.queue
    last = refill.Refill(settings, 1, requests_of([(9, 1)] * 3))
    assert last.next(busy) and not last.queue
    eager = refill.Refill(SETTINGS, 1, requests_of([(9, 1)] * 20))
    assert eager.next(busy) and len(eager.queue) == 16


@given(GROUPS, st.sampled_from([1, 4]), st.floats(0, 1))
def test_every_request_is_sampled_once_whatever_waits(groups, shards, least):
    settings = dataclasses.replace(SETTINGS, min_prefill_use=least)
    requests = requests_of(groups)
    lengths = {r.id: 1 + r.id % 5 for r in requests}
    schedule = simulated_engine.simulate(settings, requests, lengths, shards=shards)
    assert schedule.decoded == sum(lengths.values())
    again = simulated_engine.simulate(settings, requests, lengths, shards=shards)
    assert again == schedule


@pytest.mark.parametrize('shards', [1, 8])
def test_the_8b_config_prefills_little_padding(shards):
    """1,250 attempts, five of each prompt, and 1,000 critiques."""
    settings = settings_of('released.llama3_8b_mathcritique:default').sampling.engine
    rng = np.random.default_rng(0)
    attempts = simulated_engine.make_requests(rng, 250, 5, shortest=80, longest=250, limit=1024)
    critiques = simulated_engine.make_requests(rng, 1000, 1, shortest=400, longest=1200, limit=1280)
    for name, requests, median in (('attempts', attempts, 300), ('critiques', critiques, 400)):
        sampled = np.clip(rng.lognormal(np.log(median), 0.6, len(requests)), 8, 1000).astype(int)
        lengths = {r.id: int(n) for r, n in zip(requests, sampled, strict=True)}
        schedule = simulated_engine.simulate(settings, requests, lengths, shards=shards)
        print(
            f'{name}, {shards} shards: prefilled {schedule.prefilled:,} for {schedule.prompts:,} '
            f'({schedule.padding:.2f} times), slots used {schedule.utilisation:.2f}'
        )
        assert schedule.padding <= 1.5
        assert schedule.utilisation > 0.55
