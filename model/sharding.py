"""Device mesh, and the sharding rules that map logical axes of arrays to axes of the mesh."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from elenchus.model import projection

AXES = ('data', 'fsdp', 'tensor')
"""Mesh axes: 'data' copies parameters, 'fsdp' shards them, 'tensor' shards heads, MLP and vocab."""
CONTEXT = 'context'
"""Optional fourth mesh axis: it splits sequences, and shards parameters as 'fsdp' does."""

RULES = {
    'batch': ('data', 'fsdp'),
    'sequence': CONTEXT,
    'copies': ('data', 'fsdp', CONTEXT),
    'embed': ('fsdp', CONTEXT),
    'vocab': 'tensor',
    'heads': 'tensor',
    'kv_heads': 'tensor',
    'mlp': 'tensor',
    'experts': None,  # a device has a slice of each, by 'mlp': none waits for another one's load
    'whole_experts': 'tensor',
    'expert_mlp': None,  # the width of whole experts
    'rank': None,
    'layers': None,
    None: None,
}
"""Logical axis -> the mesh axes that split it; axes that a mesh lacks are ignored; None: none."""


Rules = Mapping[str | None, Any]
"""Type of RULES."""


def make_mesh(shape: Sequence[int], devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
    """Returns a mesh ('data', 'fsdp', 'tensor') over the devices, by default all of them.

    A fourth size above 1 adds the axis 'context'. One size may be -1: it takes all remaining
    devices. With several TPU slices, 'data' is split between them, so that only sums of gradients
    cross the network of the data centre, which is far slower than the links of a slice. Raises
    ValueError if the shape does not cover the devices, or if the size of 'data' is no multiple of
    the number of slices.
    """
    chips = jax.devices() if devices is None else list(devices)
    shape = fill_mesh(tuple(shape), len(chips))
    shape, names = named_shape(shape)
    axis_types = (AxisType.Auto,) * len(names)  # XLA propagates shardings inside plain `jax.jit`
    if num_slices(chips) == 1:
        return jax.make_mesh(shape, names, devices=chips, axis_types=axis_types)
    return jax.sharding.Mesh(lay_out_slices(shape, chips), names, axis_types=axis_types)


def named_shape(shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Returns (sizes, names) of the mesh axes; a fourth size of 1, or none, means no 'context'."""
    data, fsdp, tensor, context = (*shape, 1)[:4]
    sizes = (data, fsdp, tensor)
    return (sizes, AXES) if context == 1 else ((*sizes, context), (*AXES, CONTEXT))


