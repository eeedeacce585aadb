"""The model: one Transformer class for all families, KV cache, log-probabilities and sharding."""

import flax

# Modules are then plain pytrees: `jax.jit`, `jax.grad` and `jax.tree.map` work on them directly.
flax.config.update('nnx_graph_mode', False)
