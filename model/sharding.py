"""The mesh, and logical axis names to mesh axes: the only place with a PartitionSpec."""

import math
from collections.abc import Callable, Sequence

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ('data', 'fsdp', 'tensor')

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


def make_mesh(shape: Sequence[int]) -> jax.sharding.Mesh:
    """A mesh ('data', 'fsdp', 'tensor') over all devices; one entry may be -1 (what is left).

    Raises ValueError where the shape does not cover the devices exactly.
    """
    devices, shape = jax.device_count(), tuple(shape)
    if len(shape) != len(AXES) or any(n < 1 and n != -1 for n in shape) or shape.count(-1) > 1:
        raise ValueError(f'mesh={shape} must be three sizes {AXES}, at most one of them -1')
    known = math.prod(n for n in shape if n != -1)
    if devices % known or (-1 not in shape and known != devices):
        raise ValueError(
            f'mesh={shape} does not divide the {devices} devices; '
            f'nearest that does: ({devices}, 1, 1), or -1 for what is left'
        )
    shape = tuple(devices // known if n == -1 else n for n in shape)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def constrain(x: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """Asks for the sharding of logical `axes` under the mesh in force; nothing without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    spec = _spec(x.shape, axes, mesh.shape, strict=False)
    return jax.lax.with_sharding_constraint(x, spec)


def on_shards(
    function: Callable[..., jax.Array],
    arrays: Sequence[jax.Array],
    axes: Sequence[Sequence[str | None]],
) -> jax.Array:
    """function(*arrays) on every device's own part of arrays with these logical axes.

    For what the partitioner cannot split, such as kernels. The result is split as the first array.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arrays)
    specs = tuple(
        _spec(x.shape, names, mesh.shape, strict=False)
        for x, names in zip(arrays, axes, strict=True)
    )
    mapped = jax.shard_map(function, in_specs=specs, out_specs=specs[0], check_vma=False)
    return mapped(*arrays)


def shardings(tree, mesh: jax.sharding.Mesh):
    """NamedShardings of a tree of nnx Variables by their `axes`; other leaves are replicated.

    Stacked leaves have one leading dimension more than their axes: 'layers'. Raises ValueError
    where a dimension does not divide.
    """

    def of_leaf(path, leaf):
        axes = (
            getattr(leaf, 'axes', None)
            if not hasattr(leaf, 'get_metadata')
            else (leaf.get_metadata().get('axes'))
        )
        if axes is None or not jax.tree.leaves(leaf):  # the latter masked away by optax
            return jax.tree.map(lambda _: NamedSharding(mesh, P()), leaf)
        axes = ('layers',) * (len(leaf.shape) - len(axes)) + tuple(axes)
        where, whole = jax.tree_util.keystr(path), tuple(leaf.shape)

        def of_array(x):  # the weight itself or, of a quantized one, its scales
            strict = tuple(x.shape) == whole
            return NamedSharding(mesh, _spec(x.shape, axes, mesh.shape, strict=strict, where=where))

        return jax.tree.map(of_array, leaf)

    is_variable = lambda x: hasattr(x, 'get_metadata')  # noqa: E731
    return jax.tree_util.tree_map_with_path(of_leaf, tree, is_leaf=is_variable)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Sharding of [B, ...] arrays: rows over 'data' and 'fsdp'."""
    return NamedSharding(mesh, P(RULES['batch']))


def _spec(shape, axes, mesh_shape, *, strict: bool, where: str = '') -> P:
    """The PartitionSpec of logical axes; a dimension that does not divide raises or stays whole."""
    entries = []
    for size, axis in zip(shape, axes, strict=True):
        mesh_axes = RULES[axis]
        names = (mesh_axes,) if isinstance(mesh_axes, str) else (mesh_axes or ())
        parts = math.prod(mesh_shape[name] for name in names)
        if size % parts == 0:
            entries.append(mesh_axes)
        elif strict:
            raise ValueError(
                f'{where} {tuple(shape)}: {axis}={size} does not divide over '
                f'mesh axes {names} of size {parts}; nearest multiple: '
                f'{max(parts, round(size / parts) * parts)}'
            )
        else:
            entries.append(None)
    return P(*entries)