def context_size(mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> int:
    """Number of parts that a mesh splits sequences into."""
    return mesh.shape.get(CONTEXT, 1)


def lay_out_slices(shape: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
    """Returns the devices of several TPU slices as an array of the mesh's shape.

    'data' runs over the slices, each of which is laid out as a mesh of its own. Raises ValueError
    if the size of 'data' is no multiple of the number of slices.
    """
    slices = num_slices(devices)
    if shape[0] % slices:
        rest, fixed = len(devices) // slices, shape[2:]
        inner = math.prod(fixed)
        if rest % inner == 0:
            nearest = (slices, rest // inner, *fixed)
        else:
            nearest = (slices, rest, *(1 for _ in fixed))
        raise ValueError(
            f'mesh={shape}: its first size, {AXES[0]!r}, must be a multiple of the {slices} TPU '
            f'slices, whose devices are split over it; nearest: {nearest}'
        )
    within = (shape[0] // slices, *shape[1:])
    between = (slices, *(1 for _ in shape[1:]))
    # Splitting a physical axis of the torus is slower, so it is only the second choice.
    try:
        return mesh_utils.create_hybrid_device_mesh(within, between, devices)
    except NotImplementedError:
        return mesh_utils.create_hybrid_device_mesh(
            within, between, devices, allow_split_physical_axes=True
        )


def num_slices(devices: Sequence[Any]) -> int:
    """Returns the number of TPU slices that the devices belong to; 1 for other devices.

    GPUs have a `slice_index` too, one per host, but no torus to lay out.
    """
    if devices[0].platform != 'tpu':
        return 1
    return len({getattr(device, 'slice_index', 0) for device in devices})


def fill_mesh(shape: tuple[int, ...], devices: int) -> tuple[int, ...]:
    """Returns the shape with a number for -1; raises ValueError if it does not fit the devices."""
    is_wrong = any(n < 1 and n != -1 for n in shape) or shape.count(-1) > 1
    if len(shape) not in (3, 4) or is_wrong:
        raise ValueError(
            f'mesh={shape} must be three sizes {AXES}, at most one of them -1; a fourth is context'
        )
    context = math.prod(n for n in shape[3:] if n != -1)
    if devices % context:
        nearest = max(n for n in range(1, context) if devices % n == 0)
        raise ValueError(f'context={context} must divide the {devices} devices; nearest: {nearest}')
    known, count = math.prod(n for n in shape if n != -1), devices // context
    if devices % known or (-1 not in shape and known != devices):
        of_context = f' that are left by context={context}' if context > 1 else ''
        raise ValueError(
            f'mesh={shape[:3]} must cover the {count} devices{of_context} exactly; '
            f'nearest: ({count}, 1, 1), or use -1 for the remaining devices'
        )
    return tuple(devices // known if n == -1 else n for n in shape)


def current_mesh() -> jax.sharding.Mesh:
    """Returns the mesh in force (`jax.set_mesh`); without one, a mesh of the first device alone."""
    # `get_mesh` fails while a function is traced, so the abstract mesh is asked first.
    if not jax.sharding.get_abstract_mesh().empty and not jax.sharding.get_mesh().empty:
        return jax.sharding.get_mesh()
    axis_types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh((1,) * len(AXES), AXES, axis_types=axis_types, devices=jax.devices()[:1])


def constrain(x: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """Constrains x to the sharding of its logical `axes` on the current mesh.

    A dimension that does not divide is not split. Without a mesh, returns x.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    # Inside `map_rows`, its manual axes cannot be constrained.
    rules = _restrict(set(mesh.axis_names) - set(mesh.manual_axes))
    spec = _spec(x.shape, axes, mesh_shape=mesh.shape, strict=False, rules=rules)
    return jax.lax.with_sharding_constraint(x, spec)


ROW_AXES = ('data', 'fsdp')
"""Mesh axes that the rows of a batch are split over."""


def num_row_parts(mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> int:
    """Number of parts that a mesh splits the rows of a batch into; 1 without a mesh."""
    return 1 if mesh.empty else math.prod(mesh.shape[name] for name in ROW_AXES)


def num_token_parts(mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> int:
    """Number of parts that a mesh splits the tokens of a batch into; 1 without a mesh."""
    return 1 if mesh.empty else num_row_parts(mesh) * context_size(mesh)


def token_axes(mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> tuple[str, ...]:
    """Mesh axes that the tokens of a batch are split over: rows, and the positions of a row."""
    return (*ROW_AXES, CONTEXT) if CONTEXT in mesh.shape else ROW_AXES


def map_rows(
    function: Callable[..., Any],
    arrays: Sequence[jax.Array],
    axes: Sequence[Sequence[str | None]],
) -> Any:
    """Calls function(*arrays) on each device with that device's tokens (`jax.shard_map`).

    Tokens are split by rows and, with 'context', by positions; results are [B, T], or [B, ...]
    without 'context'. `axes` are the logical axes of each array. 'tensor' stays automatic: inside
    the function arrays have their full size in the dimensions that it splits. Raises ValueError if
    the tokens do not divide over the devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if num_token_parts(mesh) == 1:
        return function(*arrays)
    names = token_axes(mesh)
    rules = _restrict(set(names))
    specs = tuple(
        _spec(x.shape, names, mesh_shape=mesh.shape, strict=True, name='array', rules=rules)
        for x, names in zip(arrays, axes, strict=True)
    )
    mapped = jax.shard_map(
        function,
        in_specs=specs,
        out_specs=P(ROW_AXES, CONTEXT) if CONTEXT in names else P(ROW_AXES),
        axis_names=set(names),
        check_vma=False,
    )
    return mapped(*arrays)


def apply_per_shard(
    function: Callable[..., jax.Array],
    arrays: Sequence[jax.Array],
    axes: Sequence[Sequence[str | None]],
) -> jax.Array:
    """Calls function(*arrays) on each device with that device's shards of the arrays.

    For functions that the partitioner cannot split, such as kernels. `axes` are the logical axes of
    each array; a dimension that does not divide is not split. The result is sharded like the first
    array.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arrays)
    names = set(mesh.axis_names) - set(mesh.manual_axes)  # those not already manual
    specs = tuple(
        _spec(x.shape, a, mesh_shape=mesh.shape, strict=False, rules=_restrict(names))
        for x, a in zip(arrays, axes, strict=True)
    )
    mapped = jax.shard_map(
        function, in_specs=specs, out_specs=specs[0], axis_names=names, check_vma=False
    )
    return mapped(*arrays)


def shardings(tree, mesh: jax.sharding.Mesh, *, rules: Rules | None = None, axes=None):
    """Returns the NamedSharding of every array of a tree.

    nnx Variables carry their logical axes as metadata. Those of plain arrays are in the argument
    `axes`, a tree prefix of PartitionSpecs of logical names; None replicates. Leaves of stacked
    blocks have one dimension more than their axes: a leading 'layers'. Raises ValueError if a
    dimension does not divide over its mesh axes.
    """
    resolve = functools.partial(_leaf_shardings, mesh=mesh, rules=rules or RULES)

    def subtree_shardings(prefix, axes, subtree):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: resolve(prefix + path, leaf, axes), subtree, is_leaf=_is_variable
        )

    return jax.tree_util.tree_map_with_path(
        subtree_shardings, axes, tree, is_leaf=lambda x: x is None or isinstance(x, P)
    )


def _is_variable(leaf) -> bool:
    return hasattr(leaf, 'get_metadata')


def _leaf_shardings(path, leaf, axes: P | None, *, mesh, rules: Rules):
    """NamedShardings of the arrays of one Variable, or of one plain array."""
    if _is_variable(leaf):
        axes = leaf.get_metadata().get('axes')
        axes = None if axes is None else tuple(axes)
    if axes is None or not jax.tree.leaves(leaf):  # optax masks parameters as empty leaves
        return jax.tree.map(lambda _: NamedSharding(mesh, P()), leaf)
    stacked = len(leaf.shape) - len(axes)
    if _is_variable(leaf):
        axes = projection.array_axes(leaf.get_value(), ('layers',) * stacked + axes, stacked)
    else:
        axes = P(*axes, *(None,) * stacked)
    name, full_shape = jax.tree_util.keystr(path), tuple(leaf.shape)

    def array_sharding(x, axes):
        # The scales of a quantized weight have smaller dimensions, which need not divide.
        strict = tuple(x.shape) == full_shape
        spec = _spec(x.shape, axes, mesh_shape=mesh.shape, rules=rules, strict=strict, name=name)
        return NamedSharding(mesh, spec)

    arrays, structure = jax.tree.flatten(leaf)
    places = map(array_sharding, arrays, jax.tree.leaves(axes))
    return jax.tree.unflatten(structure, places)


def spec(shape: Sequence[int], axes: Sequence[str | None], *, mesh: jax.sharding.AbstractMesh) -> P:
    """PartitionSpec of an array by its logical axes; raises ValueError if one does not divide."""
    return _spec(shape, axes, mesh_shape=mesh.shape, strict=True, name='array')


def spec_over(name: str, shape: Sequence[int], axes: Sequence[str | None], *, mesh) -> P:
    """PartitionSpec over mesh axis `name` alone; a dimension that does not divide is not split."""
    return _spec(shape, axes, mesh_shape=mesh.shape, strict=False, rules=_restrict({name}))


def mesh_names(mesh_axes: str | Sequence[str] | None) -> tuple[str, ...]:
    """The mesh axes of one entry of a PartitionSpec or of RULES."""
    return (mesh_axes,) if isinstance(mesh_axes, str) else tuple(mesh_axes or ())


def _restrict(names: set[str]) -> Rules:
    """RULES restricted to some mesh axes."""
    return {axis: tuple(n for n in mesh_names(m) if n in names) for axis, m in RULES.items()}


def _spec(shape, axes, *, mesh_shape, strict: bool, name: str = '', rules=RULES) -> P:
    """PartitionSpec of an array of this shape with these logical axes.

    A dimension that does not divide raises ValueError if `strict`, else it is not split. Key/value
    heads are never split if there are fewer heads than devices.
    """
    entries = []
    for size, axis in zip(shape, axes, strict=True):
        names = tuple(n for n in mesh_names(rules[axis]) if n in mesh_shape)
        parts = math.prod(mesh_shape[n] for n in names)
        if size % parts == 0:
            entries.append(names[0] if len(names) == 1 else names or None)
        elif axis == 'kv_heads' and size < parts:
            entries.append(None)  # each device has all of them, and its share of the query heads
        elif strict:
            raise ValueError(
                f'{name} {tuple(shape)}: {axis}={size} does not divide over '
                f'mesh axes {names} of size {parts}; nearest multiple: '
                f'{max(parts, round(size / parts) * parts)}'
            )
        else:
            entries.append(None)
    return P(*entries)
