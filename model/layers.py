"""RMSNorm, rotary positions, attention and MLP; also the legend of dimensions.

Dimensions: B batch, T query time, S key time, D embed, F mlp, N query heads, K key/value heads,
H head width, V vocabulary, L layers, G samples per prompt.

Every parameter carries `axes`, its logical axis names, which model/sharding.py maps to the mesh.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from elenchus.model import kv_cache, numerics, platforms, remat, sharding
from elenchus.model.attention import einsum, kernels
from elenchus.model.attention.inputs import AttentionInputs
from elenchus.model.config import ModelConfig
from elenchus.model.projection import dense
from elenchus.model.tensor_products import project_from_split, project_to_split

ACTIVATIONS = {'silu': jax.nn.silu, 'gelu': lambda x: jax.nn.gelu(x, approximate=True)}


def init_weight(key: jax.Array, shape: tuple[int, ...], *, axes, fan_in: int, dtype) -> nnx.Param:
    """Returns a truncated-normal Param with standard deviation fan_in ** -0.5."""
    # 0.88 is the standard deviation of a unit normal truncated at +-2.
    value = jax.random.truncated_normal(key, -2, 2, shape, 'float32') * fan_in**-0.5 / 0.88
    return nnx.Param(value.astype(dtype), axes=axes)


def init_zeros(shape: tuple[int, ...], *, axes, dtype) -> nnx.Param:
    """Returns a Param of zeros."""
    return nnx.Param(jnp.zeros(shape, dtype), axes=axes)


class RMSNorm(nnx.Module):
    """Computes x / rms(x) * scale in float32, or * (1 + scale) with zero-centred scales.

    Source: arXiv 1910.07467.
    """

    def __init__(self, dim: int, *, config: ModelConfig, axis: str | None):
        init = jnp.zeros if config.zero_centered_norms else jnp.ones
        self.scale = nnx.Param(init(dim, config.param_dtype), axes=(axis,))
        self.epsilon, self.zero_centered = config.norm_epsilon, config.zero_centered_norms

    def __call__(self, x: jax.Array) -> jax.Array:
        return numerics.by_rows(self._normalise, x)

    def _normalise(self, x: jax.Array) -> jax.Array:
        y = x.astype('float32')
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        # Multiplies by the scale before rounding to x.dtype, as `transformers` does for Gemma. For
        # other families `transformers` rounds first, so bfloat16 results differ by rounding.
        scale = self.scale[...].astype('float32')
        return (y * (1 + scale if self.zero_centered else scale)).astype(x.dtype)


def rotary_frequencies(config: ModelConfig, *, window: int) -> jax.Array:
    """Rotary frequencies of layers with this window: [H / 2] float32, in radians per position."""
    return numerics.constant(lambda: _rotary_frequencies(config, window=window))


def _rotary_frequencies(config: ModelConfig, *, window: int) -> jax.Array:
    c, half = config, config.head_dim // 2
    local = window > 0 and c.local_rope_theta > 0
    theta = c.local_rope_theta if local else c.rope_theta
    frequencies = theta ** (-jnp.arange(half, dtype='float32') / half)
    # Layers with a window see no distances beyond it, so context extension does not apply to them.
    if c.rope_scaling is None or local:
        return frequencies
    scaled = frequencies / c.rope_scaling.factor
    if c.rope_scaling.kind == 'yarn':
        keep_weight = _yarn_keep_weight(c)
        return (1 - keep_weight) * scaled + keep_weight * frequencies
    if c.rope_scaling.kind == 'linear':
        return scaled
    # Llama 3.1: interpolates between kept high frequencies and scaled low ones.
    turns = c.rope_scaling.original_length * frequencies / (2 * jnp.pi)
    low, high = c.rope_scaling.low_frequency, c.rope_scaling.high_frequency
    keep_weight = jnp.clip((turns - low) / (high - low), 0, 1)
    return (1 - keep_weight) * scaled + keep_weight * frequencies


def _yarn_keep_weight(config: ModelConfig) -> jax.Array:
    """Weights of the unscaled frequencies under YaRN: [H / 2], 1 for fast ones, 0 for slow ones."""
    scaling = config.rope_scaling

    def dimension(turns: float) -> float:
        """The dimension, from 0 to H, that makes `turns` turns in the original length."""
        length = scaling.original_length / (2 * math.pi * turns)
        return config.head_dim * math.log(length) / (2 * math.log(config.rope_theta))

    low, high = dimension(scaling.high_frequency), dimension(scaling.low_frequency)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.head_dim - 1)
    width = high - low or 0.001  # avoids a division by zero, as published
    return 1 - jnp.clip((jnp.arange(config.head_dim // 2) - low) / width, 0, 1)


def rotary_scale(config: ModelConfig, *, window: int) -> float:
    """Scale of rotated queries and keys in layers with this window; 1 except under YaRN."""
    local = window > 0 and config.local_rope_theta > 0
    is_yarn = config.rope_scaling is not None and config.rope_scaling.kind == 'yarn'
    return config.rope_scaling.attention_factor if is_yarn and not local else 1.0


def rotary_table(
    positions: jax.Array, frequencies: jax.Array, *, scale: float
) -> tuple[jax.Array, jax.Array]:
    """(cos, sin) of the rotary angles, both [B, T, 1, H / 2] float32; computed once for all layers.

    positions [B, T], frequencies [H / 2]; both results are multiplied by `scale`.
    """
    angles = positions[..., None, None].astype('float32') * frequencies
    cos, sin = (numerics.by_number(fn, angles) for fn in (jnp.cos, jnp.sin))
    if scale != 1.0:
        cos, sin = (numerics.by_number(lambda x: scale * x, x) for x in (cos, sin))
    # Without the barrier XLA for CPU recomputes sines and cosines in every fusion that reads them.
    return platforms.cpu_barrier((cos, sin))


def rotate(x: jax.Array, rotary: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Applies rotary position embedding. Source: RoFormer (arXiv 2104.09864).

    x [B, T, N, H], rotary from `rotary_table`. Pairs dimension i with i + H / 2, as released
    checkpoints do, where the paper pairs neighbours.
    """
    return numerics.by_rows(_rotate, *(table[..., 0, :] for table in rotary), x)


