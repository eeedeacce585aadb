"""ModelConfig: shapes and numerics of a Transformer, for all model families."""

import dataclasses
from typing import Annotated, Literal

from elenchus.model.ranges import Coefficient, Length, NonNegativeInt, PositiveInt, Range, checked

Width = Annotated[int, Range(1, 1 << 20)]
Heads = Annotated[int, Range(1, 1 << 14)]
Experts = Annotated[int, Range(1, 1 << 14, off=0)]
Theta = Annotated[float, Range(1.0, 1e12)]
ScalingFactor = Annotated[float, Range(1e-3, 1e6)]
SavedArray = Literal['query', 'key', 'value', 'attention', 'residual', 'gate', 'up']
"""Arrays of a layer that `remat_saved` and `remat_offloaded` name.

Rotated queries and keys, values, the output of attention before its projection, the residual stream
between attention and MLP, and the two inner projections of the MLP.
"""
ScaleDim = Annotated[int, Range(1, 1 << 20, off=0)]
SoftCap = Annotated[float, Range(0.01, 1e6, off=0.0)]


@dataclasses.dataclass(frozen=True)
@checked('model.rope_scaling')
class RopeScaling:
    """Scaling of rotary frequencies for texts longer than those of pre-training.

    'linear' divides all frequencies by `factor` (arXiv 2306.15595). 'llama3' keeps frequencies that
    turn more than `high_frequency` times in `original_length` positions, divides those that turn
    fewer than `low_frequency` times, and interpolates in between (Llama 3.1's model.py,
    `apply_scaling`).
    """

    kind: Literal['linear', 'llama3']
    factor: ScalingFactor  # divisor of frequencies
    low_frequency: Coefficient  # turns; this and the next two are 0 for 'linear'
    high_frequency: Coefficient  # turns
    original_length: NonNegativeInt  # context length of pre-training, in tokens

    def __post_init__(self):
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
@checked('model.rope_scaling')
class YarnScaling:
    """YaRN (arXiv 2309.00071): scales slow rotary frequencies, and queries and keys.

    Dimensions that turn more than `high_frequency` times in `original_length` positions keep their
    frequency; for those that turn fewer than `low_frequency` times it is divided by `factor`. In
    between, the weight of the kept frequency falls linearly with the dimension; `truncate` rounds
    the two bounds to whole dimensions. Queries and keys are multiplied by `attention_factor`, so
    scores by its square.
    """

    kind: Literal['yarn']
    factor: ScalingFactor  # divisor of slow frequencies
    low_frequency: Coefficient  # turns; `beta_slow` of the paper
    high_frequency: Coefficient  # turns; `beta_fast` of the paper
    original_length: NonNegativeInt  # context length of pre-training, in tokens
    attention_factor: ScalingFactor  # scale of queries and of keys
    truncate: bool  # as published; False: bounds between two dimensions

    def __post_init__(self):
        low, high, length = self.low_frequency, self.high_frequency, self.original_length
        if not (0 < low < high and length > 0):
            raise ValueError(
                f'rope_scaling: low_frequency={low} must be between 0 and high_frequency={high}, '
                f'and original_length={length} at least 1; YaRN has 1.0, 32.0'
            )


