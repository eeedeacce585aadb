"""Transformer: token ids to hidden states, over stacked layers that are scanned or unrolled."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from model import layers, sharding
from model.cache import KVCache
from model.config import ModelConfig

REMAT_POLICIES = {
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'full': jax.checkpoint_policies.nothing_saveable,
}


class Block(nnx.Module):
    """Pre-norm attention and MLP with residuals."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention_norm = layers.RMSNorm(config.embed_dim, config=config, axis='embed')
        self.attention = layers.Attention(config, rngs=rngs)
        self.mlp_norm = layers.RMSNorm(config.embed_dim, config=config, axis='embed')
        self.mlp = layers.MLP(config, rngs=rngs)

    def __call__(self, x, positions, rotary, mask, layer_cache):
        normed = self.attention_norm(x)
        update, layer_cache = self.attention(normed, positions, rotary, mask, layer_cache)
        x = sharding.constrain(x + update, ('batch', None, None))
        x = sharding.constrain(x + self.mlp(self.mlp_norm(x)), ('batch', None, None))
        return x, layer_cache


class Transformer(nnx.Module):
    """A decoder-only language model; a plain pytree whose block leaves are [L, ...]."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        c = config
        keys = jax.random.split(rngs.params(), c.num_layers)
        self.embedding = layers.init_weight(
            rngs.params(),
            (c.vocab_size, c.embed_dim),
            axes=('vocab', 'embed'),
            fan_in=c.embed_dim,
            dtype=c.param_dtype,
        )
        self.blocks = jax.vmap(lambda key: Block(config, rngs=nnx.Rngs(key)))(keys)
        self.final_norm = layers.RMSNorm(c.embed_dim, config=config, axis='embed')
        if not c.tie_embeddings:
            self.head = layers.init_weight(
                rngs.params(),
                (c.embed_dim, c.vocab_size),
                axes=('embed', 'vocab'),
                fan_in=c.embed_dim,
                dtype=c.param_dtype,
            )
        self.config = config

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        *,
        segments: jax.Array | None = None,
        cache: KVCache | None = None,
    ):
        """tokens and positions [B, T] -> (hidden [B, T, D], cache).

        Without a cache, tokens attend to earlier tokens of their own segment (segments [B, T], 0
        on padding; None means one segment a row). With a cache, the tokens are written at their
        positions and attend to every cached position up to their own.
        """
        # Looked up before the cast, so that gradients are summed in float32; whole in D, or the
        # partitioner cannot go from a D-sharded to a row-sharded result and replicates it.
        table = sharding.constrain(self.embedding[...], ('vocab', None))
        x = table[tokens].astype(self.config.dtype)
        x = sharding.constrain(x, ('batch', None, None))
        rotary = layers.rotary_table(
            positions, head_dim=self.config.head_dim, theta=self.config.rope_theta
        )
        if cache is None:
            mask = causal_mask(tokens.shape[1])[None]
            if segments is not None:
                mask = mask & (segments[:, :, None] == segments[:, None, :])
            mask = jax.lax.optimization_barrier(mask)  # else every fusion of scores compares anew
            x = self._forward(x, positions, rotary, mask)
        else:
            slots = jnp.arange(cache.layers[0][0].shape[2])
            mask = slots[None, None, :] <= positions[:, :, None]
            x, cache = self._forward_cached(x, positions, rotary, mask, cache)
        return self.final_norm(x), cache

    def logits(self, hidden: jax.Array) -> jax.Array:
        """hidden [..., D] -> float32 logits [..., V]."""
        head = self.embedding[...].T if self.config.tie_embeddings else self.head[...]
        return jnp.matmul(hidden, head.astype(hidden.dtype), preferred_element_type='float32')

    def _forward(self, x, positions, rotary, mask):
        def apply(block, x):
            return block(x, positions, rotary, mask, None)[0]

        if self.config.remat != 'none':
            apply = jax.checkpoint(apply, policy=REMAT_POLICIES[self.config.remat])
        if self.config.scan_layers:
            return jax.lax.scan(lambda x, block: (apply(block, x), None), x, self.blocks)[0]
        for block in self.unstacked_blocks():
            x = apply(block, x)
        return x

    def _forward_cached(self, x, positions, rotary, mask, cache):
        updated = []
        for block, layer_cache in zip(self.unstacked_blocks(), cache.layers, strict=True):
            x, layer_cache = block(x, positions, rotary, mask, layer_cache)
            updated.append(layer_cache)
        return x, KVCache(tuple(updated))

    def unstacked_blocks(self) -> list[Block]:
        """One Block a layer, sliced from the stacked leaves."""
        return [
            jax.tree.map(lambda leaf, i=i: leaf[i], self.blocks)
            for i in range(self.config.num_layers)
        ]


def causal_mask(length: int) -> jax.Array:
    """[T, T], True where key position <= query position."""
    return jnp.tril(jnp.ones((length, length), bool))


@functools.partial(jax.jit, static_argnames=('config',))
def init_model(config: ModelConfig, key: jax.Array) -> Transformer:
    """A freshly initialised Transformer."""
    return Transformer(config, rngs=nnx.Rngs(key))
