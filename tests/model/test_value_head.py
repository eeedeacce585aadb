"""A value head: values of what stands before a token, packed, shared, adapted or on a mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from elenchus.model import lora, placement, sharding, value_head
from elenchus.train import objective, step
from elenchus.train.rl import logprobs as logprobs_lib
from tests.support import slow_cases, tiny_adapters, tiny_model
from tests.train.test_shared_prompts import SHARED, make_batch

CONFIG = tiny_model.FLAT


def make_values(**options):
    numbers = {'numbers': value_head.token_values, 'transform': step.IDENTITY}
    return logprobs_lib.make_logprobs(**numbers, **{'shared': None, 'rows': 8, **options})


@tiny_model.jit
def hidden_of(model, batch):
    return model(batch.tokens, batch.positions, segments=batch.segments)[0]


def with_random_head(trained):
    head = np.random.default_rng(5).normal(size=trained.head.shape).astype(np.float32)
    param = type(trained.head)(jnp.asarray(head), axes=value_head.AXES)
    if isinstance(trained, lora.Adapters):
        return dataclasses.replace(trained, head=param)
    model = jax.tree.map(lambda x: x, trained)
    model.head = param
    return model


def value_model(config=CONFIG):
    return with_random_head(value_head.with_value_head(tiny_model.make_model(config), config))


@pytest.mark.parametrize('tied', [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_value_is_the_head_times_the_state_before_the_token(tied):
    player = tiny_model.make_model(dataclasses.replace(CONFIG, tie_embeddings=tied))
    before = jax.tree.leaves(player)
    trained = value_head.with_value_head(player, player.config)
    assert all(x is y for x, y in zip(before, jax.tree.leaves(player), strict=True))
    batch = make_batch(0)
    assert not make_values()(trained, batch).any()  # it begins at zero
    model = with_random_head(trained)
    values = make_values()(model, batch)
    wanted = np.asarray(hidden_of(player, batch) @ model.head[...])[:, :-1, 0]
    is_first = batch.positions[:, 1:] == 0
    np.testing.assert_allclose(values[:, 1:], np.where(is_first, 0.0, wanted), atol=1e-5)
    assert not values[:, 0].any() and values[:, 1:].std() > 0.1


def test_rows_of_several_sequences_and_shared_prompts_have_the_values_of_separate_rows():
    model, batch = value_model(), make_batch(3)
    apart = make_values()(model, batch)
    shared = make_values(shared=SHARED, rows=2)(model, batch)
    responses = batch.loss_mask > 0
    np.testing.assert_allclose(shared[responses], apart[responses], atol=1e-5)
    packed = tiny_model.random_batch(1)
    inside = np.asarray(make_values()(model, packed))
    row, segment = 0, 2
    columns = np.flatnonzero(packed.segments[row] == segment)
    alone = type(packed)(*(np.repeat(x[:1, columns], 8, axis=0) for x in packed))
    alone = alone._replace(segments=np.ones_like(alone.segments))
    np.testing.assert_allclose(make_values()(model, alone)[0], inside[row, columns], atol=1e-5)


@slow_cases.combinations({((2, 2, 2),)}, shape=[(1, 8, 1), (2, 2, 2)])
def test_on_a_mesh_the_head_is_split_by_its_name_and_values_are_those_of_one_device(shape):
    model, batch = value_model(), tiny_model.random_batch(1)
    expected = make_values()(model, batch)
    with jax.set_mesh(sharding.make_mesh(shape)):
        placed = placement.current().place(model)
        assert placed.head[...].sharding.spec == P('fsdp', None)
        actual = make_values()(placed, batch)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.slow
def test_adapters_learn_a_head_of_their_own_and_the_base_stays():
    player = lora.attach(tiny_adapters.base(), tiny_adapters.trained())
    trained, frozen = lora.split(player)
    trained = with_random_head(value_head.with_value_head(trained, player.config))
    joined = lora.join(trained, frozen)
    assert joined.head is trained.head and frozen.head is not trained.head
    batch = tiny_model.random_batch(1)
    wanted = np.asarray(hidden_of(player, batch) @ trained.head[...])[:, :-1, 0]
    wanted = np.where(batch.positions[:, 1:] == 0, 0.0, wanted)
    np.testing.assert_allclose(make_values()(joined, batch)[:, 1:], wanted, atol=1e-5)
    options = {'transform': step.IDENTITY, 'numbers': value_head.token_values}
    options |= {'objective': objective.value(0.0), 'num_microbatches': 1}
    loss_and_grads = tiny_model.jit(functools.partial(step.loss_and_grads, **options))
    _, grads, _ = loss_and_grads(trained, batch, frozen=frozen)
    assert isinstance(grads, lora.HeadedAdapters) and np.any(grads.head[...] != 0)
    assert all(np.any(x != 0) for x in jax.tree.leaves(grads.a))
