"""Muon on a mesh: each device orthogonalises whole matrices of some layers.

Newton-Schulz iterations multiply a matrix with itself. Of a matrix that is split over devices, each
product would gather it again: 15 times in five iterations. Instead an all-to-all gives each device
some layers whole, and another one brings the results back, so every number is sent twice.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from optax import contrib

from elenchus.model import sharding

BETA = 0.95  # of the momentum, as of optax.contrib.muon


def _is_variable(leaf) -> bool:
    return isinstance(leaf, nnx.Variable)


def muon(
    learning_rate: optax.ScalarOrSchedule,
    *,
    weight_decay: float,
    dimensions: Callable[[optax.Params], optax.Params],
    adam: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Returns `optax.contrib.muon`, whose matrices are orthogonalised where they are whole.

    `dimensions` maps parameters to contrib.MuonDimensionNumbers of the stacked matrices, and to
    None where `adam` updates.
    """
    matrices = optax.chain(
        scale_by_muon(dimensions),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )

    def labels(params):
        is_number = lambda x: x is None or isinstance(x, contrib.MuonDimensionNumbers)  # noqa: E731
        label = lambda x: 'adam' if x is None else 'muon'  # noqa: E731
        return jax.tree.map(label, dimensions(params), is_leaf=is_number)

    return optax.partition({'muon': matrices, 'adam': adam}, labels)


def scale_by_muon(
    dimensions: Callable[[optax.Params], optax.Params],
) -> optax.GradientTransformation:
    """Replaces gradients by their orthogonalised Nesterov momentum times max(1, out / in)^(1/2).

    Source: Jordan et al. 2024; the same numbers as optax.contrib's on one device.
    """

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(updates, state.mu, BETA, 1)
        momentum = jax.tree.map(
            lambda m, g: BETA * m + (1 - BETA) * g,
            optax.tree.bias_correction(mu, BETA, optax.safe_increment(count)),
            optax.tree.bias_correction(updates, BETA, count),
        )
        orthogonal = jax.tree.map(
            _orthogonalize_leaf, momentum, dimensions(momentum), is_leaf=_is_variable
        )
        return orthogonal, state._replace(count=count, mu=mu)

    return optax.GradientTransformation(contrib.scale_by_muon().init, update)


def _orthogonalize_leaf(leaf: nnx.Variable, numbers: nnx.Variable) -> nnx.Variable:
    """Orthogonalises the matrices of one stacked parameter; optax masks the others as empty."""
    if not jax.tree.leaves(leaf):
        return leaf
    axes = leaf.get_metadata()['axes']
    numbers = jax.tree.leaves(
        numbers, is_leaf=lambda x: isinstance(x, contrib.MuonDimensionNumbers)
    )[0]
    # Without momentum of its own, optax's transformation is the orthogonalisation alone.
    transformation = contrib.scale_by_muon(
        beta=0.0, nesterov=False, weight_dimension_numbers=numbers
    )

    def orthogonalize(x):
        sizes = [math.prod(x.shape[dim] for dim in dims) for dims in numbers]
        x = transformation.update(x, transformation.init(x))[0]
        return jnp.sqrt(jnp.maximum(1, sizes[1] / sizes[0])) * x

    stacked = len(leaf.shape) - len(axes)
    return jax.tree.map(
        functools.partial(map_layers, orthogonalize, axes=('layers',) * stacked + tuple(axes)), leaf
    )


def map_layers(
    function: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    *,
    axes: tuple[str | None, ...],
) -> jax.Array:
    """Returns function(x) of x [L, ...], computed by each device for some whole layers.

    The function treats layers separately and returns the shape that it gets. Layers are padded with
    zeros to a multiple of the devices. `axes` are the logical axes of x, the first of which is not
    split.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(x)
    spec = sharding.spec(x.shape, axes, mesh=mesh)
    # The last axis of a dimension is the minor one: its parts are joined first.
    split = [
        (dim, name)
        for dim, entry in enumerate(spec)
        for name in reversed(sharding.mesh_names(entry))
        if mesh.shape[name] > 1
    ]
    used = {name for _, name in split}
    copied = [name for name in mesh.axis_names if name not in used and mesh.shape[name] > 1]
    num_layers = x.shape[0]

    def map_local(x):
        x = jnp.pad(x, ((0, -num_layers % mesh.size), *((0, 0),) * (x.ndim - 1)))
        for dim, name in split:
            x = jax.lax.all_to_all(x, name, split_axis=0, concat_axis=dim, tiled=True)
        for name in copied:
            size = len(x) // mesh.shape[name]
            x = jax.lax.dynamic_slice_in_dim(x, size * jax.lax.axis_index(name), size)
        x = function(x)
        for name in reversed(copied):
            x = jax.lax.all_gather(x, name, axis=0, tiled=True)
        for dim, name in reversed(split):
            x = jax.lax.all_to_all(x, name, split_axis=dim, concat_axis=0, tiled=True)
        return x[:num_layers]

    return jax.shard_map(map_local, in_specs=spec, out_specs=spec, check_vma=False)(x)
