"""Looks up token embeddings on a mesh without gathering the table."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from elenchus.model import sharding

TABLE_AXES = ('vocab', 'embed')


def look_up(
    table: jax.Array, tokens: jax.Array, *, dtype, stream: tuple[str, ...] = ()
) -> jax.Array:
    """Returns embeddings [B, T, D] in `dtype` of tokens [B, T] from a table [V, D].

    `stream`: mesh axes that split the positions of the result (`token_shards.stream_axes`).

    The cast comes after the lookup, so that gradients of repeated tokens are summed in the dtype of
    the table. On a mesh each device looks up the tokens of all rows of its 'fsdp' group in its own
    part of the table, and an all-to-all brings the parts of a row together: it moves B * T * D
    numbers and not V * D. Where B does not divide over the mesh, the table is gathered.
    """
    mesh = jax.sharding.get_abstract_mesh()
    # Inside of a program for each shard of rows, only 'tensor' is split: the partitioner's lookup
    # then masks tokens of other parts and sums.
    is_split = not mesh.empty and not mesh.manual_axes and mesh.size > mesh.shape['data']
    if not is_split or tokens.shape[0] % sharding.num_row_parts(mesh):
        # Whole in D: the partitioner cannot go from a D-sharded to a row-sharded result.
        table = sharding.constrain(table, ('vocab', None))
        return sharding.constrain(table[tokens].astype(dtype), ('batch', None, None))

    def look_up_part(table, tokens):
        tokens = jax.lax.all_gather(tokens, 'fsdp', axis=0, tiled=True)
        tokens = tokens - table.shape[0] * jax.lax.axis_index('tensor')
        is_here = (tokens >= 0) & (tokens < table.shape[0])
        parts = table[jnp.where(is_here, tokens, 0)]
        parts = jnp.where(is_here[..., None], parts, 0).astype(dtype)
        if sharding.CONTEXT in stream:
            parts = jax.lax.all_to_all(
                parts, sharding.CONTEXT, split_axis=1, concat_axis=2, tiled=True
            )
        elif sharding.CONTEXT in mesh.shape:
            parts = jax.lax.all_gather(parts, sharding.CONTEXT, axis=2, tiled=True)
        # Exact: of the parts of the vocabulary only one has a token.
        if 'tensor' in stream:
            parts = jax.lax.psum_scatter(parts, 'tensor', scatter_dimension=1, tiled=True)
        else:
            parts = jax.lax.psum(parts, 'tensor')
        return jax.lax.all_to_all(parts, 'fsdp', split_axis=0, concat_axis=2, tiled=True)

    rows = sharding.ROW_AXES
    return jax.shard_map(
        look_up_part,
        in_specs=(sharding.spec(table.shape, TABLE_AXES, mesh=mesh), P(rows)),
        out_specs=P(rows, stream or None),
        # The check cannot see that a gather gives all devices of an axis the same.
        check_vma=sharding.CONTEXT not in mesh.shape,
    )(table, tokens)
