"""All-gathers weights that 'fsdp' shards, so that their gradients are reduce-scattered.

The partitioner would sum the whole gradient of a weight on every device (all-reduce) and then slice
it, which moves twice the bytes that are needed. Here each device gets an explicit copy of the
weight, so the gradient of the copies is one reduce-scatter.
"""

import contextlib
import contextvars
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from elenchus.model import projection, sharding

_rings: contextvars.ContextVar[tuple[int, ...]] = contextvars.ContextVar('rings', default=())


def copy_to_rows(x: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """Gathers x [D, V] over 'fsdp' into one copy per part of the tokens: [R, D, V].

    R is the number of parts; copy r is on the devices of part r, so `sharding.map_rows` reads it
    without communication. The gradient of the copies is one reduce-scatter.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if sharding.num_token_parts(mesh) == 1:
        return x[None]
    return _copy(x, sharding.spec(x.shape, axes, mesh=mesh), mesh)


def apply_to_rows(
    layer: Callable[[Any, Any, Any], jax.Array],
    weights: Any,
    arrays: Any,
    *,
    by_row: Any = None,
    dtype: str,
    is_split: bool = False,
) -> jax.Array:
    """Returns layer(weights, arrays, by_row) [B, ...]; each device computes it on its own rows.

    Args:
      layer: a function of weights, arrays and `by_row`; inside it 'tensor' stays automatic.
      weights: a tree of Variables. Matrices are gathered in `dtype`, in which they multiply.
      arrays: a tree whose first leaf is [B, ...]. Arrays [B, ...] are split by rows, but those of
        [1, ...] are not, nor is anything if B does not divide over the mesh.
      by_row: an array [B, ...] that is split by rows only, or None.
      is_split: whether arrays [B or 1, T, ...] are also split over 'context' along T.
    """
    mesh = jax.sharding.get_abstract_mesh()
    leaves, structure = jax.tree.flatten(arrays)
    if not _is_split_by_rows(mesh, leaves[0].shape[0]):
        return layer(weights, arrays, by_row)
    places = sharding.shardings(weights, mesh)
    copies = jax.tree.map(
        lambda x, place: _copy(x, place.spec, mesh),
        projection.cast_matrices(weights, dtype),
        places,
    )
    is_array = [hasattr(x, 'ndim') for x in leaves]  # Python numbers among them are static
    dynamic = [x for x, is_dynamic in zip(leaves, is_array, strict=True) if is_dynamic]

    def apply(copies, by_row, *dynamic):
        values = iter(dynamic)
        merged = [
            next(values) if is_dynamic else x
            for x, is_dynamic in zip(leaves, is_array, strict=True)
        ]
        own = jax.tree.map(lambda x: x[0], copies)
        return layer(own, jax.tree.unflatten(structure, merged), by_row)

    positions = (sharding.CONTEXT,) if is_split else ()
    specs = [_token_spec(x, positions) for x in dynamic]
    return jax.shard_map(
        apply,
        in_specs=(P(sharding.token_axes(mesh)), P(sharding.ROW_AXES), *specs),
        out_specs=P(sharding.ROW_AXES, *positions),
        axis_names=set(sharding.token_axes(mesh)),
        check_vma=False,
    )(copies, by_row, *dynamic)


def _is_split_by_rows(mesh: jax.sharding.AbstractMesh, rows: int) -> bool:
    """Returns whether each device computes layers for tokens of its own."""
    is_one = sharding.num_token_parts(mesh) == 1 or mesh.manual_axes
    return not is_one and rows % sharding.num_row_parts(mesh) == 0


def _token_spec(x: jax.Array, positions: tuple[str, ...]) -> P:
    """Spec of an array [B or 1, T, ...] or of a scalar; `positions` are the mesh axes of T."""
    if not x.ndim:
        return P()
    return P(sharding.ROW_AXES if x.shape[0] > 1 else None, *positions[: x.ndim - 1])


def _copy(x: jax.Array, own_spec: P, mesh: jax.sharding.AbstractMesh) -> jax.Array:
    """A copy of x for each part of the tokens."""
    names, parts = [sharding.mesh_names(axes) for axes in own_spec], sharding.token_axes(mesh)
    others = [tuple(n for n in dim_names if n not in parts) for dim_names in names]

    def gather(x):
        x = x[None]
        for dim, dim_names in enumerate(names, start=1):
            if sharding.CONTEXT in dim_names:  # the minor one of the two
                x = _gather(x, dim, axis=sharding.CONTEXT)
            if 'fsdp' in dim_names and mesh.shape['fsdp'] > 1:
                x = _gather_in_rings(x, dim, size=mesh.shape['fsdp'])
        return x

    # All axes are manual: with automatic ones, a gather would also gather what those split.
    return jax.shard_map(gather, in_specs=own_spec, out_specs=P(parts, *others), check_vma=False)(x)


def _gather_in_rings(x: jax.Array, dim: int, *, size: int) -> jax.Array:
    """All-gathers over 'fsdp', one dimension of the torus after the other.

    XLA for TPU has a reduce-scatter, the gradient of a gather, only for a ring. Over several
    dimensions at once it sums whole arrays instead.
    """
    rings = _rings.get()
    if math.prod(rings) != size or len(rings) < 2:
        return _gather(x, dim, axis='fsdp')
    inner = 1
    for ring in reversed(rings):
        # Devices of a group differ in this dimension of the torus alone.
        groups = [
            [start + inner * i + j for i in range(ring)]
            for start in range(0, size, inner * ring)
            for j in range(inner)
        ]
        x = _gather(x, dim, axis='fsdp', groups=groups)
        inner *= ring
    return x


def _gather(x: jax.Array, dim: int, *, axis: str, groups=None) -> jax.Array:
    """All-gathers the parts of `dim` along a first dimension of their own, and joins them.

    The gradient is then scattered along that dimension. Along the columns of an array XLA for TPU
    scatters only some numbers of memory tiles, and sums others whole.
    """
    parts = jax.lax.all_gather(x, axis, axis=0, tiled=False, axis_index_groups=groups)
    return jnp.moveaxis(parts, 0, dim).reshape(*x.shape[:dim], -1, *x.shape[dim + 1 :])


def saves_products(primitive, *args, **params) -> bool:
    """Policy of `jax.checkpoint`: the backward pass gathers weights again, but multiplies nothing.

    Without a policy it would keep the gathered weights of all layers.
    """
    if projection.saves_named_products(primitive, *args, **params):
        return True
    return primitive.name in ('dot_general', 'pallas_call')


@contextlib.contextmanager
def on_torus(mesh: jax.sharding.Mesh) -> Iterator[None]:
    """Gathers along the rings of this mesh's devices in programs that are traced in the block."""
    token = _rings.set(torus_rings(mesh))
    try:
        yield
    finally:
        _rings.reset(token)


def torus_rings(mesh: jax.sharding.Mesh) -> tuple[int, ...]:
    """Sizes of the dimensions of the torus that 'fsdp' runs along, the slowest first.

    Returns () if the devices have no coordinates, or if 'fsdp' does not run along whole dimensions
    in order.
    """
    line = list(np.moveaxis(mesh.devices, 1, -1).reshape(-1, mesh.devices.shape[1])[0])
    if not all(hasattr(device, 'coords') for device in line):
        return ()
    coords = [tuple(device.coords) for device in line]
    sizes = [len(set(values)) for values in zip(*coords, strict=True)]
    moving = sorted((d for d, n in enumerate(sizes) if n > 1), key=lambda d: _first_move(coords, d))
    rings = tuple(sizes[d] for d in reversed(moving))
    grid = itertools.product(*(sorted({c[d] for c in coords}) for d in reversed(moving)))
    return rings if [tuple(c[d] for d in reversed(moving)) for c in coords] == list(grid) else ()


def _first_move(coords: Sequence[tuple[int, ...]], dim: int) -> int:
    """Index of the first device whose coordinate in this dimension is not that of the first."""
    return next(i for i, c in enumerate(coords) if c[dim] != coords[0][dim])
