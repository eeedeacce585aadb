"""Samples that share a row and a prompt have the loss and gradients of separate rows."""

import dataclasses
import functools

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from elenchus.data.batching import packing, shared_prompts
from elenchus.data.records import Batch, Example
from elenchus.model import sharding
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.train import step
from tests.support import tiny_model

SHARED = SharedPrompt(samples=3, prompt=9, response=7)
LENGTH = SHARED.sample_length
CONFIGS = {
    'windows, scanned': dataclasses.replace(tiny_model.EVERYTHING, remat='full', logits_chunk=4),
    'blocks of queries': dataclasses.replace(tiny_model.CONFIG, num_layers=1),
    'splash': dataclasses.replace(tiny_model.CONFIG, num_layers=1, attention='splash'),
}


def make_batch(seed: int, shared: SharedPrompt = SHARED, *, prompts: int = 4) -> Batch:
    """Rows of one sequence; `samples` adjacent rows share a prompt, some longer than its place."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(prompts):
        size = rng.integers(1, shared.prompt + 1)
        prompt = tiny_model.random_example(rng, size)._replace(
            loss_mask=np.zeros(size, np.float32), steps=np.zeros(size, np.int32)
        )
        for _ in range(shared.samples):
            rest = tiny_model.random_example(rng, rng.integers(2, shared.response + 1))
            joined = zip(prompt, rest, strict=True)
            examples.append(Example(*(np.concatenate(parts) for parts in joined)))
    return packing.pad(examples, length=shared.sample_length)


def merge_rows(batch: Batch, shared: SharedPrompt = SHARED):
    return shared_prompts.share_prompts(batch, **shared._asdict())


@functools.partial(tiny_model.jit, static_argnames=('shared', 'num_microbatches'))
def loss_and_grads(model, batch, *, shared=None, num_microbatches=1):
    return step.loss_and_grads(
        model,
        batch,
        objective=tiny_model.GSPO,
        transform=tiny_model.untouched,
        num_microbatches=num_microbatches,
        shared=shared,
        measure_gap=True,
    )


@pytest.mark.parametrize(
    'name',
    [
        'windows, scanned',
        *(pytest.param(name, marks=pytest.mark.slow) for name in ('splash', 'blocks of queries')),
    ],
)
def test_loss_gradients_and_metrics_are_those_of_separate_rows(name):
    shared = SharedPrompt(2, 9, 128) if name == 'blocks of queries' else SHARED
    model, batch = tiny_model.make_model(CONFIGS[name]), make_batch(0, shared)
    expected = loss_and_grads(model, batch)
    actual = loss_and_grads(model, merge_rows(batch, shared)[0], shared=shared)
    tiny_model.assert_trees_close(actual, expected, relative=3e-6)
    assert float(actual[0]) == pytest.approx(float(expected[0]), rel=1e-6)


@pytest.mark.slow
def test_microbatches_change_nothing():
    model, batch = tiny_model.make_model(tiny_model.FLAT), merge_rows(make_batch(1))[0]
    expected = loss_and_grads(model, batch, shared=SHARED)
    actual = loss_and_grads(model, batch, shared=SHARED, num_microbatches=2)
    tiny_model.assert_trees_close(actual, expected, relative=2e-6)


@pytest.mark.slow
def test_a_mesh_changes_nothing():
    axis_types = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.make_mesh((2, 2, 2), sharding.AXES, axis_types=axis_types)
    model, batch = tiny_model.make_model(tiny_model.FLAT), merge_rows(make_batch(2))[0]
    expected = loss_and_grads(model, batch, shared=SHARED)
    with jax.set_mesh(mesh):
        placed = jax.device_put(model, sharding.shardings(model, mesh))
        rows = jax.device_put(batch, tiny_model.batch_sharding(mesh))
        actual = loss_and_grads(placed, rows, shared=SHARED)
    tiny_model.assert_trees_close(actual, expected, relative=4e-6)


def test_log_probabilities_are_returned_in_the_original_rows():
    model, batch = tiny_model.make_model(tiny_model.FLAT), make_batch(3)
    logprobs = functools.partial(tiny_model.jit, static_argnums=2, static_argnames='shared')(
        step.batch_logprobs
    )
    merged, places = merge_rows(batch)
    actual = places.scatter(
        np.asarray(logprobs(model, merged, tiny_model.untouched, shared=SHARED)[0]), (12, LENGTH)
    )
    expected = np.asarray(logprobs(model, batch, tiny_model.untouched, shared=None)[0])
    trained = batch.loss_mask > 0
    np.testing.assert_allclose(actual[trained], expected[trained], rtol=1e-5, atol=1e-5)
    assert not actual[batch.segments == 0].any()


def test_values_in_padding_change_no_bit():
    model, (batch, _) = tiny_model.make_model(tiny_model.FLAT), merge_rows(make_batch(4))
    changed = tiny_model.with_padding(batch, np.random.default_rng(5))
    actual, expected = (loss_and_grads(model, b, shared=SHARED) for b in (changed, batch))
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@hypothesis.given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 8), st.integers(2, 8))
@hypothesis.settings(max_examples=40, deadline=None)
def test_every_trained_token_appears_once_after_its_context(seed, samples, prompt, response):
    shared = SharedPrompt(samples, prompt, response)
    source = make_batch(seed, shared, prompts=2)
    batch, places = merge_rows(source, shared)
    assert batch.tokens.shape == (2, shared.length)
    for name in ('loss_mask', 'weights', 'old_logprobs', 'tokens'):
        values, merged = getattr(source, name), getattr(batch, name)
        trained = source.loss_mask > 0
        np.testing.assert_array_equal(
            places.scatter(merged, values.shape)[trained], values[trained]
        )
    assert batch.loss_mask.sum() == source.loss_mask.sum()
    for row in range(len(source.tokens)):
        is_sample = (batch.segments[row // samples] == 1 + row % samples) | (
            np.arange(shared.length) < prompt
        )
        kept = is_sample & (batch.segments[row // samples] > 0)
        real = source.segments[row] > 0
        np.testing.assert_array_equal(batch.tokens[row // samples][kept], source.tokens[row][real])
        np.testing.assert_array_equal(batch.positions[row // samples][kept], np.arange(real.sum()))


def test_a_prompt_longer_than_its_place_continues_in_the_responses():
    batch = make_batch(6)
    shared = SHARED._replace(prompt=4, response=LENGTH - 4)
    model = tiny_model.make_model(tiny_model.FLAT)
    actual = loss_and_grads(model, merge_rows(batch, shared)[0], shared=shared)
    tiny_model.assert_trees_close(actual, loss_and_grads(model, batch), relative=3e-6)


def test_a_response_that_is_longer_than_its_place_is_refused():
    with pytest.raises(ValueError, match='tokens after the prompt that 3 samples share; at most 3'):
        merge_rows(make_batch(7), SHARED._replace(response=3))


def test_an_equal_beginning_of_trained_turns_is_no_prompt():
    """Samples that restart with the same forced tokens: each counts its turn's places from 0."""
    zeros = lambda kind: np.zeros(8, kind)  # noqa: E731
    example = Example(
        tokens=np.arange(1, 9, dtype=np.int32),
        loss_mask=np.array([0, 0, 0, 0, 0, 1, 1, 1], np.float32),
        weights=zeros(np.float32),
        old_logprobs=zeros(np.float32),
        ref_logprobs=zeros(np.float32),
        steps=np.array([0, 0, 0, 1, 1, 1, 2, 2], np.int32),
        turns=np.array([1, 1, 2, 2, 2, 2, 2, 2], np.int32),  # a header at index 2
        roles=np.array([1, 1, 3, 3, 3, 3, 3, 3], np.int32),
    )
    batch = packing.pad([example] * 2, length=8)
    shared, sources = shared_prompts.share_prompts(batch, samples=2, prompt=4, response=6)
    assert shared.tokens[0, :4].tolist() == [0, 1, 2, 3]
    places = jax.tree.map(np.asarray, step.places_of(shared))
    inside = sources.scatter(places.turn_position, batch.tokens.shape)[:, 3:]
    assert inside.tolist() == [[0, 1, 2, 3, 4]] * 2
