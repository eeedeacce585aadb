"""Attention: one einsum everywhere, and the kernels that JAX ships for tokens among themselves.

'splash' is the block-sparse Pallas kernel for TPUs, 'cudnn' cuDNN's fused attention for GPUs; both
have their own backward pass and never hold scores. Off their hardware they are computed by Pallas'
interpreter and by XLA, for tests and dry runs; `check_backend` keeps runs from it.
Dimensions as in model/layers.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention

from elenchus.model import sharding
from elenchus.model.config import ModelConfig

BACKENDS = {'splash': 'tpu', 'cudnn': 'gpu'}
LANES = 128
"""Lengths are padded to a multiple of it: the splash kernel's blocks of keys have no other."""
BLOCKS = (512, 256, 128)
"""Sizes of splash's blocks, the largest that divides the length. Source: MaxText's base.yml."""


class SharedPrompt(NamedTuple):
    """How a row holds a prompt once and, after it, several samples that continue it.

    `prompt` positions, padded in front, then `response` of each sample, padded behind.
    """

    samples: int
    prompt: int
    response: int

    @property
    def length(self) -> int:
        """Of a row."""
        return self.prompt + self.samples * self.response

    @property
    def sample_length(self) -> int:
        """Of one sample with its prompt."""
        return self.prompt + self.response

    def apart(self, x: jax.Array) -> jax.Array:
        """[B, length, ...] -> [B samples, sample_length, ...]: each sample after its prompt."""
        prompt, responses = jnp.split(x, [self.prompt], axis=1)
        responses = responses.reshape(-1, self.response, *x.shape[2:])
        return jnp.concatenate([jnp.repeat(prompt, self.samples, axis=0), responses], axis=1)

    def together(self, x: jax.Array) -> jax.Array:
        """The inverse of `apart`; the prompt is the first sample's."""
        prompt, responses = jnp.split(x, [self.prompt], axis=1)
        responses = responses.reshape(-1, self.samples * self.response, *x.shape[2:])
        return jnp.concatenate([prompt[:: self.samples], responses], axis=1)


class View(NamedTuple):
    """What a layer sees of the positions: the same for all layers of one window.

    A mask, or what kernels make one of: segments and a window. Of several windows, `kind` says
    which. Where samples share a prompt, mask and segments are of the samples apart.
    """

    rotary: tuple[jax.Array, jax.Array]  # of layers.rotary_table
    mask: jax.Array | None  # [B, T, S], True where attended; None for a kernel
    segments: jax.Array | None = None  # [B, T]; None: a row is one segment
    windows: tuple[int, ...] = (0,)
    kind: jax.Array | int = 0  # which of the windows
    shared: SharedPrompt | None = None


def choose(views: Sequence[View], kind: jax.Array) -> View:
    """views[kind], where kind is known on the device only."""
    if len(views) == 1:
        return views[0]
    select = lambda *leaves: jax.lax.select_n(kind, *leaves)  # noqa: E731
    rotary, mask = jax.tree.map(select, *((view.rotary, view.mask) for view in views))
    windows = tuple(window for view in views for window in view.windows)
    return View(rotary, mask, views[0].segments, windows, kind, views[0].shared)


def soft_cap(x: jax.Array, cap: float) -> jax.Array:
    """cap * tanh(x / cap), which stays within (-cap, cap); x itself where cap is 0."""
    return cap * jnp.tanh(x / cap) if cap else x


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, *, scale: float, cap: float
) -> jax.Array:
    """Grouped-query attention with float32 softmax of scaled and soft-capped scores.

    query [B, T, N, H]; key and value [B, K, S, H] (1.4 times faster to decode from than
    [B, S, K, H]); mask [B, T, S], True where attended. Returns [B, T, N, H].
    """
    B, T, N, H = query.shape
    grouped = _by_key_head(query * scale, key.shape[1])
    scores = jnp.einsum('BKGTH,BKSH->BKGTS', grouped, key, preferred_element_type='float32')
    weights, total = _weights(scores, mask[:, None, None], cap=cap)
    out = jnp.einsum('BKGTS,BKSH->BKGTH', weights.astype(value.dtype), value)
    out = out / total.astype(out.dtype)
    return out.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def _weights(scores: jax.Array, mask: jax.Array, *, cap: float) -> tuple[jax.Array, jax.Array]:
    """(softmax of capped scores times its divisor, the divisor), over the last dimension."""
    scores = soft_cap(scores, cap) + jnp.where(mask, 0.0, -1e30)
    # Without the barrier XLA on CPU reduces the maximum again in every fusion of the backward pass.
    fixed = jax.lax.optimization_barrier(jax.lax.stop_gradient(scores))
    weights = jnp.exp(scores - fixed.max(axis=-1, keepdims=True))
    return weights, weights.sum(axis=-1, keepdims=True)


