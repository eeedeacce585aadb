"""Rematerialisation: what the forward pass of a layer keeps for the backward pass, and where.

`ModelConfig.remat` is 'none' (everything is kept, except weights gathered on a mesh, which are
gathered again), 'dots' (matrix products are kept) or 'full' (only the input of each layer is). With
'full', further arrays can be named that are kept on the device (`remat_saved`) or in the memory of
the host (`remat_offloaded`), from which they are copied back during the backward pass.
"""

from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name

from elenchus.model import projection, sharding, weight_gather
from elenchus.model.config import ModelConfig, SavedArray

HOST = 'pinned_host'
"""JAX's name of page-locked host memory, which a device accesses directly."""


def mark(x: jax.Array, name: SavedArray) -> jax.Array:
    """Names x for the checkpoint policy; has no effect unless the config keeps that name."""
    return checkpoint_name(x, name)


def recomputed(apply: Callable[..., jax.Array], config: ModelConfig) -> Callable[..., jax.Array]:
    """Returns the layer `apply` such that its backward pass recomputes what is not kept."""
    if config.remat == 'none':
        if sharding.num_token_parts(jax.sharding.get_abstract_mesh()) == 1:
            return apply
        return jax.checkpoint(apply, policy=weight_gather.saves_products)
    return jax.checkpoint(apply, policy=_policy(config))


def _policy(config: ModelConfig) -> Callable[..., object]:
    policies = jax.checkpoint_policies
    if config.remat == 'dots':
        return policies.save_from_both_policies(
            policies.dots_with_no_batch_dims_saveable, projection.saves_named_products
        )
    if config.remat_offloaded:
        return policies.save_and_offload_only_these_names(
            names_which_can_be_saved=config.remat_saved,
            names_which_can_be_offloaded=config.remat_offloaded,
            offload_src='device',
            offload_dst=HOST,
        )
    if config.remat_saved:
        return policies.save_only_these_names(*config.remat_saved)
    return policies.nothing_saveable
