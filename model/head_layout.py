"""Repeats and pads attention heads so that the mesh axis 'tensor' divides their number.

A device of the axis 'tensor' holds whole heads. A model with fewer key/value heads than devices is
turned into an equivalent one that has enough: each key/value head is repeated, its query heads are
distributed over the copies, and zero query heads fill up the rest. These add only zeros, so results
are the same up to the order of sums. A device then stores only the key/value heads that its queries
read; without this, every device would store all of them. MaxText and vLLM repeat key/value heads in
the same way.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import qwix
from flax import nnx

from elenchus.model.config import ModelConfig
from elenchus.model.projection import LowRank
from elenchus.model.transformer import Transformer

HEAD_AXIS = {'query': 1, 'key': 1, 'value': 1, 'out': 0}
"""Matrices of attention -> dimension of the heads, without that of the layers."""


def divided_heads(config: ModelConfig, shards: int) -> ModelConfig:
    """Returns the config with numbers of heads that `shards` divides; unchanged if they do."""
    N, K = config.num_heads, config.num_kv_heads
    if K % shards == 0:
        return config
    kv_heads = math.lcm(K, shards)
    queries = -(-N // kv_heads)  # of each copy; N / K queries go to kv_heads / K copies
    return dataclasses.replace(config, num_heads=kv_heads * queries, num_kv_heads=kv_heads)


def divide_heads(model: Transformer, shards: int) -> Transformer:
    """Returns an equal model whose heads `shards` divides, see `divided_heads`.

    The blocks must be stacked. Adapters and quantized matrices are changed alike.
    """
    old, new = model.config, divided_heads(model.config, shards)
    if new == old:
        return model
    model = jax.tree.map(lambda x: x, model)  # a copy of the tree, not of its arrays
    model = with_config(model, new)
    attention = model.blocks.attention
    for name, axis in HEAD_AXIS.items():
        is_query = name in ('query', 'out')
        count = old.num_heads if is_query else old.num_kv_heads
        for full_name, dim in ((name, axis), (f'{name}_bias', 0)):
            if hasattr(attention, full_name):
                param = getattr(attention, full_name)
                change = _deal_queries if is_query else _repeat
                value = _map_heads(
                    param[...],
                    1 + dim,
                    count=count,
                    change=lambda x, d, f=change: f(x, d, (old, new)),
                )
                setattr(attention, full_name, nnx.Param(value, **param.get_metadata()))
    return model


def with_config(model: Transformer, config: ModelConfig) -> Transformer:
    """Returns the model with another config, in all modules that have one; arrays are shared."""
    model = jax.tree.map(lambda x: x, model)
    model.config = config
    model.blocks.attention.config = config
    return model


def _map_heads(weight, dim: int, *, count: int, change):
    """Applies change(array, dim) to the arrays of a weight that have `count` heads at `dim`."""
    if isinstance(weight, LowRank):
        # a is [L, *in, r] and b [L, r, *out]: only one of them has the heads.
        has_heads = {'a': dim == 1, 'b': dim == 2}
        parts = {name: change(getattr(weight, name), dim) for name, has in has_heads.items() if has}
        base = _map_heads(weight.base, dim, count=count, change=change)
        return dataclasses.replace(weight, base=base, **parts)
    if isinstance(weight, qwix.QArray):
        # A scale that all heads share has size 1 in that dimension.
        names = ('qvalue', 'scale') if count > 1 else ('qvalue',)
        arrays = {name: getattr(weight, name) for name in names}
        arrays = {name: change(x, dim) for name, x in arrays.items() if x.shape[dim] == count}
        return dataclasses.replace(weight, **arrays)
    return change(weight, dim)


def _repeat(x: jax.Array, dim: int, configs: tuple[ModelConfig, ModelConfig]) -> jax.Array:
    """Repeats key/value heads; copies of a head are neighbours."""
    old, new = configs
    return jnp.repeat(x, new.num_kv_heads // old.num_kv_heads, axis=dim)


def _deal_queries(x: jax.Array, dim: int, configs: tuple[ModelConfig, ModelConfig]) -> jax.Array:
    """Pads the query heads of each key/value head with zeros, to divide over its copies."""
    old, new = configs
    x = jnp.moveaxis(x, dim, 0)
    groups = x.reshape(old.num_kv_heads, old.num_heads // old.num_kv_heads, *x.shape[1:])
    missing = new.num_heads // old.num_kv_heads - groups.shape[1]
    groups = jnp.pad(groups, [(0, 0), (0, missing)] + [(0, 0)] * (groups.ndim - 2))
    return jnp.moveaxis(groups.reshape(new.num_heads, *x.shape[1:]), 0, dim)
