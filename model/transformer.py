"""Transformer: token ids to hidden states, over stacked layers that are scanned or unrolled."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from elenchus.model import attention, layers, sharding
from elenchus.model.attention import SharedPrompt, View
from elenchus.model.config import ModelConfig
from elenchus.model.kv_cache import CacheDtype, KVCache

REMAT_POLICIES = {
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'full': jax.checkpoint_policies.nothing_saveable,
}


class Block(nnx.Module):
    """Pre-norm attention and MLP with residuals; with post_norms, what is added is normed too."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention_norm = layers.RMSNorm(config.embed_dim, config=config, axis='embed')
        self.attention = layers.Attention(config, rngs=rngs)
        self.mlp_norm = layers.RMSNorm(config.embed_dim, config=config, axis='embed')
        self.mlp = layers.MLP(config, rngs=rngs)
        self.post_norms = config.post_norms
        if config.post_norms:
            self.attention_post_norm = layers.RMSNorm(config.embed_dim, config=config, axis='embed')
            self.mlp_post_norm = layers.RMSNorm(config.embed_dim, config=config, axis='embed')

    def __call__(self, x, positions, view: View, layer_cache):
        update, layer_cache = self.attention(self.attention_norm(x), positions, view, layer_cache)
        if self.post_norms:
            update = self.attention_post_norm(update)
        x = sharding.constrain(x + update, ('batch', None, None))
        update = self.mlp(self.mlp_norm(x))
        if self.post_norms:
            update = self.mlp_post_norm(update)
        return sharding.constrain(x + update, ('batch', None, None)), layer_cache


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
        keep: CacheDtype | None = None,
        shared: SharedPrompt | None = None,
    ):
        """tokens and positions [B, T] -> (hidden [B, T, D], cache).

        Without a cache, tokens attend to earlier tokens of their own segment (segments [B, T], 0
        on padding; None means one segment a row); to `keep` makes a cache of length T of them, for
        positions from 0 on, and they attend to what it holds. With a cache, the tokens are written
        at their positions and attend to every cached position up to their own. Layers with a window
        attend to no more than its last positions of these. `shared` says that the rows are laid out
        so: a sample's tokens, whatever its segment, attend to its prompt and to its own.
        """
        # Looked up before the cast, so that gradients are summed in float32; whole in D, or the
        # partitioner cannot go from a D-sharded to a row-sharded result and replicates it.
        table = sharding.constrain(self.embedding[...], ('vocab', None))
        x = table[tokens].astype(self.config.dtype)
        if self.config.scale_embeddings:
            x = x * jnp.asarray(self.config.embed_dim**0.5, x.dtype)
        x = sharding.constrain(x, ('batch', None, None))
        if cache is not None:
            views = self._cached_views(positions, cache.length)
            x, cache = self._forward_cached(x, positions, views, cache.layers)
        elif keep is not None:
            views, layer_caches = self._views(positions, segments), [keep] * self.config.num_layers
            x, cache = self._forward_cached(x, positions, views, layer_caches)
        else:
            x = self._forward(x, positions, self._views(positions, segments, shared))
        return self.final_norm(x), cache

    def logits(self, hidden: jax.Array) -> jax.Array:
        """hidden [..., D] -> float32 logits [..., V]."""
        head = self.head[...] if hasattr(self, 'head') else self.embedding[...].T
        logits = layers.project(hidden, head, contract=1, dtype='float32')
        return attention.soft_cap(logits, self.config.logits_soft_cap)

    def _views(self, positions, segments, shared=None) -> dict[int, View]:
        if shared is not None:
            segments = shared.apart((segments > 0).astype('int32'))
        windows = sorted(set(self.config.layer_windows))
        if self.config.attention != 'einsum':
            return {
                w: View(self._rotary(positions, w), None, segments, (w,), shared=shared)
                for w in windows
            }
        length = positions.shape[1] if segments is None else segments.shape[1]
        index, mask = jnp.arange(length), causal_mask(length)[None]
        if segments is not None:
            mask = mask & (segments[:, :, None] == segments[:, None, :])
        views = self._masked_views(positions, mask, queries=index[None], keys=index)
        # Else every fusion of scores compares anew.
        barrier = jax.lax.optimization_barrier
        return {
            w: view._replace(mask=barrier(view.mask), shared=shared) for w, view in views.items()
        }

    def _cached_views(self, positions, length: int) -> dict[int, View]:
        slots = jnp.arange(length)
        mask = slots[None, None, :] <= positions[:, :, None]
        return self._masked_views(positions, mask, queries=positions, keys=slots)

    def _masked_views(self, positions, mask, *, queries, keys) -> dict[int, View]:
        """The view of each window there is; queries [B or 1, T] and keys [S] stand at indices."""
        distance = queries[:, :, None] - keys
        return {
            window: View(
                self._rotary(positions, window),
                mask & (distance < window) if window else mask,
            )
            for window in sorted(set(self.config.layer_windows))
        }

    def _rotary(self, positions, window: int):
        frequencies = layers.rotary_frequencies(self.config, window=window)
        return layers.rotary_table(positions, frequencies)

    def _forward(self, x, positions, views):
        windows = self.config.layer_windows
        if not self.config.scan_layers:
            applies = {window: self._apply(positions, [view]) for window, view in views.items()}
            for block, window in zip(self.unstacked().blocks, windows, strict=True):
                x = applies[window](block, x, 0)
            return x
        apply = self._apply(positions, list(views.values()))
        kinds = jnp.array([list(views).index(window) for window in windows])
        return jax.lax.scan(
            lambda x, layer: (apply(layer[0], x, layer[1]), None), x, (self.blocks, kinds)
        )[0]

    def _apply(self, positions, views):
        """A function (block, x, kind) -> x for layers that see views[kind]."""

        def apply(block, x, kind):
            # Chosen in here, so that no choice is kept for the backward pass.
            view = attention.choose(views, kind)
            return block(x, positions, view, 'model')[0]

        if self.config.remat == 'none':
            return apply
        return jax.checkpoint(apply, policy=REMAT_POLICIES[self.config.remat])

    def _forward_cached(self, x, positions, views, layer_caches):
        updated = []
        blocks = zip(self.unstacked().blocks, self.config.layer_windows, layer_caches, strict=True)
        for block, window, layer_cache in blocks:
            x, layer_cache = block(x, positions, views[window], layer_cache)
            updated.append(layer_cache)
        return x, KVCache(tuple(updated))

    def unstacked(self) -> 'Transformer':
        """The model with one Block a layer, sliced from the stacked leaves, and no tied head."""
        if isinstance(self.blocks, nnx.List):
            return self
        layers = range(self.config.num_layers)
        model = jax.tree.map(lambda leaf: leaf, self)
        model.blocks = nnx.List(
            jax.tree.map(lambda leaf, i=i: leaf[i], self.blocks) for i in layers
        )
        if not hasattr(self, 'head'):
            model.head = nnx.Param(self.embedding[...].T, axes=('embed', 'vocab'))
        return model


def causal_mask(length: int) -> jax.Array:
    """[T, T], True where key position <= query position."""
    return jnp.tril(jnp.ones((length, length), bool))


@functools.partial(jax.jit, static_argnames=('config',))
def init_model(config: ModelConfig, key: jax.Array) -> Transformer:
    """A freshly initialised Transformer."""
    return Transformer(config, rngs=nnx.Rngs(key))
