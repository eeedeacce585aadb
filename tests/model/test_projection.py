"""Products of bfloat16 matrices on a CPU: the form that its bfloat16 instructions compute."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model import projection
from tests.model.test_remat import loss
from tests.support import tiny_model

ROWS, INPUTS, OUTPUTS = 24, 40, 32


def matrices(dtype='bfloat16'):
    rng = np.random.default_rng(0)
    shapes = ((ROWS, INPUTS), (INPUTS, OUTPUTS), (ROWS, OUTPUTS))
    return [jnp.asarray(rng.standard_normal(shape), 'bfloat16').astype(dtype) for shape in shapes]


def value_and_gradients(dtype, result):
    x, weight, gradient = matrices(dtype)
    product, transpose = jax.vjp(
        lambda x, weight: projection.project(x, weight, contract=1, dtype=result), x, weight
    )
    return product, *transpose(gradient.astype(product.dtype))


def test_all_products_of_a_layer_have_bfloat16_factors_and_float32_sums():
    program = jax.jit(lambda: value_and_gradients('bfloat16', None)).lower().as_text()
    products = re.findall(r'stablehlo\.dot_general.*: \((\S+), (\S+)\) -> (\S+)', program)
    assert len(products) == 3
    for *factors, result in products:
        assert all(factor.endswith('xbf16>') for factor in factors) and result.endswith('xf32>')


@pytest.mark.parametrize('result', [None, 'float32'])
def test_values_and_gradients_are_those_of_float32_rounded_once(result):
    ours, exact = value_and_gradients('bfloat16', result), value_and_gradients('float32', result)
    assert [x.dtype for x in ours] == [result or 'bfloat16', 'bfloat16', 'bfloat16']
    for x, expected in zip(ours, exact, strict=True):
        np.testing.assert_allclose(x.astype('float32'), expected, rtol=2**-8, atol=2e-5)


def num_products(**changes):
    """Products of the gradient of a model, also those that it computes again."""
    model = tiny_model.make_model(dataclasses.replace(tiny_model.EVERYTHING, **changes))
    return str(jax.make_jaxpr(jax.grad(loss))(model)).count('dot_general[')


def test_a_policy_that_keeps_products_keeps_these_too():
    assert num_products(remat='dots', dtype='bfloat16') == num_products(remat='dots')
    assert num_products(remat='dots', dtype='bfloat16') < num_products(
        remat='full', dtype='bfloat16'
    )
