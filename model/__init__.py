"""What the numbers are: one Transformer class, its cache, log-probabilities and sharding."""

import flax

flax.config.update('nnx_graph_mode', False)  # modules are plain pytrees: no nnx transforms needed
