"""ModelConfig: the one description every family is mapped onto."""

import dataclasses
from typing import Literal


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
    rope_theta: float
    norm_epsilon: float
    qkv_bias: bool
    qk_norm: bool
    tie_embeddings: bool
    activation: Literal['silu', 'gelu']
    dtype: Literal['float32', 'bfloat16']  # of activations and matmuls
    param_dtype: Literal['float32', 'bfloat16']  # of stored parameters
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


def num_parameters(config: ModelConfig) -> int:
    """Number of parameters, from shapes alone."""
    c = config
    attention = c.embed_dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    biases = c.head_dim * (c.num_heads + 2 * c.num_kv_heads) if c.qkv_bias else 0
    qk_norms = 2 * c.head_dim if c.qk_norm else 0
    block = attention + biases + qk_norms + 3 * c.embed_dim * c.mlp_dim + 2 * c.embed_dim
    embeddings = c.vocab_size * c.embed_dim * (1 if c.tie_embeddings else 2)
    return c.num_layers * block + embeddings + c.embed_dim


def forward_flops(config: ModelConfig, *, tokens: int, length: float) -> float:
    """Floating-point operations of one forward pass, attention included.

    `tokens` positions are computed, each attending to `length` keys on average (T / 2 for causal
    rows of T). A multiply-add counts 2. A training step is 3 times this.
    """
    c = config
    matmuls = num_parameters(config) - c.vocab_size * c.embed_dim * (not c.tie_embeddings)
    attention = 2 * c.num_layers * c.num_heads * c.head_dim * length
    return 2.0 * tokens * (matmuls + attention)
