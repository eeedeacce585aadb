"""Device mesh and sharding rules: logical axis names of arrays -> axes of the mesh."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ('data', 'fsdp', 'tensor')
"""Mesh axes: 'data' copies parameters, 'fsdp' splits them, 'tensor' splits heads, MLP and vocab."""

RULES = {
    'batch': ('data', 'fsdp'),
    'embed': 'fsdp',
    'vocab': 'tensor',
    'heads': 'tensor',
    'kv_heads': 'tensor',
    'mlp': 'tensor',
    'rank': None,
    'layers': None,
    None: None,
}
"""Logical axis -> mesh axes that it is split over; None = not split."""


Rules = Mapping[str | None, Any]
"""Type of RULES."""


def make_mesh(shape: Sequence[int]) -> jax.sharding.Mesh:
    """Returns a mesh ('data', 'fsdp', 'tensor') over all devices.

    One size may be -1: it takes all remaining devices. Raises ValueError if the shape does not
    cover the devices exactly.
    """
    devices, shape = jax.device_count(), tuple(shape)
    if len(shape) != len(AXES) or any(n < 1 and n != -1 for n in shape) or shape.count(-1) > 1:
        raise ValueError(f'mesh={shape} must be three sizes {AXES}, at most one of them -1')
    known = math.prod(n for n in shape if n != -1)
    if devices % known or (-1 not in shape and known != devices):
        raise ValueError(
            f'mesh={shape} does not divide the {devices} devices; '
            f'nearest: ({devices}, 1, 1), or use -1 for the remaining devices'
        )
    shape = tuple(devices // known if n == -1 else n for n in shape)
    # Auto axes: the compiler propagates shardings, so programs are plain `jax.jit`.
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def current_mesh() -> jax.sharding.Mesh:
    """Returns the mesh in force (`jax.set_mesh`); without one, a mesh of the first device alone."""
    mesh = jax.sharding.get_mesh()
    if not mesh.empty:
        return mesh
    axis_types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh((1,) * len(AXES), AXES, axis_types=axis_types, devices=jax.devices()[:1])


def constrain(x: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """Constrains x to the sharding of its logical `axes` on the current mesh.

    A dimension that does not divide stays whole. Without a mesh, returns x.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or len(mesh.manual_axes) == len(mesh.axis_names):
        return x
    rules = _rules_without(mesh.manual_axes)
    spec = _spec(x.shape, axes, mesh_shape=mesh.shape, strict=False, rules=rules)
    return jax.lax.with_sharding_constraint(x, spec)


def num_row_shards(mesh) -> int:
    """Returns the number of parts that a mesh splits rows into."""
    return math.prod(mesh.shape[name] for name in RULES['batch'])


def map_rows(function: Callable[..., Any], *arguments, whole: Sequence[int] = ()) -> Any:
    """Calls function(*arguments) once in each shard of rows, with the rows of that shard.

    All arrays of the arguments and of the result are [B, ...], split over the batch axes of the
    mesh, except those of the arguments with an index in `whole`, which every shard gets whole. What
    the function computes is local by construction: indices count within the shard, and no
    collective crosses shards unless the function asks for one. 'tensor' stays with the compiler.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arguments)
    names = set(RULES['batch']) if mesh.shape['tensor'] > 1 else set(mesh.axis_names)
    rows = P(RULES['batch'])
    specs = tuple(P() if i in whole else rows for i in range(len(arguments)))
    mapped = jax.shard_map(
        function, in_specs=specs, out_specs=rows, axis_names=names, check_vma=False
    )
    return mapped(*arguments)


def any_shard(flag: jax.Array) -> jax.Array:
    """Returns whether a flag is set in any shard of rows; inside of `map_rows`.

    Without 'tensor' there is no collective and shards need not agree: returns the flag itself.
    Programs with collectives over 'tensor' take the same number of steps everywhere, as no
    backend promises that collectives of some devices may run while others have left a loop.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.shape['tensor'] == 1:
        return flag
    return jax.lax.psum(flag.astype('int32'), RULES['batch']) > 0


def apply_per_shard(
    function: Callable[..., jax.Array],
    arrays: Sequence[jax.Array],
    axes: Sequence[Sequence[str | None]],
) -> jax.Array:
    """Calls function(*arrays) on each device with that device's shards of the arrays.

    For functions that the partitioner cannot split, such as kernels. `axes` are the logical axes of
    each array. The result is sharded like the first array.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arrays)
    free = set(mesh.axis_names) - set(mesh.manual_axes)
    if not free:
        return function(*arrays)
    rules = _rules_without(mesh.manual_axes)
    specs = tuple(
        _spec(x.shape, names, mesh_shape=mesh.shape, strict=False, rules=rules)
        for x, names in zip(arrays, axes, strict=True)
    )
    mapped = jax.shard_map(
        function, in_specs=specs, out_specs=specs[0], axis_names=free, check_vma=False
    )
    return mapped(*arrays)


def shardings(tree, mesh: jax.sharding.Mesh, *, rules: Rules | None = None, axes=None):
    """NamedShardings of a tree: of nnx Variables by their `axes`, of plain arrays by `axes`.

    `axes` is a tree prefix of PartitionSpecs of logical names; None replicates. Leaves of stacked
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
    # A mesh of one device splits nothing, so it needs no axes: transposed matrices have none.
    # optax masks parameters as empty leaves.
    if mesh.size == 1 or axes is None or not jax.tree.leaves(leaf):
        return jax.tree.map(lambda _: NamedSharding(mesh, P()), leaf)
    if _is_variable(leaf):
        axes = ('layers',) * (len(leaf.shape) - len(axes)) + tuple(axes)
    else:
        axes = tuple(axes) + (None,) * (len(leaf.shape) - len(axes))
    name, full_shape = jax.tree_util.keystr(path), tuple(leaf.shape)

    def array_sharding(x):
        # A quantized weight also has scales: their smaller dimensions may stay whole.
        strict = tuple(x.shape) == full_shape
        spec = _spec(x.shape, axes, mesh_shape=mesh.shape, rules=rules, strict=strict, name=name)
        return NamedSharding(mesh, spec)

    return jax.tree.map(array_sharding, leaf)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Sharding of [B, ...] arrays: rows are split over 'data' and 'fsdp'."""
    return NamedSharding(mesh, P(RULES['batch']))


@functools.cache
def _rules_without(mesh_axes: tuple[str, ...]) -> Rules:
    """RULES without some mesh axes: those that a surrounding `map_rows` has split already."""

    def remaining(names):
        if names is None or isinstance(names, str):
            return None if names in mesh_axes else names
        return tuple(name for name in names if name not in mesh_axes) or None

    return {axis: remaining(names) for axis, names in RULES.items()}


def _spec(shape, axes, *, mesh_shape, strict: bool, name: str = '', rules=RULES) -> P:
    """PartitionSpec of logical axes.

    A dimension that does not divide raises ValueError if `strict`, else it stays whole.
    """
    entries = []
    for size, axis in zip(shape, axes, strict=True):
        mesh_axes = rules[axis]
        mesh_names = (mesh_axes,) if isinstance(mesh_axes, str) else (mesh_axes or ())
        parts = math.prod(mesh_shape[mesh_name] for mesh_name in mesh_names)
        if size % parts == 0:
            entries.append(mesh_axes)
        elif strict:
            raise ValueError(
                f'{name} {tuple(shape)}: {axis}={size} does not divide over '
                f'mesh axes {mesh_names} of size {parts}; nearest multiple: '
                f'{max(parts, round(size / parts) * parts)}'
            )
        else:
            entries.append(None)
    return P(*entries)