def _rotate(cos: jax.Array, sin: jax.Array, x: jax.Array) -> jax.Array:
    cos, sin = cos[..., None, :], sin[..., None, :]
    first, second = jnp.split(x.astype('float32'), 2, axis=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


class Attention(nnx.Module):
    """Causal grouped-query self-attention with rotary positions."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        c, D, H = config, config.embed_dim, config.head_dim

        def init(shape, axes, fan_in):
            return init_weight(rngs.params(), shape, axes=axes, fan_in=fan_in, dtype=c.param_dtype)

        self.query = init((D, c.num_heads, H), ('embed', 'heads', None), D)
        self.key = init((D, c.num_kv_heads, H), ('embed', 'kv_heads', None), D)
        self.value = init((D, c.num_kv_heads, H), ('embed', 'kv_heads', None), D)
        # With a zero initial output, attention adds no noise to the residual stream and learns to
        # copy much sooner.
        self.out = init_zeros(
            (c.num_heads, H, D), axes=('heads', None, 'embed'), dtype=c.param_dtype
        )
        if config.qkv_bias:
            for name, heads in (('query', 'heads'), ('key', 'kv_heads'), ('value', 'kv_heads')):
                bias = init_zeros(
                    getattr(self, name).shape[1:], axes=(heads, None), dtype=c.param_dtype
                )
                setattr(self, f'{name}_bias', bias)
        if config.qk_norm:
            self.query_norm = RMSNorm(H, config=config, axis=None)
            self.key_norm = RMSNorm(H, config=config, axis=None)
        self.config = config

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        *,
        inputs: AttentionInputs,
        layer_cache: kv_cache.LayerCache | kv_cache.CacheDtype,
    ) -> tuple[jax.Array, kv_cache.LayerCache]:
        """Returns (update [B, T, D], layer cache) for x [B, T, D] and positions [B, T].

        If `layer_cache` is (keys, values), writes the new ones at their positions and attends to
        all cached ones. If it is a CacheDtype, the tokens attend to each other, and their keys and
        values are returned in that dtype.
        """
        c = self.config
        query, key, value = self._project_heads(x, inputs.stream)
        if c.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = rotate(query, inputs.rotary), rotate(key, inputs.rotary)
        query, key, value = map(remat.mark, (query, key, value), ('query', 'key', 'value'))
        query = sharding.constrain(query, ('batch', None, 'heads', None))
        is_cached = isinstance(layer_cache, tuple)
        if is_cached:
            layer_cache = kv_cache.write(layer_cache, key, value, positions=inputs.write_at)
        else:
            layer_cache = tuple(
                kv_cache.store_entries(x.swapaxes(1, 2), layer_cache) for x in (key, value)
            )
        # Attends to the entries as stored (int8 rounds), in prefill too: a prompt then gives the
        # same values whether it is read at once or in parts.
        key, value = (dense(x, query.dtype) for x in layer_cache)
        scale = (c.query_scale_dim or c.head_dim) ** -0.5
        if is_cached:
            out = einsum.attend(
                query, key, value, mask=inputs.mask, scale=scale, cap=c.attention_soft_cap
            )
        else:
            out = self._attend_causal(query, key, value, inputs=inputs, scale=scale)
        return project_to_split(out, self.out, contract=2, stream=inputs.stream), layer_cache

    def _attend_causal(self, query, key, value, *, inputs: AttentionInputs, scale: float):
        """Attention of new tokens to each other, by the backend that `config.attention` selects."""
        cap = self.config.attention_soft_cap
        if sharding.CONTEXT in inputs.stream:
            key, value = map(_gather_positions, (key, value))
        if kernels.implementation(self.config) != 'einsum':
            return kernels.attend_causal(
                query, key, value, inputs=inputs, config=self.config, scale=scale
            )
        if inputs.shared is not None:
            out = einsum.attend_shared(query, key, value, inputs=inputs, scale=scale, cap=cap)
        else:
            out = einsum.attend_causal(query, key, value, mask=inputs.mask, scale=scale, cap=cap)
        return remat.mark(out, 'attention')

    def _project_heads(self, x: jax.Array, stream: tuple[str, ...]) -> list[jax.Array]:
        names = ('query', 'key', 'value')
        heads = project_from_split(x, [getattr(self, name) for name in names], stream=stream)
        if self.config.qkv_bias:
            biases = (getattr(self, f'{name}_bias')[...] for name in names)
            heads = [y + bias.astype(x.dtype) for y, bias in zip(heads, biases, strict=True)]
        return heads


def _gather_positions(x: jax.Array) -> jax.Array:
    """All-gathers the keys or values [B, K, T, H] of all positions over 'context'."""
    gather = functools.partial(jax.lax.all_gather, axis_name=sharding.CONTEXT, axis=2, tiled=True)
    # With 'tensor' left automatic, a gather would also gather the dimension that it splits.
    return sharding.apply_per_shard(gather, [x], [('batch', 'kv_heads', None, None)])


class MLP(nnx.Module):
    """Gated MLP: down(activation(gate(x)) * up(x)). Source: arXiv 2002.05202."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        D, F, dtype = config.embed_dim, config.mlp_dim, config.param_dtype
        into, out = ('embed', 'mlp'), ('mlp', 'embed')
        self.gate = init_weight(rngs.params(), (D, F), axes=into, fan_in=D, dtype=dtype)
        self.up = init_weight(rngs.params(), (D, F), axes=into, fan_in=D, dtype=dtype)
        self.down = init_weight(rngs.params(), (F, D), axes=out, fan_in=F, dtype=dtype)
        self.activation = config.activation

    def __call__(self, x: jax.Array, *, stream: tuple[str, ...] = ()) -> jax.Array:
        """x [B, T, D] -> update [B, T, D]; `stream`: mesh axes that split the positions of both."""
        gate, up = project_from_split(x, (self.gate, self.up), stream=stream)
        gate, up = remat.mark(gate, 'gate'), remat.mark(up, 'up')
        hidden = numerics.by_number(ACTIVATIONS[self.activation], gate) * up
        hidden = sharding.constrain(hidden, ('batch', 'sequence', 'mlp'))
        return project_to_split(hidden, self.down, contract=1, stream=stream)
