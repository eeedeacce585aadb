"""Attention in bfloat16 sums and divides in float32: its error is that of its rounded inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.model.attention import einsum, inputs

B, T, N, K, H = 1, 512, 4, 2, 64
SHARED = inputs.SharedPrompt(samples=2, prompt=128, response=192)


def random_arrays(mean, dtype):
    rng = np.random.default_rng(0)
    shapes = ((B, T, N, H), (B, K, T, H), (B, K, T, H))
    query, key, value = (rng.standard_normal(shape) for shape in shapes)
    return tuple(jnp.asarray(x, 'bfloat16').astype(dtype) for x in (query, key, value + mean))


def attended(name, arrays):
    causal = jnp.tril(jnp.ones((T, T), bool))[None]
    if name == 'shared':
        size = SHARED.sample_length
        mask = jnp.broadcast_to(jnp.tril(jnp.ones((size, size), bool)), (2, size, size))
        layout = inputs.AttentionInputs((), mask, shared=SHARED)
        attend = lambda *x: einsum.attend_shared(*x, inputs=layout, scale=H**-0.5, cap=0.0)  # noqa: E731
    else:
        function = {'whole': einsum.attend, 'causal': einsum.attend_causal}[name]
        attend = lambda *x: function(*x, mask=causal, scale=H**-0.5, cap=0.0)  # noqa: E731
    return np.asarray(jax.jit(attend)(*arrays), np.float64)


@pytest.mark.parametrize('name', ['whole', 'causal', 'shared'])
@pytest.mark.parametrize('mean', [0.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_the_error_in_bfloat16_is_that_of_rounding_weights_and_result_once(name, mean):
    """A result is rounded with 2 ** -9 / 3 ** 0.5 = 1.1e-3 on average, and so are its weights."""
    exact = attended(name, random_arrays(mean, 'float32'))
    rounded = attended(name, random_arrays(mean, 'bfloat16'))
    error = np.sqrt(np.mean((rounded - exact) ** 2) / np.mean(exact**2))
    assert error < 2.2e-3
    # Dividing by a rounded total would scale whole rows.
    assert abs(np.mean(rounded - exact)) / np.mean(np.abs(exact)) < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['bfloat16', pytest.param('float32', marks=pytest.mark.slow)])
def test_a_result_has_the_type_of_its_values(dtype):
    arrays = random_arrays(0.0, dtype)
    mask = jnp.tril(jnp.ones((T, T), bool))[None]
    for attend in (einsum.attend, einsum.attend_causal):
        assert attend(*arrays, mask=mask, scale=1.0, cap=0.0).dtype == dtype
