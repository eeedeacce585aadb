"""A layer of a Transformer: attention and MLP, or experts, between norms, with residuals."""

from collections.abc import Callable

import jax
from flax import nnx

from elenchus.model import experts, layers, remat, token_shards
from elenchus.model.attention.inputs import AttentionInputs
from elenchus.model.config import ModelConfig
from elenchus.model.kv_cache import CacheDtype, LayerCache


class Block(nnx.Module):
    """Pre-norm attention and MLP with residuals; `post_norms` also norms each update.

    With experts in its config, it has these in the place of the MLP.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention_norm = layers.RMSNorm(config.embed_dim, config=config, axis='embed')
        self.attention = layers.Attention(config, rngs=rngs)
        self.mlp_norm = layers.RMSNorm(config.embed_dim, config=config, axis='embed')
        if config.num_experts:
            self.experts = experts.Experts(config, rngs=rngs)
        else:
            self.mlp = layers.MLP(config, rngs=rngs)
        self.post_norms = config.post_norms
        if config.post_norms:
            self.attention_post_norm = layers.RMSNorm(config.embed_dim, config=config, axis='embed')
            self.mlp_post_norm = layers.RMSNorm(config.embed_dim, config=config, axis='embed')

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        *,
        inputs: AttentionInputs,
        layer_cache: LayerCache | CacheDtype,
        counted: jax.Array | None = None,
    ) -> tuple[jax.Array, LayerCache, experts.ExpertUse | None]:
        """x [B, T, D], positions [B, T] -> (x, layer cache, use of experts).

        The cache is as in `layers.Attention`, the use as in `Experts`, by `counted` [B, T].
        """
        stream = inputs.stream
        update, layer_cache = self.attention(
            self.attention_norm(x), positions, inputs=inputs, layer_cache=layer_cache
        )
        if self.post_norms:
            update = self.attention_post_norm(update)
        x = token_shards.constrain_stream(x + update, stream)
        x = remat.mark(x, 'residual')
        normed, use = self.mlp_norm(x), None
        if hasattr(self, 'experts'):
            update, use = self.experts(normed, stream=stream, counted=counted)
        else:
            update = self.mlp(normed, stream=stream)
        if self.post_norms:
            update = self.mlp_post_norm(update)
        return token_shards.constrain_stream(x + update, stream), layer_cache, use


def traced_once(inputs: AttentionInputs) -> Callable[..., tuple[jax.Array, LayerCache]]:
    """Returns a function like `Block`, of a block as its first argument, that layers share.

    It leaves out the use of experts. However many layers with these inputs call it, it is traced
    and lowered once for arguments of the same shapes.
    """

    def apply(block, tokens, arrays, *, dtype):
        x, positions, layer_cache = tokens
        own = inputs._replace(**arrays)
        return block(x, positions, inputs=own, layer_cache=dtype or layer_cache)[:2]

    shared = jax.jit(apply, static_argnames='dtype')
    arrays = {
        name: value
        for name, value in inputs._asdict().items()
        if name in ('rotary', 'mask', 'segments', 'write_at')
    }

    def call(block, x, positions, *, layer_cache):
        is_dtype = isinstance(layer_cache, str)
        tokens = x, positions, None if is_dtype else layer_cache
        return shared(block, tokens, arrays, dtype=layer_cache if is_dtype else None)

    return call
