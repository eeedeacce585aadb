"""Experts on meshes: slices of every expert, or whole ones, on a device; a TPU's program."""

import dataclasses
import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import config as config_lib
from elenchus.model import sharding, transformer
from elenchus.train import objective, step
from elenchus.train.planning import compiled, machines, program_cost
from tests.support import tiny_experts, tiny_model

CONFIG = tiny_experts.CONFIG
use_form = tiny_experts.use_form
PARALLEL = dataclasses.replace(CONFIG, num_experts=8, experts_per_token=3, expert_parallel=True)
forms = pytest.mark.parametrize('computes_all', [True, False], ids=['all', 'chosen'])


def on_mesh(config, shape, batch):
    """(loss, gradients) of a batch on a mesh of some of the devices."""
    size = int(np.prod(shape))
    mesh = sharding.make_mesh(shape, jax.devices()[:size])
    with jax.set_mesh(mesh):
        model = tiny_model.make_model(config)
        model = jax.device_put(model, sharding.shardings(model, mesh))
        gate = model.blocks.experts.gate[...]
        parts = (config.num_experts, 8 // shape[2])
        if config.expert_parallel:
            parts = (config.num_experts // shape[2], 8)
        embed = 16 // int(np.prod(shape[1:2] + shape[3:]))
        assert gate.sharding.shard_shape(gate.shape) == (2, parts[0], embed, parts[1])
        batch = jax.device_put(batch, tiny_model.batch_sharding(mesh))
        loss, grads, _ = tiny_experts.loss_and_grads(model, batch)
        return float(loss), [np.asarray(leaf) for leaf in jax.tree.leaves(grads)]


@pytest.mark.parametrize(
    ('shape', 'computes_all'),
    [
        pytest.param((1, 2, 2), True, marks=pytest.mark.slow),
        pytest.param((1, 2, 2), False, marks=pytest.mark.slow),
        pytest.param((2, 1, 1, 2), True, marks=pytest.mark.slow),
        pytest.param((1, 2, 4), False, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_four_devices_compute_what_one_does(use_form, shape, computes_all):
    batch = tiny_model.random_batch(0, rows=4)
    batch = batch._replace(weights=abs(batch.weights))
    use_form(computes_all)
    loss, grads, _ = tiny_experts.loss_and_grads(tiny_model.make_model(CONFIG), batch)
    actual = on_mesh(CONFIG, shape, batch)
    assert actual[0] == pytest.approx(float(loss), rel=1e-6)
    tiny_model.assert_trees_close((actual[1],), (jax.tree.leaves(grads),), relative=1e-5)


@pytest.mark.parametrize(
    ('shape', 'computes_all', 'length'),
    [
        ((1, 1, 2), False, 16),
        pytest.param((1, 2, 2), False, 16, marks=pytest.mark.slow),
        pytest.param((1, 2, 2), False, 15, marks=pytest.mark.slow),  # not divided by 'tensor'
        pytest.param((1, 2, 2), True, 16, marks=pytest.mark.slow),
        pytest.param((1, 1, 4), True, 15, marks=pytest.mark.slow),
        pytest.param((1, 2, 4), False, 16, marks=pytest.mark.slow),
        pytest.param((1, 1, 2, 2), False, 16, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_devices_with_whole_experts_compute_what_one_does(use_form, shape, computes_all, length):
    use_form(computes_all)
    batch = tiny_model.random_batch(0, rows=4, length=length)
    batch = batch._replace(weights=abs(batch.weights))
    loss, grads, _ = tiny_experts.loss_and_grads(tiny_model.make_model(PARALLEL), batch)
    actual = on_mesh(PARALLEL, shape, batch)
    assert actual[0] == pytest.approx(float(loss), rel=1e-6)
    tiny_model.assert_trees_close((actual[1],), (jax.tree.leaves(grads),), relative=1e-5)


def test_experts_that_do_not_divide_are_refused_by_name():
    config = dataclasses.replace(PARALLEL, num_experts=6)
    mesh = sharding.make_mesh((1, 1, 4), jax.devices()[:4])
    model = jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))
    with pytest.raises(ValueError, match=r'experts.* whole_experts=6 does not divide .*: 8'):
        sharding.shardings(model, mesh)


@pytest.mark.slow
@pytest.mark.parametrize('config', [CONFIG, PARALLEL], ids=['slices', 'whole'])
@forms
def test_four_devices_sample_what_one_does(use_form, computes_all, config):
    use_form(computes_all)
    jax.clear_caches()  # of programs with the other form
    model = jax.device_get(tiny_model.make_model(config))
    prompts = np.random.default_rng(1).integers(1, 48, (4, 6))
    alone = tiny_experts.greedy(jax.tree.map(jnp.asarray, model), prompts, 9, slots=4)
    mesh = sharding.make_mesh((1, 2, 2), jax.devices()[:4])
    with jax.set_mesh(mesh):
        placed = jax.device_put(model, sharding.shardings(model, mesh))
        assert tiny_experts.greedy(placed, prompts, 9, slots=4) == alone
    jax.clear_caches()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='needs libtpu')
def test_a_training_step_compiles_for_a_tpu():
    """With the kernel for groups of rows, split over 'fsdp' and 'tensor'."""
    config = dataclasses.replace(
        CONFIG, embed_dim=256, mlp_dim=256, num_heads=4, num_kv_heads=2, head_dim=64,
        dtype='bfloat16', remat='dots', num_experts=8, vocab_size=512,
    )  # fmt: skip
    with compiled.mesh_of(machines.topology('v5e-4'), (1, 2, 2)) as mesh:
        model = jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))
        places = sharding.shardings(model, mesh)
        rows = tiny_model.batch_sharding(mesh)
        placed = lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)  # noqa: E731
        model = jax.tree.map(placed, model, places)
        batch = jax.tree.map(
            lambda x: placed(x, rows), tiny_model.random_batch(0, rows=4, length=256)
        )
        function = functools.partial(
            step.loss_and_grads, objective=objective.SFT, transform=step.IDENTITY,
            num_microbatches=1,
        )  # fmt: skip
        text = jax.jit(function).lower(model, batch).compile().as_text()
    assert 'ragged_dot' in text
    counted = program_cost.program_cost(text).once.flops
    expected = 3 * config_lib.forward_flops(config, tokens=4 * 256, length=128) / 4
    assert 0.8 * expected < counted < 1.6 * expected
