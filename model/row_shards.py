"""Runs a function once per shard of rows, such as the programs of the sampler.

The partitioner cannot prove that a slot reads only its own cache, so it gathers whatever an index
from the data could reach. With one program per shard of rows (`jax.shard_map`) all reads are local.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec as P

from elenchus.model.sharding import RULES


def num_row_shards(mesh: jax.sharding.Mesh) -> int:
    """Returns the number of parts that a mesh splits rows into."""
    return math.prod(mesh.shape[name] for name in RULES['batch'])


def map_row_shards(function: Callable[..., Any], *arguments: Any, whole: Sequence[int] = ()) -> Any:
    """Calls function(*arguments) once in each shard of rows, with the rows of that shard.

    All arrays of the arguments and of the result are [B, ...], split over the batch axes of the
    mesh, except those of the arguments with an index in `whole`, which every shard gets whole.
    Indices count within the shard, and no collective crosses shards unless the function asks for
    one. The axis 'tensor' stays with the partitioner.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arguments)
    rows = P(RULES['batch'])
    mapped = jax.shard_map(
        function,
        in_specs=tuple(P() if i in whole else rows for i in range(len(arguments))),
        out_specs=rows,
        axis_names=set(RULES['batch']),
        check_vma=False,
    )
    return mapped(*arguments)


def any_shard(flag: jax.Array) -> jax.Array:
    """Returns whether a flag is set in any shard of rows; inside of `map_row_shards`.

    Without 'tensor' there is no collective and shards need not agree: returns the flag itself.
    Programs with collectives over 'tensor' take the same number of steps everywhere, as no
    backend promises that collectives of some devices may run while others have left a loop.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.manual_axes or mesh.shape['tensor'] == 1:
        return flag
    return jax.lax.psum(flag.astype('int32'), RULES['batch']) > 0