def attend_causal(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, *, scale: float, cap: float
) -> jax.Array:
    """`attend` where no query attends to a later key: in blocks of queries, without those keys.

    Four blocks leave out 3/8 of the scores.
    """
    T = query.shape[1]
    size = query_block(T)
    parts = [
        attend(
            query[:, end - size : end],
            key[:, :, :end],
            value[:, :, :end],
            mask[:, end - size : end, :end],
            scale=scale,
            cap=cap,
        )
        for end in range(size, T + 1, size)
    ]
    return jnp.concatenate(parts, axis=1)


def attend_shared(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    view: View,
    *,
    scale: float,
    cap: float,
) -> jax.Array:
    """`attend_causal` where samples share a prompt: it attends to itself once.

    Its keys are one matrix to all samples' queries. Shapes of the rows together, [B, T, N, H].
    """
    shared, K, N = view.shared, key.shape[1], query.shape[2]
    n, prompt, length = shared.samples, shared.prompt, shared.response
    mask = view.mask.reshape(-1, n, *view.mask.shape[1:])
    of_prompt = attend_causal(
        query[:, :prompt],
        *(x[:, :, :prompt] for x in (key, value)),
        mask[:, 0, :prompt, :prompt],
        scale=scale,
        cap=cap,
    )
    B, _, _, H = query.shape
    grouped = _by_key_head(query[:, prompt:] * scale, K).reshape(B, K, N // K, n, length, H)
    own_key, own_value = (x[:, :, prompt:].reshape(B, K, n, length, H) for x in (key, value))
    size, parts = query_block(length), []
    for end in range(size, length + 1, size):
        own, seen = grouped[..., end - size : end, :], slice(None, end)
        scores = (
            jnp.einsum(
                'BKGnTH,BKSH->BKGnTS', own, key[:, :, :prompt], preferred_element_type='float32'
            ),
            jnp.einsum(
                'BKGnTH,BKnSH->BKGnTS', own, own_key[..., seen, :], preferred_element_type='float32'
            ),
        )
        visible = mask[:, None, None, :, prompt + end - size : prompt + end, : prompt + end]
        weights, total = _weights(jnp.concatenate(scores, axis=-1), visible, cap=cap)
        weights = weights.astype(value.dtype)
        out = jnp.einsum('BKGnTS,BKSH->BKGnTH', weights[..., :prompt], value[:, :, :prompt])
        out += jnp.einsum('BKGnTS,BKnSH->BKGnTH', weights[..., prompt:], own_value[..., seen, :])
        parts.append(out / total.astype(out.dtype))
    out = jnp.concatenate(parts, axis=-2).transpose(0, 3, 4, 1, 2, 5)
    return jnp.concatenate([of_prompt, out.reshape(B, n * length, N, H)], axis=1)


def query_block(length: int) -> int:
    """How many of `length` queries `attend_causal` takes at once."""
    return length // 4 if length >= 128 and length % 4 == 0 else length


def attend_to_each_other(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    view: View,
    *,
    config: ModelConfig,
    scale: float,
) -> jax.Array:
    """Attention of tokens to earlier ones, by `config.attention`; the arguments of `attend`."""
    cap, shared = config.attention_soft_cap, view.shared
    if config.attention == 'einsum' and shared is not None:
        return attend_shared(query, key, value, view, scale=scale, cap=cap)
    if config.attention == 'einsum':
        return attend_causal(query, key, value, view.mask, scale=scale, cap=cap)
    if shared is not None:
        key, value = (shared.apart(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (key, value))
        query, view = shared.apart(query), view._replace(shared=None)
        out = attend_to_each_other(query, key, value, view, config=config, scale=scale)
        return shared.together(out)
    kernel = {'splash': splash, 'cudnn': cudnn}[config.attention]
    B, T, N, H = query.shape
    grouped = _by_key_head(_lengthened(query, axis=1), key.shape[1])
    arrays = [grouped, _lengthened(key, axis=2), _lengthened(value, axis=2)]
    axes = [('batch', 'kv_heads', None, None, None)[: x.ndim] for x in arrays]
    if view.segments is not None:
        arrays.append(_lengthened(view.segments, axis=1))
        axes.append(('batch', None))

    def of_window(window: int):
        def own_rows_and_heads(query, *others):
            B, _, _, T, H = query.shape
            out = kernel(query.reshape(B, -1, T, H), *others, window=window, scale=scale, cap=cap)
            return out.reshape(query.shape)

        return lambda *arrays: sharding.on_shards(own_rows_and_heads, arrays, axes)

    out = jax.lax.switch(view.kind, [of_window(window) for window in view.windows], *arrays)
    return out.transpose(0, 3, 1, 2, 4).reshape(B, -1, N, H)[:, :T]


def splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array | None = None,
    *,
    window: int,
    scale: float,
    cap: float,
) -> jax.Array:
    """Causal attention by the splash kernel.

    query [B, N, T, H], key and value [B, K, T, H], segments [B, T]; T is a multiple of LANES.
    Returns [B, N, T, H].
    """
    N, T = query.shape[1:3]
    if 0 < window < T:
        mask = splash_attention.LocalMask((T, T), (window - 1, 0), offset=0)
    else:
        mask = splash_attention.CausalMask((T, T))
    kernel = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * N),
        block_sizes=_block_sizes(T),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=cap or None,
        interpret=backend() != 'tpu',
    )
    ids = None if segments is None else splash_attention.SegmentIds(segments, segments)
    return jax.vmap(kernel)(query * scale, key, value, segment_ids=ids)


def cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array | None = None,
    *,
    window: int,
    scale: float,
    cap: float,
) -> jax.Array:
    """Causal attention by cuDNN; the arguments of `splash`.

    Segments become a mask [B, 1, T, T], of which cuDNN is given a sum and makes a gradient. The
    window is then in the mask too: not every cuDNN takes both (its frontend's checks of SDPA).
    """
    assert not cap, cap
    mask, near = None, (window - 1, 0) if window else None
    if segments is not None:
        mask = segments[:, None, :, None] == segments[:, None, None, :]
        if near:
            index = jnp.arange(query.shape[2])
            mask, near = mask & (index[:, None] - index < window), None
    out = jax.nn.dot_product_attention(
        *(x.swapaxes(1, 2) for x in (query, key, value)),
        mask=mask,
        scale=scale,
        is_causal=True,
        local_window_size=near,
        implementation='cudnn' if backend() == 'gpu' else 'xla',
    )
    return out.swapaxes(1, 2)


def backend() -> str:
    """What programs are made for: the devices of the mesh in force, which may be described only."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def check_backend(config: ModelConfig, platform: str) -> None:
    """Raises ValueError where a kernel does not run on 'cpu', 'gpu' or 'tpu'."""
    needed = BACKENDS.get(config.attention, platform)
    if needed != platform:
        raise ValueError(
            f'model.attention={config.attention!r} runs on {needed} only, not on {platform}; '
            "nearest: 'einsum'"
        )


def _by_key_head(query: jax.Array, num_kv_heads: int) -> jax.Array:
    """[B, T, N, H] -> [B, K, N / K, T, H], by the key head that a query head reads."""
    B, T, N, H = query.shape
    return query.reshape(B, T, num_kv_heads, N // num_kv_heads, H).transpose(0, 2, 3, 1, 4)


def _lengthened(x: jax.Array, *, axis: int) -> jax.Array:
    """x padded to a multiple of LANES along its positions; nothing attends to what is later."""
    rest = -x.shape[axis] % LANES
    return jnp.pad(x, [(0, rest if i == axis else 0) for i in range(x.ndim)])


def _block_sizes(length: int) -> splash_attention.BlockSizes:
    size = next(size for size in BLOCKS if length % size == 0)
    names = ('q', 'kv', 'kv_compute', 'q_dkv', 'kv_dkv', 'kv_dkv_compute', 'q_dq', 'kv_dq')
    return splash_attention.BlockSizes(**{f'block_{name}': size for name in names})
