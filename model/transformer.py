"""Decoder-only Transformer: token ids to hidden states and logits, with or without a KV cache."""

import jax
import jax.numpy as jnp
from flax import nnx

from elenchus.model import (
    embedding,
    kv_cache,
    layers,
    numerics,
    platforms,
    remat,
    sharding,
    token_shards,
    weight_gather,
)
from elenchus.model.attention import einsum, kernels
from elenchus.model.attention.inputs import AttentionInputs, SharedPrompt, select_inputs
from elenchus.model.block import Block, traced_once
from elenchus.model.config import ModelConfig
from elenchus.model.experts import ExpertUse, counted_tokens
from elenchus.model.kv_cache import CacheDtype, KVCache, LayerCache
from elenchus.model.placement import pinned_jit
from elenchus.model.projection import project


class Transformer(nnx.Module):
    """Decoder-only language model: Llama, Mistral, Mixtral, Qwen or Gemma, by fields of its config.

    The model is a pytree: `jax.jit`, `jax.grad` and `jax.tree.map` apply to it directly. The layers
    are stacked, so every leaf of `blocks` is [L, ...].

    Example:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from elenchus.model import transformer
        >>> from elenchus.model.config import ModelConfig
        >>> config = ModelConfig(
        ...     vocab_size=48, num_layers=2, embed_dim=16, mlp_dim=24, num_heads=4, num_kv_heads=2,
        ...     head_dim=4, max_length=64, windows=(0,), rope_theta=10000.0, local_rope_theta=0.0,
        ...     rope_scaling=None, norm_epsilon=1e-6, zero_centered_norms=False, post_norms=False,
        ...     qkv_bias=False, qk_norm=False, query_scale_dim=0, attention_soft_cap=0.0,
        ...     logits_soft_cap=0.0, scale_embeddings=False, tie_embeddings=True, activation='silu',
        ...     dtype='float32', param_dtype='float32', attention='einsum', remat='none',
        ...     scan_layers=True, logits_chunk=64,
        ... )
        >>> model = transformer.init_model(config, jax.random.key(0))
        >>> tokens = jnp.array([[3, 1, 4, 1, 5]])
        >>> positions = jnp.arange(5)[None]
        >>> hidden, _ = model(tokens, positions)
        >>> hidden.shape
        (1, 5, 16)
        >>> model.logits(hidden).shape
        (1, 5, 48)

        With a KV cache: reads the prompt at once, then the next token alone.

        >>> _, cache = model(tokens, positions, return_cache='model')
        >>> cache.length
        5
    """

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

    @numerics.as_configured
    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        *,
        segments: jax.Array | None = None,
        cache: KVCache | None = None,
        return_cache: CacheDtype | None = None,
        shared: SharedPrompt | None = None,
        embedded: jax.Array | None = None,
    ) -> tuple[jax.Array, KVCache | ExpertUse | None]:
        """Returns (hidden states [B, T, D], second) for tokens and positions [B, T].

        `second` is the KV cache of a call with `cache` or `return_cache`. Of any other call it is
        the use of experts [L, E], summed over all tokens but padding, or None without experts.

        Without `cache`, tokens attend to earlier tokens of their own segment. With `cache`, their
        keys and values are written at their positions, and they attend to all cached positions up
        to their own. Layers with a window attend only to the last positions of these.

        Args:
          segments: [B, T], 0 on padding; None means that each row is one segment.
          cache: a cache to extend.
          return_cache: dtype of a new cache of length T to return, without `cache`. Positions
            must then start at 0. Tokens attend to its entries as stored.
          shared: the layout of rows whose samples share one prompt; not with a cache. Each sample
            attends to the prompt and to itself, and `segments` only marks padding.
          embedded: [B, T, D], replaces the embeddings of the tokens (`embed`).
        """
        is_plain = cache is None and return_cache is None
        stream = token_shards.stream_axes(*tokens.shape) if is_plain else ()
        x = self.embed(tokens, stream=stream) if embedded is None else embedded
        if self.config.scale_embeddings:
            x = numerics.by_rows(lambda x: x * jnp.asarray(self.config.embed_dim**0.5, x.dtype), x)
        x = token_shards.constrain_stream(x, stream)
        if cache is not None:
            inputs = self._cached_inputs(positions, cache)
            x, updated = self._forward_cached(
                x, positions, inputs=inputs, layer_caches=cache.layers
            )
            beside = KVCache(updated, cache.is_windowed)
        elif return_cache is not None:
            inputs = self._causal_inputs(positions, segments)
            x, beside = self._forward_prompts(x, positions, by_window=inputs, dtype=return_cache)
        else:
            inputs = self._causal_inputs(positions, segments, shared, stream=stream)
            counted = counted_tokens(tokens, segments) if self.config.num_experts else None
            x, beside = self._forward(x, positions, inputs, counted=counted)
        x = self.final_norm(x)
        return (token_shards.join_stream(x) if stream else x), beside

    def embed(self, tokens: jax.Array, *, stream: tuple[str, ...] = ()) -> jax.Array:
        """Returns the stored embeddings [B, T, D] of tokens [B, T]; `stream` as in `look_up`."""
        table, dtype = self.embedding[...], self.config.dtype
        return embedding.look_up(table, tokens, dtype=dtype, stream=stream)

    @property
    def head_matrix(self):
        """The output head [D, V]: an array of its own, or the transposed embedding."""
        return self.head[...] if hasattr(self, 'head') else self.embedding[...].T

    @numerics.as_configured
    def logits(self, hidden: jax.Array, head=None) -> jax.Array:
        """Returns float32 logits [..., V] of hidden [..., D]; `head` replaces `head_matrix`."""
        head = self.head_matrix if head is None else head
        logits = project(hidden, head, contract=1, dtype='float32')
        return einsum.soft_cap(logits, self.config.logits_soft_cap)

    def logits_of(self, hidden: jax.Array, tokens: jax.Array) -> jax.Array:
        """Returns float32 logits [..., N] of hidden [..., D] for N tokens of the vocabulary only.

        The logits of the whole vocabulary would take thousands of times the memory.
        """
        columns = (
            self.head[...][:, tokens] if hasattr(self, 'head') else self.embedding[...][tokens].T
        )
        return self.logits(hidden, columns)

    def _causal_inputs(
        self, positions, segments, shared=None, *, stream=()
    ) -> dict[int, AttentionInputs]:
        """Returns, by window, the attention inputs of new tokens that attend to each other."""
        options = {'shared': shared, 'stream': stream}
        if shared is not None:
            if sharding.CONTEXT in stream:
                raise ValueError(
                    'context does not split rows whose samples share a prompt: use '
                    'reinforce.samples_per_row=1'
                )
            # Attention works on the split rows, where every real token is in one segment.
            segments = shared.split_samples((segments > 0).astype('int32'))
        windows = sorted(set(self.config.layer_windows))
        if kernels.implementation(self.config) != 'einsum':
            return {
                w: AttentionInputs(self._rotary(positions, w), None, segments, (w,), **options)
                for w in windows
            }
        length = positions.shape[1] if segments is None else segments.shape[1]
        index, mask = jnp.arange(length), jnp.tril(jnp.ones((length, length), bool))[None]
        if segments is not None:
            mask = mask & (segments[:, :, None] == segments[:, None, :])
        if sharding.CONTEXT in stream:
            mask = sharding.constrain(mask, ('batch', 'sequence', None))
        by_window = self._masked_inputs(positions, mask, queries=index[None], keys=index)
        # Without the barrier XLA for CPU recomputes the mask in every fused softmax.
        return {
            window: inputs._replace(mask=platforms.cpu_barrier(inputs.mask), **options)
            for window, inputs in by_window.items()
        }

    def _cached_inputs(self, positions, cache: KVCache) -> dict[int, AttentionInputs]:
        """Returns, by window, the attention inputs of new tokens that attend to a cache."""
        tokens, by_window = positions.shape[1], {}
        lengths = dict(zip(self.config.layer_windows, cache.lengths, strict=True))
        for window, length in sorted(lengths.items()):
            cached = jnp.arange(length)
            mask = cached <= positions[:, :, None]
            if cache.is_windowed and 0 < window <= length + 1 - tokens:
                # The layer keeps the last positions: what an index holds changes from step to step.
                cached = kv_cache.stored_positions(positions, length)
                mask = cached >= 0
                write_at = jnp.where(positions < kv_cache.NOWHERE, positions % length, length)
            else:
                write_at = positions
            if window:
                mask = mask & (positions[:, :, None] - cached < window)
            rotary = self._rotary(positions, window)
            by_window[window] = AttentionInputs(rotary, mask, write_at=write_at)
        return by_window

    def _masked_inputs(self, positions, mask, *, queries, keys) -> dict[int, AttentionInputs]:
        """Returns, by window, attention inputs whose mask also excludes keys outside the window.

        Distances are measured between the indices of queries [B or 1, T] and of keys [S].
        """
        distance = queries[:, :, None] - keys
        return {
            window: AttentionInputs(
                self._rotary(positions, window),
                mask & (distance < window) if window else mask,
            )
            for window in sorted(set(self.config.layer_windows))
        }

    def _rotary(self, positions, window: int) -> tuple[jax.Array, jax.Array]:
        frequencies = layers.rotary_frequencies(self.config, window=window)
        scale = layers.rotary_scale(self.config, window=window)
        return layers.rotary_table(positions, frequencies, scale=scale)

    def _forward(
        self, x, positions, by_window: dict[int, AttentionInputs], *, counted: jax.Array | None
    ) -> tuple[jax.Array, ExpertUse | None]:
        """The forward pass without a cache, over scanned or unrolled layers."""
        windows, options = self.config.layer_windows, {'counted': counted}
        if self.config.scan_layers:
            apply = self._make_apply(positions, list(by_window.values()), **options)
            x, use = jax.lax.scan(
                lambda x, layer: apply(layer[0], x, layer[1]), x, self._scanned(by_window)
            )
        else:
            applies = {w: self._make_apply(positions, [i], **options) for w, i in by_window.items()}
            uses = []
            for block, window in zip(self.unstacked().blocks, windows, strict=True):
                x, use = applies[window](block, x, 0)
                uses.append(use)
            use = jax.tree.map(lambda *sums: jnp.stack(sums), *uses)
        # [L, B, parts of a row, E]
        return x, jax.tree.map(lambda sums: sums.sum(axis=(1, 2)), use)

    def _scanned(self, by_window: dict[int, AttentionInputs]):
        """Returns the arrays to scan over: each block, and the index of its window's inputs."""
        windows = list(by_window)
        return self.blocks, jnp.array([windows.index(w) for w in self.config.layer_windows])

    def _make_apply(self, positions, candidates: list[AttentionInputs], *, counted):
        """Returns the function (block, x, index) -> (x, use of experts) that applies one layer.

        The layer attends with candidates[index]. The use of experts is not yet summed over rows:
        [B, parts of a row on the mesh, E].
        """
        segments, stream = candidates[0].segments, candidates[0].stream
        candidates = [inputs._replace(segments=None) for inputs in candidates]

        def layer(block, arrays, segments):
            # The inputs are selected inside the rematerialised function, so that the backward pass
            # selects again instead of keeping a mask [B, T, T] for every layer.
            x, positions, candidates, index, counted = arrays
            inputs = select_inputs(candidates, index)._replace(segments=segments)
            out = block(x, positions, inputs=inputs, layer_cache='model', counted=counted)
            return out[0], out[2]

        def apply(block, x, index):
            arrays = (x, positions, candidates, index, counted)
            return weight_gather.apply_to_rows(
                layer,
                block,
                arrays,
                by_row=segments,
                dtype=self.config.dtype,
                is_split=sharding.CONTEXT in stream,
            )

        return remat.recomputed(apply, self.config)

    def _forward_prompts(
        self, x, positions, *, by_window: dict[int, AttentionInputs], dtype: CacheDtype
    ) -> tuple[jax.Array, KVCache]:
        """The forward pass that returns a new cache, over scanned or unrolled layers."""
        if not self.config.scan_layers or isinstance(self.blocks, nnx.List):
            dtypes = [dtype] * self.config.num_layers
            x, layers = self._forward_cached(x, positions, inputs=by_window, layer_caches=dtypes)
            return x, KVCache(layers)
        candidates = list(by_window.values())

        def read(x, layer):
            block, index = layer
            inputs = select_inputs(candidates, index)
            return block(x, positions, inputs=inputs, layer_cache=dtype)[:2]

        # The loop carries no cache: `scan` stacks the cache of each layer in its result.
        x, stacked = jax.lax.scan(read, x, self._scanned(by_window))
        layers = range(self.config.num_layers)
        return x, KVCache(tuple(jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in layers))

    def _forward_cached(
        self, x, positions, *, inputs: dict[int, AttentionInputs], layer_caches
    ) -> tuple[jax.Array, tuple[LayerCache, ...]]:
        """The forward pass with a cache, over unrolled layers.

        A scan would copy the cache at every step. Layers with the same window call one jitted
        function, which is traced once; XLA inlines it at each call.
        """
        applies = {w: traced_once(of_window) for w, of_window in inputs.items()}
        updated = []
        blocks = zip(self.unstacked().blocks, self.config.layer_windows, layer_caches, strict=True)
        for block, window, layer_cache in blocks:
            x, layer_cache = applies[window](block, x, positions, layer_cache=layer_cache)
            updated.append(layer_cache)
        return x, tuple(updated)

    def unstacked(self) -> 'Transformer':
        """Returns the model with one Block per layer, sliced from the stacked leaves.

        A tied head becomes an array of its own, so that a decoding loop does not transpose the
        embedding at every step.
        """
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


@pinned_jit(static_argnames='config')
def init_model(config: ModelConfig, key: jax.Array) -> Transformer:
    """Returns a Transformer with random parameters."""
    return Transformer(config, rngs=nnx.Rngs(key))
