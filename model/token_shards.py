"""Sharding of the tokens of the residual stream between matrix products (sequence parallelism)."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import PartitionSpec as P

from elenchus.model import sharding


def stream_axes(rows: int, length: int) -> tuple[str, ...]:
    """Mesh axes that split the positions of a residual stream [rows, length, D] between layers.

    'context' splits whole layers by position. 'tensor' splits only what is between matrix products:
    norms and residual sums are then computed once, instead of on each device of the axis. A
    reduce-scatter after a product and an all-gather before the next one replace an all-reduce of
    the same bytes (arXiv 2205.05198). An axis that does not divide the length is not used.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.manual_axes or rows % sharding.num_row_parts(mesh):
        return ()
    names = ()
    for name in (sharding.CONTEXT, 'tensor'):
        parts = math.prod(mesh.shape[n] for n in (*names, name)) if name in mesh.shape else 1
        if parts > 1 and length % parts == 0 and mesh.shape[name] > 1:
            names = (*names, name)
    return names


def constrain_stream(x: jax.Array, names: Sequence[str]) -> jax.Array:
    """Constrains x [B, T, ...] to rows over devices and positions over mesh axes `names`.

    `names` are of `stream_axes`. With none of them, positions stay whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    if not names:
        return sharding.constrain(x, ('batch', *(None,) * (x.ndim - 1)))
    rows, names = (
        tuple(n for n in axes if n not in mesh.manual_axes) or None
        for axes in (sharding.ROW_AXES, names)
    )
    return jax.lax.with_sharding_constraint(x, P(rows, names, *(None,) * (x.ndim - 2)))


def join_stream(x: jax.Array) -> jax.Array:
    """x [B, T, D] with those positions whole that 'tensor' split, for the product of a matrix."""
    return sharding.constrain(x, ('batch', 'sequence', None))
