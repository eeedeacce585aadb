"""Weights that 'fsdp' splits are gathered for each layer, and their gradients are scattered."""

import collections
import dataclasses
import importlib.util
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from elenchus.model import placement, sharding, weight_gather
from elenchus.model.placement import pinned_jit
from elenchus.train.checkpoints import saved_models
from elenchus.train.planning import compiled, machines, program_cost
from tests.support import hlo, tiny_model

CONFIG = dataclasses.replace(tiny_model.EVERYTHING, num_heads=8, num_kv_heads=4)
SPLIT_WEIGHTS = 11
"""Arrays of a layer that 'fsdp' splits: seven matrices and four norms."""


def value_and_grads(config, *, shape=None):
    """(hidden sum, gradients, compiled text) of the layers of a tiny model on a mesh."""
    batch = tiny_model.random_batch(0, rows=16)

    @pinned_jit(axes={'batch': placement.ROWS})
    def program(model, batch):
        def total(model):
            hidden, _ = model(batch.tokens, batch.positions, segments=batch.segments)
            return (hidden.astype('float32') * jnp.cos(jnp.arange(hidden.shape[-1]))).sum()

        return jax.value_and_grad(total)(model)

    model = tiny_model.make_model(config)
    if shape is None:
        return *program(model, batch), ''
    with jax.set_mesh(sharding.make_mesh(shape)):
        here = placement.current()
        model, batch = here.place(model), here.place(batch, placement.ROWS)
        return *program(model, batch), program.lower(model, batch).compile().as_text()