@dataclasses.dataclass(frozen=True)
@checked('model')
class ModelConfig:
    """Shapes and numerics of a Transformer; validated on construction."""

    # Shapes
    vocab_size: Annotated[int, Range(1, 1 << 24)]
    num_layers: Annotated[int, Range(1, 10_000)]
    embed_dim: Width
    mlp_dim: Width  # of each expert, if there are several
    num_heads: Heads  # query heads
    num_kv_heads: Heads  # key/value heads; must divide num_heads
    head_dim: Annotated[int, Range(2, 1 << 14)]
    max_length: Length  # longest sequence in tokens: positions, caches and packed rows
    # Attention
    # Window of each layer: keys that a query attends to, its own included; 0 = all. The pattern is
    # repeated over the layers.
    windows: tuple[NonNegativeInt, ...]
    rope_theta: Theta  # base of rotary frequencies
    # Base in layers with a window, without rope_scaling; 0 = as in the other layers.
    local_rope_theta: Annotated[float, Range(1.0, 1e12, off=0.0)]
    rope_scaling: RopeScaling | YarnScaling | None
    # Norms and scales
    norm_epsilon: Annotated[float, Range(1e-12, 0.1)]
    zero_centered_norms: bool  # norms multiply by 1 + scale
    post_norms: bool  # also norm the updates of attention and MLP before the residual addition
    qkv_bias: bool  # biases on queries, keys and values
    qk_norm: bool  # norms on queries and keys
    query_scale_dim: ScaleDim  # scores are divided by its square root; 0 = head_dim
    attention_soft_cap: SoftCap  # scores become cap * tanh(scores / cap); 0 = off
    logits_soft_cap: SoftCap  # the same for logits; 0 = off
    scale_embeddings: bool  # multiply embeddings by sqrt(embed_dim)
    tie_embeddings: bool  # the output head is the embedding
    activation: Literal['silu', 'gelu']  # of the MLP's gate
    # Numerics and speed
    dtype: Literal['float32', 'bfloat16']  # activations and matrix products
    param_dtype: Literal['float32', 'bfloat16']  # stored parameters
    attention: Literal['auto', 'einsum', 'splash', 'cudnn']  # of new tokens; with a cache: einsum
    remat: Literal['none', 'dots', 'full']  # what the backward pass recomputes
    scan_layers: bool  # one scanned layer (small program) or unrolled layers (fast on a CPU)
    logits_chunk: PositiveInt  # tokens per device whose logits [chunk, V] are in memory at once
    # 'canonical', on a CPU: log-probabilities of sampler and trainer have equal bits.
    numerics: Literal['fast', 'canonical'] = 'fast'
    # Arrays that remat 'full' keeps nevertheless: on the device, or in the memory of the host.
    remat_saved: tuple[SavedArray, ...] = ()
    remat_offloaded: tuple[SavedArray, ...] = ()
    # Experts
    num_experts: Experts = 0  # MLPs of width mlp_dim in a block; 0 = one, without a router
    experts_per_token: Experts = 0  # experts that the router chooses for each token
    normalise_experts: bool = False  # weights of a token's experts sum to 1
    balance_coef: Coefficient = 0.0  # weight in training of the loss that balances experts; 0 = off
    expert_parallel: bool = False  # 'tensor' gives a device whole experts, not a slice of each

    def __post_init__(self):
        if not self.windows:
            raise ValueError('model.windows=() must be one or more sizes; nearest: (0,)')
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
        self._check_remat()
        self._check_experts()
        self._check_numerics()

    def _check_experts(self) -> None:
        """Raises ValueError for inconsistent numbers of experts."""
        most, chosen = self.num_experts, self.experts_per_token
        if not min(most, 1) <= chosen <= most:
            raise ValueError(
                f'model.experts_per_token={chosen} must be from {min(most, 1)} to '
                f'num_experts={most}; nearest: {min(max(chosen, 1), most)}'
            )
        for field in ('normalise_experts', 'balance_coef', 'expert_parallel'):
            value = getattr(self, field)
            if value and not most:
                raise ValueError(
                    f'model.{field}={value!r} is of models with experts, and num_experts=0; '
                    f'nearest: {type(value)()!r}'
                )

    def _check_numerics(self) -> None:
        """Raises ValueError for models that have no canonical numerics."""
        if self.numerics == 'fast':
            return
        if self.attention not in ('auto', 'einsum'):
            raise ValueError(
                f"model.attention={self.attention!r} has no canonical numerics; nearest: 'einsum'"
            )
        if self.num_experts:
            raise ValueError(
                "model.numerics='canonical' is for models without experts, not with "
                f"num_experts={self.num_experts}; nearest: 'fast'"
            )

    def _check_remat(self) -> None:
        """Raises ValueError for names of kept arrays that would have no effect."""
        names = (*self.remat_saved, *self.remat_offloaded)
        for field in ('remat_saved', 'remat_offloaded'):
            if getattr(self, field) and self.remat != 'full':
                raise ValueError(
                    f'model.{field}={getattr(self, field)!r} keeps arrays that only remat '
                    f"'full' recomputes, not model.remat={self.remat!r}; nearest: 'full'"
                )
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(
                f'model.remat_saved={self.remat_saved!r} and '
                f'model.remat_offloaded={self.remat_offloaded!r} name {twice!r} twice: once is '
                'enough'
            )

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
    return _count(config, experts=config.num_experts)


def num_active_parameters(config: ModelConfig) -> int:
    """Number of parameters that are used for one token: of the experts, only those chosen."""
    return _count(config, experts=config.experts_per_token)


def mlp_parameters(config: ModelConfig, *, experts: int) -> int:
    """Parameters of the MLP of a block, or of a router and `experts` of its experts."""
    c = config
    router = c.embed_dim * c.num_experts
    return router + 3 * c.embed_dim * c.mlp_dim * (experts if c.num_experts else 1)


def _count(config: ModelConfig, *, experts: int) -> int:
    c = config
    attention = c.embed_dim * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    biases = c.head_dim * (c.num_heads + 2 * c.num_kv_heads) if c.qkv_bias else 0
    qk_norms = 2 * c.head_dim if c.qk_norm else 0
    norms = qk_norms + (4 if c.post_norms else 2) * c.embed_dim
    block = attention + biases + norms + mlp_parameters(c, experts=experts)
    embeddings = c.vocab_size * c.embed_dim * (1 if c.tie_embeddings else 2)
    return c.num_layers * block + embeddings + c.embed_dim


def forward_flops(config: ModelConfig, *, tokens: int, length: float) -> float:
    """Floating-point operations of a forward pass over `tokens` tokens, with attention.

    A token attends to `length` keys on average (T / 2 in causal rows of T), but to no more than the
    window of the layer. A multiply-add counts as 2. A training step costs 3 times as much. Only the
    experts chosen for a token count.
    """
    c = config
    # Looking up embeddings costs no operations; a tied table is multiplied once, as the head.
    matmuls = num_active_parameters(config) - c.vocab_size * c.embed_dim * (not c.tie_embeddings)
    keys = sum(min(length, window or length) for window in c.layer_windows)
    attention = 2 * c.num_heads * c.head_dim * keys
    return 2.0 * tokens * (matmuls + attention)
