"""ModelConfig: shapes and numerics of a Transformer, for all model families."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Scaling of rotary frequencies for texts longer than those of pre-training.

    'linear' divides all frequencies by `factor` (arXiv 2306.15595). 'llama3' keeps frequencies that
    turn more than `high_frequency` times in `original_length` positions, divides those that turn
    fewer than `low_frequency` times, and interpolates in between (Llama 3.1's model.py,
    `apply_scaling`).
    """

    kind: Literal['linear', 'llama3']
    factor: float  # divisor of frequencies
    low_frequency: float  # turns; this and the next two are 0 for 'linear'
    high_frequency: float  # turns
    original_length: int  # context length of pre-training, in tokens

    def __post_init__(self):
        if self.factor <= 0:
            raise ValueError(
                f'rope_scaling.factor={self.factor} must be positive; use 1.0 for no scaling'
            )
        low, high, length = self.low_frequency, self.high_frequency, self.original_length
        if self.kind == 'linear' and any((low, high, length)):
            raise ValueError(
                f"rope_scaling.kind='linear' with low_frequency={low}, high_frequency={high}, "
                f'original_length={length}; set all three to 0'
            )
        if self.kind == 'llama3' and not (0 < low < high and length > 0):
            raise ValueError(
                f'rope_scaling: low_frequency={low} must be between 0 and high_frequency={high}, '
                f'and original_length={length} at least 1; Llama 3.1 has 1.0, 4.0, 8192'
            )


@dataclasses.dataclass(frozen=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071): scales slow frequencies, and the lengths of queries and keys.

    The weights of kept and divided frequencies change linearly over the dimensions between the one
    that turns `high_frequency` times in `original_length` positions and the one that turns
    `low_frequency` times; `truncate` rounds both to whole dimensions. Queries and keys are
    multiplied by `attention_factor`, so scores by its square.
    """

    kind: Literal['yarn']
    factor: float  # divisor of slow frequencies
    low_frequency: float  # turns; `beta_slow` of the paper
    high_frequency: float  # turns; `beta_fast` of the paper
    original_length: int  # context length of pre-training, in tokens
    attention_factor: float  # scale of queries and of keys
    truncate: bool  # as published; False: bounds between two dimensions

    def __post_init__(self):
        for name in ('factor', 'attention_factor'):
            if not 0 < getattr(self, name) < float('inf'):
                raise ValueError(
                    f'rope_scaling.{name}={getattr(self, name)} must be positive; nearest: 1.0'
                )
        low, high, length = self.low_frequency, self.high_frequency, self.original_length
        if not (0 < low < high and length > 0):
            raise ValueError(
                f'rope_scaling: low_frequency={low} must be between 0 and high_frequency={high}, '
                f'and original_length={length} at least 1; YaRN has 1.0, 32.0'
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shapes and numerics of a Transformer; validated on construction."""

    # Shapes
    vocab_size: int
    num_layers: int
    embed_dim: int
    mlp_dim: int
    num_heads: int  # query heads
    num_kv_heads: int  # key/value heads; must divide num_heads
    head_dim: int
    max_length: int  # longest sequence in tokens: positions, caches and packed rows
    # Attention
    windows: tuple[int, ...]  # keys that a query sees, own included; 0 = all; repeated over layers
    rope_theta: float  # base of rotary frequencies
    local_rope_theta: float  # base in layers with a window, unscaled; 0 = rope_theta, scaled
    rope_scaling: RopeScaling | YarnScaling | None
    # Norms and scales
    norm_epsilon: float
    zero_centered_norms: bool  # norms multiply by 1 + scale
    post_norms: bool  # also norm the updates of attention and MLP before the residual addition
    qkv_bias: bool  # biases on queries, keys and values
    qk_norm: bool  # norms on queries and keys
    query_scale_dim: int  # scores are divided by its square root; 0 = head_dim
    attention_soft_cap: float  # scores become cap * tanh(scores / cap); 0 = off
    logits_soft_cap: float  # the same for logits; 0 = off
    scale_embeddings: bool  # multiply embeddings by sqrt(embed_dim)
    tie_embeddings: bool  # the output head is the embedding
    activation: Literal['silu', 'gelu']  # of the MLP's gate
    # Numerics and speed
    dtype: Literal['float32', 'bfloat16']  # activations and matrix products
    param_dtype: Literal['float32', 'bfloat16']  # stored parameters
    attention: Literal['auto', 'einsum', 'splash', 'cudnn']  # new tokens; a cache: the einsum
    remat: Literal['none', 'dots', 'full']  # what the backward pass recomputes
    scan_layers: bool  # one scanned layer (small program) or unrolled layers (fast on a CPU)
    logits_chunk: int  # tokens of a device whose logits [chunk, V] exist at once

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
            raise ValueError(
                f'model.windows={self.windows} must be one or more sizes >= 0; nearest: (0,)'
            )
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
        """Raises ValueError for values that cuDNN's attention refuses (the checks in jax)."""
        refused = "model.attention='cudnn' does not support "
        if self.dtype != 'bfloat16':
            raise ValueError(f"{refused}model.dtype={self.dtype!r}; nearest: 'bfloat16'")
        if self.attention_soft_cap:
            raise ValueError(
                f'{refused}model.attention_soft_cap={self.attention_soft_cap}; nearest: 0.0, or '
                "use model.attention='einsum'"
            )
        if self.head_dim % 8 or self.head_dim > 256:
            nearest = min(256, max(8, round(self.head_dim / 8) * 8))
            raise ValueError(
                f'{refused}model.head_dim={self.head_dim}, only multiples of 8 up to 256; '
                f'nearest: {nearest}'
            )

    @property
    def layer_windows(self) -> tuple[int, ...]:
        """Window of every layer."""
        return tuple(self.windows[i % len(self.windows)] for i in range(self.num_layers))


def num_parameters(config: ModelConfig) -> int:
    """Number of parameters of a model, computed from its config."""
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

    `tokens` positions are computed. Each attends to `length` keys on average (T / 2 in causal rows
    of T), but to no more than the window of its layer. A multiply-add counts as 2. A training step
    costs 3 times as much.
    """
    c = config
    # Looking up embeddings costs no operations; a tied table is multiplied once, as the head.
    matmuls = num_parameters(config) - c.vocab_size * c.embed_dim * (not c.tie_embeddings)
    keys = sum(min(length, window or length) for window in c.layer_windows)
    attention = 2 * c.num_heads * c.head_dim * keys
    return 2.0 * tokens * (matmuls + attention)
