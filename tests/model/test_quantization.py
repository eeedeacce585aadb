"""Quantized bases: bounded errors, adapters on top, and sharding."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from elenchus.model import block_weights, lora, quantization, sharding
from tests.support import tiny_adapters, tiny_model
from tests.support.tiny_adapters import ALL_TARGETS, base, fresh, trained


@pytest.mark.parametrize(('kind', 'bound'), [('int8', 0.01), ('nf4', 0.11)])
def test_quantization_errors_are_within_the_bound_of_their_kind(kind, bound):
    """Checks the error of every matrix in Euclidean norm, and the bytes."""
    quantized = quantization.quantize(base(), kind)
    again = lora.merge(quantized)
    for target in ALL_TARGETS:
        old, new = (
            np.asarray(getattr(block_weights.find_module(m, target), target)[...])
            for m in (base(), again)
        )
        assert 0 < np.linalg.norm(new - old) / np.linalg.norm(old) < bound
    size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))  # noqa: E731
    small, large = (size(block_weights.find_module(m, 'up')) for m in (quantized, base()))
    assert small < 0.35 * large
    np.testing.assert_array_equal(quantized.embedding[...], base().embedding[...])


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['int8', 'nf4'])
def test_adapters_learn_on_a_quantized_base_and_merge_with_it(kind):
    quantized, adapters = (
        quantization.quantize(base(tiny_model.FLAT), kind),
        fresh(config=tiny_model.FLAT, targets=('query', 'down')),
    )
    grads = tiny_adapters.loss_grads(adapters, quantized)
    want = tiny_adapters.loss_grads(adapters, lora.merge(quantized))
    for got, exact in zip(jax.tree.leaves(grads), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(got, exact, atol=1e-6)
    assert all(np.abs(x[...]).max() > 0 for x in grads.b.values())


def test_with_adapters_only_the_base_is_quantized_and_only_once():
    adapters = trained(targets=('query', 'down'))
    quantized = quantization.quantize(base(), 'int8')
    for model in (base(), quantized):
        adapted = quantization.quantize(lora.attach(model, adapters), 'int8')
        expected = lora.attach(quantized, adapters)
        assert jax.tree.structure(adapted) == jax.tree.structure(expected)
        for one, other in zip(jax.tree.leaves(adapted), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_quantized_base_is_sharded_as_before_and_its_scales_where_they_divide():
    mesh = sharding.make_mesh((2, 2, 2))
    quantized = jax.eval_shape(lambda: quantization.quantize(base(), 'int8'))
    specs = sharding.shardings(quantized, mesh)
    query = specs.blocks.attention.query.get_value()
    assert query.qvalue.spec == P(None, 'fsdp', 'tensor', None)
    assert query.scale.spec == P(None, None, 'tensor', None)