def assert_same(grads, expected):
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(expected), strict=True
    ):
        scale = max(1.0, float(np.abs(y).max()))
        np.testing.assert_allclose(
            np.asarray(x, 'float32') / scale,
            np.asarray(y, 'float32') / scale,
            atol=2e-5,
            err_msg=jax.tree_util.keystr(path),
        )


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    'shape, remat',
    [
        pytest.param((1, 8, 1), 'none', marks=SLOW),
        ((2, 2, 2), 'dots'),
        pytest.param((1, 8, 1), 'full', marks=SLOW),
        pytest.param((2, 2, 2), 'none', marks=SLOW),
        pytest.param((8, 1, 1), 'none', marks=SLOW),
    ],
    ids=str,
)
def test_gradients_of_layers_are_scattered_and_never_summed_whole(shape, remat):
    config = dataclasses.replace(CONFIG, remat=remat)
    value, grads, text = value_and_grads(config, shape=shape)
    expected_value, expected, _ = value_and_grads(config)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    assert_same(grads, expected)
    moved = [c for c in hlo.collectives(text) if c.in_loop and c.dtype == 'f32']
    # Beside weights, 'tensor' gathers activations and scatters their sums.
    rows, width = 16 // (shape[0] * shape[1]), config.embed_dim
    activations = {(rows, 16, width), (rows, 16 // shape[2], width)} if shape[2] > 1 else set()
    moved = [c for c in moved if c.shape not in activations]
    counts = collections.Counter(c.kind for c in moved)
    num_split = SPLIT_WEIGHTS if shape[1] > 1 else 0
    # Gathered in the forward pass and again in the backward pass, so that no layer's are kept.
    assert counts['all-gather'] == 2 * num_split
    assert counts['reduce-scatter'] == num_split
    if num_split:
        sums = {c.shape for c in moved if c.kind == 'all-reduce'}
        assert not sums & whole_shapes(config, shape[2])


def whole_shapes(config, tensor):
    """Shapes of a layer's matrices on a device that has them whole but for 'tensor'."""
    D, F, H = config.embed_dim, config.mlp_dim // tensor, config.head_dim
    N, K = config.num_heads // tensor, config.num_kv_heads // tensor
    matrices = {(D, F), (F, D), (D, N * H), (D, K * H), (N * H, D)}
    # 'tensor' splits the tokens of a norm, so its gradient, a vector, is summed over it.
    norms = {(D,)} if tensor == 1 else set()
    return matrices | norms | {(D, N, H), (D, K, H), (N, H, D)}


@pytest.mark.slow
@pytest.mark.parametrize(
    'rings',
    [(2, 4), (4, 2), (2, 2, 2)],
    ids=str,
)
def test_gathers_in_rings_give_the_same_bits(monkeypatch, rings):
    """A CPU has no torus; its devices are numbered as those of one."""
    expected = value_and_grads(CONFIG, shape=(1, 8, 1))
    monkeypatch.setattr(weight_gather, 'torus_rings', lambda mesh: rings)
    value, grads, text = value_and_grads(CONFIG, shape=(1, 8, 1))
    assert value == expected[0]
    assert_same(grads, expected[1])
    moved = [c for c in hlo.collectives(text) if c.in_loop and c.dtype == 'f32']
    counts = collections.Counter(c.kind for c in moved)
    assert counts['reduce-scatter'] == len(rings) * SPLIT_WEIGHTS


def test_rows_that_do_not_divide_still_pass_the_layers():
    model, batch = tiny_model.make_model(CONFIG), tiny_model.random_batch(0, rows=3)
    call = pinned_jit(lambda model, batch: model(batch.tokens, batch.positions)[0])
    expected = call(model, batch)
    with jax.set_mesh(sharding.make_mesh((2, 2, 2))):
        hidden = call(placement.current().place(model), batch)
    np.testing.assert_allclose(hidden, expected, atol=3e-5)


@dataclasses.dataclass(frozen=True)
class Chip:
    coords: tuple[int, ...]


@pytest.mark.parametrize(
    'torus, mesh, rings',
    [
        ((16, 16), (1, 256, 1), (16, 16)),
        ((16, 16), (1, 64, 4), (16, 4)),
        ((16, 16), (4, 64, 1), (4, 16)),
        ((16, 16), (16, 16, 1), (16,)),
        ((4, 4, 8), (1, 128, 1), (4, 4, 8)),
        ((4, 8), (32, 1, 1), ()),
    ],
    ids=str,
)
def test_rings_are_the_dimensions_of_the_torus(torus, mesh, rings):
    chips = [Chip(coords) for coords in itertools.product(*map(range, torus))]
    devices = np.array(chips, object).reshape(mesh)
    assert weight_gather.torus_rings(types.SimpleNamespace(devices=devices)) == rings


def test_devices_in_another_order_are_one_ring():
    chips = [Chip(c) for c in [(0, 0), (1, 0), (0, 1), (1, 1), (1, 3), (0, 3), (1, 2), (0, 2)]]
    devices = np.array(chips, object).reshape(1, 8, 1)
    assert weight_gather.torus_rings(types.SimpleNamespace(devices=devices)) == ()


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed')
def test_xla_for_tpus_scatters_every_gradient_of_a_layer():
    """Also along columns, of which a chip has one memory tile, as in Qwen3 0.6B on eight chips."""
    config = dataclasses.replace(
        tiny_model.CONFIG, embed_dim=1024, mlp_dim=3072, num_heads=16, num_kv_heads=8, head_dim=128,
        vocab_size=1024, dtype='bfloat16', remat='full', qk_norm=True,
    )  # fmt: skip

    def total(model, tokens, positions):
        return jnp.tanh(model(tokens, positions)[0].astype('float32')).sum()

    with compiled.mesh_of(machines.topology('v5e-8'), (1, 8, 1)) as mesh:
        model = saved_models.abstract_model(config, mesh)
        rows = NamedSharding(mesh, P(sharding.ROW_AXES))
        tokens = jax.ShapeDtypeStruct((8, 256), 'int32', sharding=rows)
        with placement.current().in_force():
            places = jax.tree.map(lambda x: x.sharding, model)
            program = jax.jit(jax.grad(total), out_shardings=places)
            text = program.lower(model, tokens, tokens).compile().as_text()
    moved = program_cost.program_cost(text).once.collectives
    assert moved['all-reduce'].received_bytes < 0.1 * moved['reduce-scatter'].received_bytes
