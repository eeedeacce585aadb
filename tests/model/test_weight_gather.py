"""Weights that 'fsdp' splits are gathered for each layer, and their gradients are scattered."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import placement, sharding
from elenchus.model.placement import pinned_jit
from tests.support import hlo, tiny_model

CONFIG = dataclasses.replace(tiny_model.EVERYTHING, num_heads=8, num_kv_heads=4)
LAYER_MATRICES = 7


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


def assert_same(grads, expected, *, tolerance):
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(expected), strict=True
    ):
        scale = max(1.0, float(np.abs(y).max()))
        np.testing.assert_allclose(
            np.asarray(x, 'float32') / scale,
            np.asarray(y, 'float32') / scale,
            atol=tolerance,
            err_msg=jax.tree_util.keystr(path),
        )


@pytest.mark.parametrize('remat', ['none', 'full'])
@pytest.mark.parametrize('shape', [(1, 8, 1), (2, 2, 2), (8, 1, 1)], ids=str)
def test_gradients_of_layers_are_scattered_and_never_summed_whole(shape, remat):
    config = dataclasses.replace(CONFIG, remat=remat)
    value, grads, text = value_and_grads(config, shape=shape)
    expected_value, expected, _ = value_and_grads(config)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    assert_same(grads, expected, tolerance=2e-5)
    moved = [c for c in hlo.collectives(text) if c.in_loop and c.dtype == 'f32']
    kinds = collections.Counter(c.kind for c in moved)
    print(shape, remat, kinds, sorted({(c.kind, c.shape) for c in moved}))
