"""Float32 master weights of parameters that are stored in less precision.

AdamW moves a weight by about the learning rate. Next to a bfloat16 weight w this is lost unless it
is above |w| / 512, so that at fine-tuning rates hardly any weight would move. The optimizer
therefore keeps a float32 copy of such weights in its state, updates the copy, and the stored
weights are its rounded values. Source: mixed precision training, arXiv 1710.03740, section 3.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class MasterState(NamedTuple):
    """State of an optimizer with master weights."""

    masters: optax.Params  # the weights in float32
    inner: optax.OptState  # of the optimizer, whose moments are in float32 too


def with_float32_masters(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns `inner` with master weights; `inner` itself where all weights are in float32.

    An update is the difference between the new master weights and the stored weights, in float32:
    optax.apply_updates then rounds the new master weights.
    """

    def init(params: optax.Params) -> optax.OptState | MasterState:
        if not _has_low_precision(params):
            return inner.init(params)
        masters = to_float32(params)
        return MasterState(masters, inner.init(masters))

    def update(
        grads: optax.Updates, state: optax.OptState | MasterState, params: optax.Params
    ) -> tuple[optax.Updates, optax.OptState | MasterState]:
        if not isinstance(state, MasterState):
            return inner.update(grads, state, params)
        updates, inner_state = inner.update(to_float32(grads), state.inner, state.masters)
        masters = optax.apply_updates(state.masters, updates)
        differences = jax.tree.map(lambda m, p: m - p.astype('float32'), masters, params)
        return differences, MasterState(masters, inner_state)

    return optax.GradientTransformation(init, update)


def _has_low_precision(params: optax.Params) -> bool:
    leaves = jax.tree.leaves(params)
    return any(jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4 for x in leaves)


def to_float32(tree: optax.Params) -> optax.Params:
    """Returns a tree with all arrays in float32."""
    return jax.tree.map(lambda x: x.astype('float32'), tree)
