"""Log-probabilities of many rows: passes of a microbatch, the values of one pass."""

import dataclasses

import jax
import numpy as np
import pytest

from elenchus.model import placement, sharding
from elenchus.train.rl import logprobs as logprobs_lib
from tests.support import slow_cases, tiny_model
from tests.train.test_shared_prompts import SHARED, make_batch


@pytest.fixture
def passes(monkeypatch):
    """Rows of every batch that goes to the devices."""
    rows = []

    def record(batch):
        rows.append(len(batch.tokens))
        return placement.current().place(batch, placement.ROWS)

    monkeypatch.setattr(logprobs_lib, 'to_device', record)
    return rows


@slow_cases.combinations({(13,), (24,)}, total=[16, 13, 5, 24])
def test_no_pass_has_more_rows_than_a_microbatch_and_the_values_are_those_of_one(passes, total):
    model, batch = tiny_model.make_model(tiny_model.FLAT), tiny_model.random_batch(0, rows=total)
    options = {'transform': tiny_model.untouched, 'shared': None}
    actual = logprobs_lib.make_logprobs(**options, rows=8)(model, batch)
    assert passes == [8] * -(-total // 8)
    whole = logprobs_lib.make_logprobs(**options, rows=total)(model, batch)
    assert actual.shape == batch.tokens.shape
    np.testing.assert_allclose(actual, whole, atol=1e-5)


def test_a_pass_needs_the_memory_of_its_rows_and_not_of_the_batch():
    config = dataclasses.replace(tiny_model.FLAT, vocab_size=512, logits_chunk=10_000)
    model = tiny_model.make_model(config)
    bytes_of = {}
    for rows in (4, 32):
        batch = tiny_model.random_batch(0, rows=32)
        part = next(logprobs_lib.split_rows(batch, rows))
        step = placement.pinned_jit(
            lambda model, batch: logprobs_lib.batch_logprobs(
                model, batch, tiny_model.untouched, shared=None
            )[0],
            axes={'batch': placement.ROWS},
        )
        usage = step.lower(model, part).compile().memory_analysis()
        bytes_of[rows] = usage.temp_size_in_bytes
    assert bytes_of[4] < bytes_of[32] / 4


@slow_cases.combinations({((2, 2, 2),)}, shape=[(1, 8, 1), (2, 2, 2)])
def test_passes_on_a_mesh_compile_once_and_give_the_values_of_one_device(shape, passes):
    model, batch = tiny_model.make_model(tiny_model.FLAT), tiny_model.random_batch(1, rows=24)
    logprobs = logprobs_lib.make_logprobs(transform=tiny_model.untouched, shared=None, rows=8)
    expected = logprobs(model, batch)
    with jax.set_mesh(sharding.make_mesh(shape)):
        actual = logprobs(placement.current().place(model), batch)
    assert passes == [8] * 6
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_passes_of_shared_prompts_count_their_own_rows(passes):
    model, batch = tiny_model.make_model(tiny_model.FLAT), make_batch(3)
    options = {'transform': tiny_model.untouched, 'shared': SHARED}
    actual = logprobs_lib.make_logprobs(**options, rows=1)(model, batch)
    assert passes == [1] * (len(batch.tokens) // SHARED.samples)
    whole = logprobs_lib.make_logprobs(**options, rows=4)(model, batch)
    np.testing.assert_allclose(actual, whole, atol=1e-5)
