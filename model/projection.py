"""Matrix products of a layer, for all kinds of weights.

A weight is an array, a quantized array (`qwix.QArray`), a low-rank sum (`LowRank`) or a matrix
stored transposed (`Transposed`). Only `project` distinguishes them, so forward passes, decoding and
scoring use the same code for all.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import qwix
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from elenchus.model import numerics, platforms

NUM_INPUT_DIMS = {'query': 1, 'key': 1, 'value': 1, 'out': 2, 'gate': 1, 'up': 1, 'down': 1}
"""Matrix of a block -> number of its leading dimensions that are contracted with the input."""
PRODUCT = 'product'
"""Name, for policies of `jax.checkpoint`, of products that are within a custom derivative."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRank:
    """base + scale * a @ b, kept as three arrays. Source: LoRA (arXiv 2106.09685), section 4.1."""

    base: jax.Array | qwix.QArray  # [*in, *out], frozen
    a: jax.Array  # [*in, r]
    b: jax.Array  # [r, *out]
    scale: float = dataclasses.field(metadata={'static': True})  # alpha / r

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the sum, [*in, *out]."""
        return self.base.shape

    def __getitem__(self, index) -> 'LowRank':
        """Supports only `weight[...]`, which is how layers read an nnx.Param."""
        assert index is ..., index
        return self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Transposed:
    """A matrix stored as [*lead, out, in], with which a CPU multiplies few rows faster.

    Decoding has few rows: it is up to 1.6 times as fast with this layout (docs/log.md).
    """

    array: jax.Array  # [*lead, out, in]
    shape: tuple[int, ...] = dataclasses.field(metadata={'static': True})  # [*in, *out]

    def __getitem__(self, index) -> 'Transposed':
        """Supports only `weight[...]`, which is how layers read an nnx.Param."""
        assert index is ..., index
        return self


def array_axes(weight, axes: tuple[str | None, ...], num_lead: int):
    """Returns the logical axes of each array of a weight, as a tree of its structure.

    `axes` are those of the whole weight [*lead, *in, *out]; `num_lead` counts the stacked layers.
    """
    if isinstance(weight, LowRank):
        split = weight.a.ndim - 1
        return dataclasses.replace(
            weight,
            base=array_axes(weight.base, axes, num_lead),
            a=P(*axes[:split], 'rank'),
            b=P(*axes[:num_lead], 'rank', *axes[split:]),
        )
    if isinstance(weight, Transposed):
        # Of the dimensions that are flattened into one, only the first (major) one can be split.
        size, num_in = 1, 0
        while size < weight.array.shape[-1]:
            size *= weight.shape[num_in]
            num_in += 1
        inner, outer = axes[num_lead], axes[num_lead + num_in]
        return dataclasses.replace(weight, array=P(*axes[:num_lead], outer, inner))
    return jax.tree.map(lambda _: P(*axes), weight)


def dense(weight: jax.Array | qwix.QArray, dtype) -> jax.Array:
    """Returns an array or a dequantized array in `dtype`; scales are applied in float32."""
    if isinstance(weight, qwix.QArray):
        weight = qwix.dequantize(weight.astype('float32'))
    return weight.astype(dtype)


def project(x: jax.Array, weight, *, contract: int, dtype=None) -> jax.Array:
    """Contracts the last `contract` dimensions of x with the first ones of `weight`.

    x [*lead, *in], weight [*in, *out] of any kind named above. Returns [*lead, *out] in `dtype`, or
    in the dtype of x if `dtype` is None.
    """
    if isinstance(weight, LowRank):
        # (x a) b costs r * (in + out) per row; a @ b would cost in * out and a second matrix.
        low = project(project(x, weight.a, contract=contract), weight.b, contract=1)
        base = project(x, weight.base, contract=contract)
        return numerics.by_rows(lambda base, low: base + weight.scale * low, base, low)
    lead, inner = x.shape[: x.ndim - contract], weight.shape[:contract]
    assert x.shape[x.ndim - contract :] == inner, (x.shape, weight.shape)
    # One 2-D product over all tokens is 1.2 to 1.3 times faster than a batched one on a CPU.
    flat = x.reshape(-1, math.prod(inner))
    if isinstance(weight, Transposed):
        # Without the barriers XLA rewrites W x^T as x W^T, which is the slow form on a CPU.
        flat = _transpose_in_memory(flat)
        flat = multiply(weight.array.astype(x.dtype), flat, dtype)
        flat = jax.lax.optimization_barrier(flat).T
    else:
        matrix = dense(weight, x.dtype).reshape(flat.shape[1], -1)
        flat = multiply(flat, matrix, dtype)
    return flat.reshape(*lead, *weight.shape[contract:])


def multiply(a: jax.Array, b: jax.Array, dtype=None) -> jax.Array:
    """Returns a @ b of two matrices, in `dtype` or in their own."""
    return numerics.by_rows(lambda rows: _multiply(rows, b, dtype), a)


def _multiply(a: jax.Array, b: jax.Array, dtype) -> jax.Array:
    is_bfloat16 = a.dtype == b.dtype == jnp.bfloat16
    if is_bfloat16 and platforms.target_platform() == 'cpu':
        return checkpoint_name(_multiply_bfloat16(a, b, dtype or 'bfloat16'), PRODUCT)
    return jnp.matmul(a, b, preferred_element_type=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _multiply_bfloat16(a: jax.Array, b: jax.Array, dtype) -> jax.Array:
    """Returns a @ b of bfloat16 matrices, summed in float32, then cast to `dtype`.

    XLA for CPU uses the processor's bfloat16 instructions only for products whose result is
    float32; otherwise it multiplies float32 copies (docs/log.md). The same holds for the products
    of the backward pass, in which the gradient is rounded to bfloat16, as a TPU does. There is no
    forward-mode derivative, and none in a `shard_map` that checks varying axes.
    """
    return jnp.matmul(a, b, preferred_element_type='float32').astype(dtype)


def _multiply_bfloat16_forward(a, b, dtype):
    return _multiply_bfloat16(a, b, dtype), (a, b)


def _multiply_bfloat16_backward(dtype, factors, gradient):
    a, b = factors
    gradient = gradient.astype(a.dtype)
    of_a = jnp.einsum('ij,kj->ik', gradient, b, preferred_element_type='float32')
    of_b = jnp.matmul(_transpose_in_memory(a), gradient, preferred_element_type='float32')
    return of_a.astype(a.dtype), of_b.astype(b.dtype)


def _transpose_in_memory(a: jax.Array) -> jax.Array:
    """Returns a.T, written row by row: those instructions do not read a left factor by columns.

    Only the flat array has one layout; for a transposed one XLA would choose that of `a`.
    """
    return jax.lax.optimization_barrier(a.T.reshape(-1)).reshape(a.shape[::-1])


_multiply_bfloat16.defvjp(_multiply_bfloat16_forward, _multiply_bfloat16_backward)


def saves_named_products(primitive, *args, **params) -> bool:
    """Policy of `jax.checkpoint`: keeps products that do not show as 'dot_general'."""
    is_named = jax.checkpoint_policies.save_only_these_names(PRODUCT)
    return primitive.name == 'ragged_dot_general' or is_named(primitive, *args, **params)


def cast_matrices(weights, dtype: str):
    """Returns a tree of weights with all arrays but norms and quantized ones in another dtype."""

    def cast(path, x):
        return x if keeps_dtype(path) else x.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, weights)


def keeps_dtype(path) -> bool:
    """True for the path of a norm's scale, or of an array of a quantized matrix."""
    names = jax.tree_util.keystr(path).split('.')
    return 'scale' in names or 'qvalue' in names
