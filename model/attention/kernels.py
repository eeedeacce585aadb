"""Causal attention of new tokens to each other by the fused kernels that JAX ships.

'splash' is the block-sparse Pallas kernel for TPUs, 'cudnn' is cuDNN's fused attention for GPUs.
Both have their own backward pass and never store the scores [T, S]. On other devices, Pallas'
interpreter and XLA compute the same values, for tests and dry runs only: `check_backend` raises for
real runs. Dimensions as in model/layers.py.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention

from elenchus.model import platforms, sharding
from elenchus.model.attention.einsum import group_by_kv_head
from elenchus.model.attention.inputs import AttentionInputs
from elenchus.model.config import ModelConfig

KERNELS = {'tpu': 'splash', 'gpu': 'cudnn'}
"""Platform -> the kernel that runs there alone; 'auto' selects it if it supports the model."""
LANES = 128
"""Lengths are padded to a multiple of it; the key blocks of splash are multiples of it too."""
BLOCKS = (512, 256, 128)
"""Block sizes of splash; the largest that divides the length is used. Source: MaxText base.yml."""


def attend_causal(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    inputs: AttentionInputs,
    config: ModelConfig,
    scale: float,
) -> jax.Array:
    """Causal attention by the kernel that `implementation` names, which must not be 'einsum'.

    Returns [B, T, N, H] for query [B, T, N, H] and key, value [B, K, S, H]; T < S with 'context'.
    """
    if inputs.shared is not None:
        return _attend_split(query, key, value, inputs=inputs, config=config, scale=scale)
    kernel = {'splash': splash, 'cudnn': cudnn}[implementation(config)]
    B, T, N, H = query.shape
    parts = _num_parts(T, key.shape[2])
    # Padding at the end changes no result: real queries never attend to later keys.
    grouped = group_by_kv_head(_pad_to_lanes(query, axis=1), key.shape[1])
    arrays = [grouped, _pad_to_lanes(key, axis=2), _pad_to_lanes(value, axis=2)]
    axes = [('batch', 'kv_heads', None, None, None)[: x.ndim] for x in arrays]
    arrays.append(jax.lax.axis_index(sharding.CONTEXT) if parts > 1 else jnp.int32(0))
    axes.append(())
    if inputs.segments is not None:
        arrays.append(_pad_to_lanes(inputs.segments, axis=1))
        axes.append(('batch', None))

    def branch(window: int):
        def attend_local(query, key, value, part, segments=None):
            B, _, _, T, H = query.shape
            out = kernel(
                query.reshape(B, -1, T, H),
                key,
                value,
                segments=segments,
                part=part,
                window=window,
                scale=scale,
                cap=config.attention_soft_cap,
            )
            return out.reshape(query.shape)

        # The partitioner cannot split a kernel: each device computes its own rows and heads.
        return lambda *arrays: sharding.apply_per_shard(attend_local, arrays, axes)

    # A window is compiled into the kernel, so layers of several windows in one scan need a switch.
    branches = [branch(window) for window in inputs.windows]
    out = jax.lax.switch(inputs.window_index, branches, *arrays)
    return out.transpose(0, 3, 1, 2, 4).reshape(B, -1, N, H)[:, :T]


def _attend_split(query, key, value, *, inputs, config, scale) -> jax.Array:
    """`attend_causal` for rows with a shared prompt.

    No kernel supports this layout, so each sample gets a copy of the prompt.
    """
    shared = inputs.shared
    key, value = shared.split_heads(key), shared.split_heads(value)
    query, inputs = shared.split_samples(query), inputs._replace(shared=None)
    out = attend_causal(query, key, value, inputs=inputs, config=config, scale=scale)
    return shared.join_samples(out)


def splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    segments: jax.Array | None = None,
    part: jax.Array | int = 0,
    window: int,
    scale: float,
    cap: float,
) -> jax.Array:
    """Causal attention by the splash kernel, which skips key blocks outside the window.

    query [B, N, T, H], key and value [B, K, S, H], segments [B, S]; T is a multiple of LANES.
    Queries are part number `part` of S // T. Returns [B, N, T, H].
    """
    (N, T), S = query.shape[1:3], key.shape[2]
    if 0 < window < S:
        mask = splash_attention.LocalMask((S, S), (window - 1, 0), offset=0)
    else:
        mask = splash_attention.CausalMask((S, S))
    kernel = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * N),
        block_sizes=_block_sizes(T),
        head_shards=1,
        q_seq_shards=S // T,
        attn_logits_soft_cap=cap or None,
        interpret=platforms.target_platform() != 'tpu',
        # Names the output and the log-sum-exp, so that remat can keep them: the backward pass then
        # does not run the forward kernel again.
        residual_checkpoint_name='attention',
    )
    # Segment ids instead of a dense mask [B, T, T], which would take the memory that is saved.
    ids = None
    if segments is not None:
        ids = splash_attention.SegmentIds(_part_of(segments, part, size=T, axis=1), segments)
    kernel = _kernel_of_part(kernel, part, parts=S // T)
    return jax.vmap(kernel)(query * scale, key, value, segment_ids=ids)


def cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    segments: jax.Array | None = None,
    part: jax.Array | int = 0,
    window: int,
    scale: float,
    cap: float,
) -> jax.Array:
    """Causal attention by cuDNN; arguments and result as in `splash`, but `cap` must be 0.

    Segments become a mask [B, 1, T, T], because cuDNN takes no segment ids. JAX adds it to the
    scores as a bias and computes a gradient for it.
    """
    assert not cap, cap
    mask, local_window = None, (window - 1, 0) if window else None
    T, S = query.shape[2], key.shape[2]
    # Some cuDNN versions refuse a mask together with a window (its frontend's SDPA checks).
    index = jnp.arange(S)
    distance = _part_of(index, part, size=T, axis=0)[:, None] - index
    if S > T:  # the kernel's own causal mask would place the queries at the first key
        mask = (distance >= 0)[None, None]
    if segments is not None:
        own = _part_of(segments, part, size=T, axis=1)
        same = own[:, None, :, None] == segments[:, None, None, :]
        mask = same if mask is None else mask & same
    if local_window and mask is not None:
        mask, local_window = mask & (distance < window), None
    out = jax.nn.dot_product_attention(
        *(x.swapaxes(1, 2) for x in (query, key, value)),
        mask=mask,
        scale=scale,
        is_causal=S == T,
        local_window_size=local_window,
        implementation='cudnn' if platforms.target_platform() == 'gpu' else 'xla',
    )
    return out.swapaxes(1, 2)


def _num_parts(length: int, total: int) -> int:
    """Number of parts of `length` that 'context' splits a sequence of `total` positions into."""
    parts = total // length
    if parts > 1 and length % LANES:
        raise ValueError(
            f'context={parts} splits rows of {total} tokens into parts of {length}, which the '
            f"kernels of model.attention='auto' need as multiples of {LANES}; nearest: "
            f'{max(1, round(length / LANES)) * LANES * parts} tokens'
        )
    return parts


def _part_of(x: jax.Array, part: jax.Array | int, *, size: int, axis: int) -> jax.Array:
    """Part number `part` of x along an axis."""
    if x.shape[axis] == size:
        return x
    return jax.lax.dynamic_slice_in_dim(x, part * size, size, axis)


def _kernel_of_part(kernel, part: jax.Array | int, *, parts: int):
    """Returns the splash kernel for one part of the queries.

    The kernel's mask info is [heads, query blocks, key blocks]; the parts are slices of the second
    dimension (`SplashAttentionKernel.manual_sharding_spec`).
    """
    if parts == 1:
        return kernel

    def slice_part(x, axis: int):
        return x if x is None else _part_of(x, part, size=x.shape[axis] // parts, axis=axis)

    def slice_info(info):
        return info and info._replace(
            data_next=slice_part(info.data_next, 1),
            mask_next=slice_part(info.mask_next, 1),
            block_mask=slice_part(info.block_mask, 1),
            q_sequence=slice_part(info.q_sequence, 0),
        )

    infos, settings = kernel.tree_flatten()
    return type(kernel).tree_unflatten(settings, tuple(map(slice_info, infos)))


def implementation(config: ModelConfig, platform: str | None = None) -> str:
    """Returns 'einsum', 'splash' or 'cudnn': what `config.attention` means on a platform.

    None is the platform that the current program is compiled for. 'auto' is the kernel of the
    platform where it supports the model, else the einsum.
    """
    if config.numerics == 'canonical':
        return 'einsum'
    if config.attention != 'auto':
        return config.attention
    kernel = KERNELS.get(platform or platforms.target_platform())
    # Splash does not pad heads: a width below LANES would need padded copies of all arrays.
    supported = {
        'splash': config.head_dim % LANES == 0,
        'cudnn': config.dtype == 'bfloat16'
        and not config.attention_soft_cap
        and config.head_dim % 8 == 0
        and config.head_dim <= 128,
    }
    return kernel if supported.get(kernel) else 'einsum'


def check_backend(config: ModelConfig, platform: str) -> None:
    """Raises ValueError if `config` cannot run on 'cpu', 'gpu' or 'tpu'."""
    needed = [name for name, kernel in KERNELS.items() if kernel == config.attention]
    if needed and platform not in needed:
        raise ValueError(
            f'model.attention={config.attention!r} runs on {needed[0]} only, not on {platform}; '
            "use 'einsum'"
        )
    if config.numerics == 'canonical' and platform != 'cpu':
        raise ValueError(
            f"model.numerics='canonical' is for CPUs, not for {platform}; nearest: 'fast'"
        )


def _pad_to_lanes(x: jax.Array, *, axis: int) -> jax.Array:
    """Pads x with zeros at the end of `axis` to a multiple of LANES."""
    padding = -x.shape[axis] % LANES
    return jnp.pad(x, [(0, padding if i == axis else 0) for i in range(x.ndim)])


def _block_sizes(length: int) -> splash_attention.BlockSizes:
    size = next(size for size in BLOCKS if length % size == 0)
    names = ('q', 'kv', 'kv_compute', 'q_dkv', 'kv_dkv', 'kv_dkv_compute', 'q_dq', 'kv_dq')
    return splash_attention.BlockSizes(**{f'block_{name}': size for name in names})
