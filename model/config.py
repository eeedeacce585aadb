"""ModelConfig: the one description every family is mapped onto."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are lowered for texts longer than those first trained on.

    'linear' divides all by `factor` (2306.15595). 'llama3' keeps those that turn more than
    `high_frequency` times in `original_length` positions, divides those that turn fewer than
    `low_frequency` times, and goes from one to the other in between.
    Source: Llama 3.1's model.py, `apply_scaling`.
    """

    kind: Literal['linear', 'llama3']
    factor: float
    low_frequency: float  # this and what follows: of 'llama3'; 0 in 'linear'
    high_frequency: float
    original_length: int

    def __post_init__(self):
        if self.factor <= 0:
            raise ValueError(f'rope_scaling.factor={self.factor} must be positive; none is 1.0')
        given = (self.low_frequency, self.high_frequency, self.original_length)
        if self.kind == 'linear' and any(given):
            raise ValueError(f'rope_scaling: {given} after the factor; of linear all three are 0')
        if self.kind == 'llama3' and not (0 < given[0] < given[1] and given[2] > 0):
            raise ValueError(
                f'rope_scaling: low_frequency={given[0]} must be above 0 and below high_frequency='
                f'{given[1]}, original_length={given[2]} at least 1; published: 1.0, 4.0, 8192'
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shapes and numerics of a Transformer; validated when made."""

    vocab_size: int
    num_layers: int
    embed_dim: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_length: int  # longest sequence that positions, caches and packed rows may have
    windows: tuple[int, ...]  # of the layers, repeated: the last keys seen, own included; 0 is all
    rope_theta: float
    local_rope_theta: float  # of layers with a window, unscaled; 0: as in the other layers
    rope_scaling: RopeScaling | None
    norm_epsilon: float
    zero_centered_norms: bool  # norms multiply by 1 + scale
    post_norms: bool  # norms after attention and MLP too, before the residual is added
    qkv_bias: bool
    qk_norm: bool
    query_scale_dim: int  # scores are divided by its square root; 0: head_dim
    attention_soft_cap: float  # scores become cap * tanh(scores / cap); 0 is off
    logits_soft_cap: float  # the same of logits
    scale_embeddings: bool  # by sqrt(embed_dim)
    tie_embeddings: bool
    activation: Literal['silu', 'gelu']
    dtype: Literal['float32', 'bfloat16']  # of activations and matmuls
    param_dtype: Literal['float32', 'bfloat16']  # of stored parameters
    attention: Literal['einsum', 'splash', 'cudnn']  # of new tokens; of a cache: 'einsum'
    remat: Literal['none', 'dots', 'full']  # what the backward pass recomputes
    scan_layers: bool  # one scanned layer (small program) or unrolled layers (fast on CPU)
    logits_chunk: int  # positions whose [B, chunk, V] logits are alive at once

    def __post_init__(self):
        for name in (
            'vocab_size',
            'num_layers',
            'embed_dim',
            'mlp_dim',
            'num_heads',
            'num_kv_heads',
            'head_dim',
            'max_length',
            'logits_chunk',
        ):
            if getattr(self, name) < 1:
                raise ValueError(f'model.{name}={getattr(self, name)} must be at least 1')
        for name in (
            'local_rope_theta',
            'query_scale_dim',
            'attention_soft_cap',
            'logits_soft_cap',
        ):
            if getattr(self, name) < 0:
                raise ValueError(f'model.{name}={getattr(self, name)} is negative; nearest: 0')
        if not self.windows or min(self.windows) < 0:
            raise ValueError(f'model.windows={self.windows} must be sizes from 0; nearest: (0,)')
        if self.num_heads % self.num_kv_heads:
            divisors = [n for n in range(1, self.num_heads + 1) if self.num_heads % n == 0]
            nearest = min(divisors, key=lambda n: abs(n - self.num_kv_heads))
            raise ValueError(
                f'model.num_kv_heads={self.num_kv_heads} does not divide '
                f'num_heads={self.num_heads}; nearest divisor: {nearest}'
            )
        if self.head_dim % 2:
            raise ValueError(
                f'model.head_dim={self.head_dim} must be even for rotary positions; '
                f'nearest: {self.head_dim + 1}'
            )
        if self.attention == 'cudnn':
            self._check_cudnn()

    def _check_cudnn(self) -> None:
        """Raises ValueError for what cuDNN's attention does not take: its checks in jax."""
        refused = "model.attention='cudnn' does not take "
        if self.dtype != 'bfloat16':
            raise ValueError(f"{refused}model.dtype={self.dtype!r}; nearest: 'bfloat16'")
        if self.attention_soft_cap:
            raise ValueError(
                f'{refused}model.attention_soft_cap={self.attention_soft_cap}; nearest: 0.0, or '
                "model.attention='einsum'"
            )
        if self.head_dim % 8 or self.head_dim > 256:
            nearest = min(256, max(8, round(self.head_dim / 8) * 8))
            raise ValueError(
                f'{refused}model.head_dim={self.head_dim}, only multiples of 8 up to 256; '
                f'nearest: {nearest}'
            )

    @property
    def layer_windows(self) -> tuple[int, ...]:
        """The window of every layer."""
        return tuple(self.windows[i % len(self.windows)] for i in range(self.num_layers))


def num_parameters(config: ModelConfig) -> int:
    """Number of parameters, from shapes alone."""
    c = config
    attention = c.embed_dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    biases = c.head_dim * (c.num_heads + 2 * c.num_kv_heads) if c.qkv_bias else 0
    qk_norms = 2 * c.head_dim if c.qk_norm else 0
    norms = qk_norms + (4 if c.post_norms else 2) * c.embed_dim
    block = attention + biases + norms + 3 * c.embed_dim * c.mlp_dim
    embeddings = c.vocab_size * c.embed_dim * (1 if c.tie_embeddings else 2)
    return c.num_layers * block + embeddings + c.embed_dim


def forward_flops(config: ModelConfig, *, tokens: int, length: float) -> float:
    """Floating-point operations of one forward pass, attention included.

    `tokens` positions are computed, each attending to `length` keys on average (T / 2 for causal
    rows of T), at most a layer's window. A multiply-add counts 2. A training step is 3 times this.
    """
    c = config
    matmuls = num_parameters(config) - c.vocab_size * c.embed_dim * (not c.tie_embeddings)
    keys = sum(min(length, window or length) for window in c.layer_windows)
    attention = 2 * c.num_heads * c.head_dim * keys
    return 2.0 * tokens * (matmuls + attention)
