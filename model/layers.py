"""Norm, rotary positions, projections of attention, and MLP.

Dimensions: B batch, T query time, S key time, D embed, F mlp, N query heads, K key/value heads,
H head width, V vocabulary, L layers, G samples a prompt.

Every parameter carries `axes`, its logical axis names; model/sharding.py maps them to the mesh.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from elenchus.model import kv_cache as cache_lib
from elenchus.model import sharding
from elenchus.model.attention import View, attend, attend_to_each_other
from elenchus.model.config import ModelConfig
from elenchus.model.weights import LowRank, Transposed, dense

ACTIVATIONS = {'silu': jax.nn.silu, 'gelu': lambda x: jax.nn.gelu(x, approximate=True)}


def init_weight(key: jax.Array, shape: tuple[int, ...], *, axes, fan_in: int, dtype) -> nnx.Param:
    """A truncated-normal Param with standard deviation fan_in ** -0.5."""
    value = jax.random.truncated_normal(key, -2, 2, shape, 'float32') * fan_in**-0.5 / 0.88
    return nnx.Param(value.astype(dtype), axes=axes)


def zeros(shape: tuple[int, ...], axes, dtype) -> nnx.Param:
    """A Param of zeros."""
    return nnx.Param(jnp.zeros(shape, dtype), axes=axes)


def project(x: jax.Array, weight, *, contract: int, dtype=None) -> jax.Array:
    """Contracts the last `contract` dimensions of x with the first of `weight`, as one 2-D matmul.

    `weight` is an array or one of model/weights.py; `dtype` is the result's, x's where it is None.
    Flattening the tokens is 1.2 to 1.3 times faster than a batched contraction on CPU.
    """
    if isinstance(weight, LowRank):
        low = project(project(x, weight.a, contract=contract), weight.b, contract=1)
        return project(x, weight.base, contract=contract) + weight.scale * low
    lead, inner = x.shape[: x.ndim - contract], weight.shape[:contract]
    assert x.shape[x.ndim - contract :] == inner, (x.shape, weight.shape)
    flat = x.reshape(-1, math.prod(inner))
    if isinstance(weight, Transposed):  # the barriers keep XLA from turning it round again
        flat = jax.lax.optimization_barrier(flat.T)
        flat = jnp.matmul(weight.array.astype(x.dtype), flat, preferred_element_type=dtype)
        flat = jax.lax.optimization_barrier(flat).T
    else:
        matrix = dense(weight, x.dtype).reshape(flat.shape[1], -1)
        flat = jnp.matmul(flat, matrix, preferred_element_type=dtype)
    return flat.reshape(*lead, *weight.shape[contract:])


class RMSNorm(nnx.Module):
    """x / rms(x) * scale, or * (1 + scale) where scales are centered at zero; in float32."""

    def __init__(self, dim: int, *, config: ModelConfig, axis: str | None):
        init = jnp.zeros if config.zero_centered_norms else jnp.ones
        self.scale = nnx.Param(init(dim, config.param_dtype), axes=(axis,))
        self.epsilon, self.zero_centered = config.norm_epsilon, config.zero_centered_norms

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype('float32')
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        scale = self.scale[...].astype('float32')
        return (y * (1 + scale if self.zero_centered else scale)).astype(x.dtype)


def rotary_frequencies(config: ModelConfig, *, window: int) -> jax.Array:
    """Radians a position, [H / 2] float32, in the layers that have this window."""
    c, half = config, config.head_dim // 2
    local = window > 0 and c.local_rope_theta > 0
    theta = c.local_rope_theta if local else c.rope_theta
    frequencies = theta ** (-jnp.arange(half, dtype='float32') / half)
    if c.rope_scaling is None or local:
        return frequencies
    lowered = frequencies / c.rope_scaling.factor
    if c.rope_scaling.kind == 'linear':
        return lowered
    turns = c.rope_scaling.original_length * frequencies / (2 * jnp.pi)
    low, high = c.rope_scaling.low_frequency, c.rope_scaling.high_frequency
    kept = jnp.clip((turns - low) / (high - low), 0, 1)
    return (1 - kept) * lowered + kept * frequencies


def rotary_table(positions: jax.Array, frequencies: jax.Array):
    """(cos, sin) of the rotary angles, both [B, T, 1, H / 2] float32, for every layer.

    The barrier keeps XLA from computing sines again in every fusion that reads them.
    """
    angles = positions[..., None, None].astype('float32') * frequencies
    return jax.lax.optimization_barrier((jnp.cos(angles), jnp.sin(angles)))


def rotate(x: jax.Array, rotary: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotary position embedding. x [B, T, N, H], rotary of rotary_table. Source: 2104.09864."""
    cos, sin = rotary
    first, second = jnp.split(x.astype('float32'), 2, axis=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


class Attention(nnx.Module):
    """Causal grouped-query self-attention with rotary positions."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        c, D, H = config, config.embed_dim, config.head_dim

        def weight(shape, axes, fan_in):
            return init_weight(rngs.params(), shape, axes=axes, fan_in=fan_in, dtype=c.param_dtype)

        self.query = weight((D, c.num_heads, H), ('embed', 'heads', None), D)
        self.key = weight((D, c.num_kv_heads, H), ('embed', 'kv_heads', None), D)
        self.value = weight((D, c.num_kv_heads, H), ('embed', 'kv_heads', None), D)
        # From zero, attention adds no noise to the residual stream and learns to copy much sooner.
        self.out = zeros((c.num_heads, H, D), ('heads', None, 'embed'), c.param_dtype)
        if config.qkv_bias:
            for name, heads in (('query', 'heads'), ('key', 'kv_heads'), ('value', 'kv_heads')):
                shape = getattr(self, name).shape[1:]
                setattr(self, f'{name}_bias', zeros(shape, (heads, None), c.param_dtype))
        if config.qk_norm:
            self.query_norm = RMSNorm(H, config=config, axis=None)
            self.key_norm = RMSNorm(H, config=config, axis=None)
        self.config = config

    def __call__(self, x, positions, view: View, layer_cache):
        """x [B, T, D]; layer_cache is (keys, values) or a CacheDtype. Returns (x, layer_cache).

        Without keys and values, the tokens attend to each other, and their own are returned: held
        in that dtype, and attended to as they are held.
        """
        c = self.config
        query, key, value = (self._heads(x, name) for name in ('query', 'key', 'value'))
        if c.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = rotate(query, view.rotary), rotate(key, view.rotary)
        query = sharding.constrain(query, ('batch', None, 'heads', None))
        is_cached = isinstance(layer_cache, tuple)
        if is_cached:
            layer_cache = cache_lib.write(layer_cache, key, value, positions)
        else:
            layer_cache = tuple(
                cache_lib.stored(x.swapaxes(1, 2), layer_cache) for x in (key, value)
            )
        held = [dense(x, query.dtype) for x in layer_cache]
        scale = (c.query_scale_dim or c.head_dim) ** -0.5
        if is_cached:
            out = attend(query, *held, view.mask, scale=scale, cap=c.attention_soft_cap)
        else:
            out = attend_to_each_other(query, *held, view, config=c, scale=scale)
        return project(out, self.out[...], contract=2), layer_cache

    def _heads(self, x, name):
        heads = project(x, getattr(self, name)[...], contract=1)
        if self.config.qkv_bias:
            heads = heads + getattr(self, f'{name}_bias')[...].astype(x.dtype)
        return heads


class MLP(nnx.Module):
    """Gated MLP: down(activation(gate(x)) * up(x)). Source: arXiv 2002.05202."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        D, F, dtype = config.embed_dim, config.mlp_dim, config.param_dtype
        into, out = ('embed', 'mlp'), ('mlp', 'embed')
        self.gate = init_weight(rngs.params(), (D, F), axes=into, fan_in=D, dtype=dtype)
        self.up = init_weight(rngs.params(), (D, F), axes=into, fan_in=D, dtype=dtype)
        self.down = init_weight(rngs.params(), (F, D), axes=out, fan_in=F, dtype=dtype)
        self.activation = config.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        gate = ACTIVATIONS[self.activation](project(x, self.gate[...], contract=1))
        hidden = sharding.constrain(
            gate * project(x, self.up[...], contract=1), ('batch', None, 'mlp')
        )
        return project(hidden, self.down[...], contract=1)
