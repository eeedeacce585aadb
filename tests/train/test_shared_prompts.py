"""Samples that share a row and a prompt have the loss and gradients of rows of their own."""

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
    """Rows of one sequence: `samples` neighbours with a prompt, some longer than a row keeps."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(prompts):
        size = rng.integers(1, shared.prompt + 1)
        prompt = tiny_model.random_example(rng, size)._replace(loss_mask=np.zeros(size, np.float32))
        for _ in range(shared.samples):
            rest = tiny_model.random_example(rng, rng.integers(2, shared.response + 1))
            joined = zip(prompt, rest, strict=True)
            examples.append(Example(*(np.concatenate(parts) for parts in joined)))
    return packing.pad(examples, length=shared.sample_length)


def lay(batch: Batch, shared: SharedPrompt = SHARED):
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
        gap=True,
    )


@pytest.mark.parametrize(
    'name',
    ['windows, scanned', 'splash', pytest.param('blocks of queries', marks=pytest.mark.slow)],
)
def test_loss_gradients_and_metrics_are_those_of_rows_of_their_own(name):
    shared = SharedPrompt(2, 9, 128) if name == 'blocks of queries' else SHARED
    model, batch = tiny_model.make_model(CONFIGS[name]), make_batch(0, shared)
    expected = loss_and_grads(model, batch)
    found = loss_and_grads(model, lay(batch, shared)[0], shared=shared)
    tiny_model.assert_trees_close(found, expected, relative=3e-6)
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-6)


@pytest.mark.slow
def test_microbatches_change_nothing():
    model, batch = tiny_model.make_model(tiny_model.FLAT), lay(make_batch(1))[0]
    expected = loss_and_grads(model, batch, shared=SHARED)
    found = loss_and_grads(model, batch, shared=SHARED, num_microbatches=2)
    tiny_model.assert_trees_close(found, expected, relative=2e-6)


def test_a_mesh_changes_nothing():
    axis_types = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.make_mesh((2, 2, 2), sharding.AXES, axis_types=axis_types)
    model, batch = tiny_model.make_model(tiny_model.CONFIG), lay(make_batch(2))[0]
    expected = loss_and_grads(model, batch, shared=SHARED)
    with jax.set_mesh(mesh):
        placed = jax.device_put(model, sharding.shardings(model, mesh))
        rows = jax.device_put(batch, sharding.batch_sharding(mesh))
        found = loss_and_grads(placed, rows, shared=SHARED)
    tiny_model.assert_trees_close(found, expected, relative=4e-6)


def test_log_probabilities_come_back_to_the_rows_they_were_asked_of():
    model, batch = tiny_model.make_model(tiny_model.FLAT), make_batch(3)
    of = functools.partial(tiny_model.jit, static_argnums=(2, 3))(step.batch_logprobs)
    laid, places = lay(batch)
    found = places.scatter(
        np.asarray(of(model, laid, tiny_model.untouched, SHARED)[0]), (12, LENGTH)
    )
    expected = np.asarray(of(model, batch, tiny_model.untouched, None)[0])
    trained = batch.loss_mask > 0
    np.testing.assert_allclose(found[trained], expected[trained], rtol=1e-5, atol=1e-5)
    assert not found[batch.segments == 0].any()


def test_what_stands_in_padding_changes_no_bit():
    model, (batch, _) = tiny_model.make_model(tiny_model.FLAT), lay(make_batch(4))
    changed = tiny_model.with_padding(batch, np.random.default_rng(5))
    found, expected = (loss_and_grads(model, b, shared=SHARED) for b in (changed, batch))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@hypothesis.given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 8), st.integers(2, 8))
@hypothesis.settings(max_examples=40, deadline=None)
def test_every_trained_token_stands_once_after_what_precedes_it(seed, samples, prompt, response):
    shared = SharedPrompt(samples, prompt, response)
    given = make_batch(seed, shared, prompts=2)
    batch, places = lay(given, shared)
    assert batch.tokens.shape == (2, shared.length)
    for name in ('loss_mask', 'weights', 'old_logprobs', 'tokens'):
        values, laid = getattr(given, name), getattr(batch, name)
        trained = given.loss_mask > 0
        np.testing.assert_array_equal(places.scatter(laid, values.shape)[trained], values[trained])
    assert batch.loss_mask.sum() == given.loss_mask.sum()
    for row in range(len(given.tokens)):
        own = (batch.segments[row // samples] == 1 + row % samples) | (
            np.arange(shared.length) < prompt
        )
        kept = own & (batch.segments[row // samples] > 0)
        real = given.segments[row] > 0
        np.testing.assert_array_equal(batch.tokens[row // samples][kept], given.tokens[row][real])
        np.testing.assert_array_equal(batch.positions[row // samples][kept], np.arange(real.sum()))


def test_a_prompt_longer_than_its_place_goes_on_in_the_responses():
    batch = make_batch(6)
    shared = SHARED._replace(prompt=4, response=LENGTH - 4)
    model = tiny_model.make_model(tiny_model.FLAT)
    found = loss_and_grads(model, lay(batch, shared)[0], shared=shared)
    tiny_model.assert_trees_close(found, loss_and_grads(model, batch), relative=3e-6)


def test_a_response_that_is_longer_than_its_place_is_refused():
    with pytest.raises(ValueError, match='tokens after the prompt that 3 samples share; at most 3'):
        lay(make_batch(7), SHARED._replace(response=3))
