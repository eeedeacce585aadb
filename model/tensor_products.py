"""Tensor-parallel matrix products whose tokens are split over 'tensor' before and after them.

The partitioner would sum whole products on every device (all-reduce) and then slice them. Here each
device all-gathers the tokens, multiplies with its shard of the matrix, and reduce-scatters the sum.
The gradient of either collective is the other one. Source: arXiv 2205.05198, section 4.2.2.
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import PartitionSpec as P

from elenchus.model import projection, sharding, token_shards
from elenchus.model.projection import project

AXIS = 'tensor'


def project_from_split(
    x: jax.Array, params: Sequence[nnx.Param], *, stream: Sequence[str]
) -> list[jax.Array]:
    """Returns x @ matrix for each of some matrices whose outputs 'tensor' may split.

    x [B, T, D]; `stream` are the mesh axes that split its positions. They are whole in the results.
    """
    if AXIS not in stream:
        return [project(x, param[...], contract=1) for param in params]
    weights, specs = [param[...] for param in params], [specs_of(param) for param in params]
    if None in specs:
        return [project(token_shards.join_stream(x), weight, contract=1) for weight in weights]

    def project_local(x, *weights):
        x = jax.lax.all_gather(x, AXIS, axis=1, tiled=True)
        return tuple(project(x, weight, contract=1) for weight in weights)

    return jax.shard_map(
        project_local,
        in_specs=(P(None, AXIS), *(arrays for arrays, _ in specs)),
        out_specs=tuple(P(None, None, *whole[1:]) for _, whole in specs),
        axis_names={AXIS},
        check_vma=False,
    )(x, *weights)


def project_to_split(
    x: jax.Array, param: nnx.Param, *, contract: int, stream: Sequence[str]
) -> jax.Array:
    """Returns x @ matrix for a matrix whose inputs 'tensor' splits; the inverse of the other one.

    x [B, T, *in], of which `contract` dimensions are contracted. In the result [B, T, D] positions
    are split over `stream`.
    """
    specs = specs_of(param) if AXIS in stream else None
    if specs is None:
        out = project(x, param[...], contract=contract)
        return token_shards.constrain_stream(out, stream) if AXIS in stream else out

    def project_local(x, weight):
        out = project(x, weight, contract=contract)
        return jax.lax.psum_scatter(out, AXIS, scatter_dimension=1, tiled=True)

    arrays, whole = specs
    return jax.shard_map(
        project_local,
        in_specs=(P(None, None, *whole[:contract]), arrays),
        out_specs=P(None, AXIS),
        axis_names={AXIS},
        check_vma=False,
    )(x, param[...])


def specs_of(param: nnx.Param) -> tuple[Any, P] | None:
    """(specs of the arrays of a matrix, spec of the whole matrix) over 'tensor' alone.

    None if its arrays cannot be split alike, such as blocks of quantized values that share a scale.
    """
    mesh, axes = jax.sharding.get_abstract_mesh(), tuple(param.get_metadata()['axes'])
    weight, is_split = param[...], {}

    def spec_of(x, names):
        entries = sharding.spec_over(AXIS, x.shape, names, mesh=mesh)
        for size, name, entry in zip(x.shape, names, entries, strict=True):
            if name is not None and size > 1:
                is_split.setdefault(name, set()).add(entry)
        return entries

    arrays = jax.tree.map(spec_of, weight, projection.array_axes(weight, axes, 0))
    if any(len(entries) > 1 for entries in is_split.values()):
        return None
    return arrays, spec_of(jax.ShapeDtypeStruct(weight.shape, 'float32'), axes)
