"""Dequantizes fp8 weights with their scales; raises for all other quantized files.

Two kinds of fp8 files are read. Blocks: `weight_scale_inv` has one factor per block of the matrix
(DeepSeek-V3, Qwen3-FP8). Whole matrices or rows: `weight_scale` has one factor, or one per row
(compressed-tensors, FBGEMM). In both the weight is the stored value times its factor. Whether a
file is quantized is decided by its tensors: `quantization_config` may be left over from training.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from elenchus.model.huggingface import safetensors_files
from elenchus.model.huggingface.family import HFConfig
from elenchus.model.huggingface.safetensors_files import StoredTensor

CONFIG_KEYS = ('quantization_config', 'compression_config')
"""Keys of config.json that describe how its files are quantized."""

BLOCK = (128, 128)
"""Block of `weight_scale_inv` where config.json does not say it."""

_FP8 = {'F8_E4M3', 'F8_E5M2'}
_FLOATS = {'F64', *safetensors_files.DTYPES}
# Scales of activations and of the KV cache: weights do not depend on them.
_UNUSED = ('.input_scale', '.input_scale_ub', '.activation_scale', '.k_scale', '.v_scale')
# Suffixes of tensors beside a quantized weight -> the library that writes them.
_COMPANIONS = {
    '.absmax': 'bitsandbytes',
    '.quant_map': 'bitsandbytes',
    '.SCB': 'bitsandbytes',
    '.g_idx': 'gptq',
    '.qzeros': 'gptq or awq',
    '.qweight': 'gptq or awq',
    '.weight_packed': 'compressed-tensors',
    '_blocks': 'mxfp4',
}


def split_scales(
    stored: Mapping[str, StoredTensor], hf_config: HFConfig
) -> tuple[dict[str, StoredTensor], dict[str, StoredTensor]]:
    """Returns the weights by name, and the scale of each weight that is stored in fp8.

    Raises ValueError, naming a tensor and how it is quantized, for all other quantized files.
    """
    for name, tensor in stored.items():
        if tensor.dtype not in _FLOATS | _FP8 and not name.endswith(_UNUSED):
            raise ValueError(_refusal(tensor, stored, hf_config))
    scales = {}
    for name, tensor in stored.items():
        if tensor.dtype in _FP8:
            names = [f'{name}_{kind}' for kind in ('scale_inv', 'scale')]
            scale = next((stored[n] for n in names if n in stored), None)
            if scale is None:
                raise ValueError(
                    f'{tensor.path}: {name} has dtype {tensor.dtype}, but its scale is missing '
                    f'({names[0]} or {names[1]}); without it the values are no weights'
                )
            _check_shape(tensor, scale, hf_config)
            scales[name] = scale
    unused = {scale.name for scale in scales.values()}
    if scales:
        unused |= {name for name in stored if name.endswith(_UNUSED)}
    return {n: tensor for n, tensor in stored.items() if tensor.name not in unused}, scales


def _refusal(tensor: StoredTensor, stored: Mapping[str, StoredTensor], hf_config: HFConfig) -> str:
    """Returns the message for a tensor whose dtype is no float."""
    libraries = (
        library for end, library in _COMPANIONS.items() if any(n.endswith(end) for n in stored)
    )
    method = _method(hf_config) or next(libraries, None)
    kind = f'quantized ({method})' if method else 'integers without scales'
    return (
        f'{tensor.path}: {tensor.name} has dtype {tensor.dtype}: {kind}, which cannot be imported; '
        'use the files in bfloat16, float16 or float32, whatever --dtype is'
    )


def _method(hf_config: HFConfig) -> Any:
    """Returns the method that config.json names; None if it names none."""
    sections = [hf_config.get(key) for key in CONFIG_KEYS]
    named = (s for s in sections if isinstance(s, Mapping))
    return next((s['quant_method'] for s in named if s.get('quant_method')), None)


def _block_size(hf_config: HFConfig) -> tuple[int, int]:
    """Returns the rows and columns of a block. Raises ValueError if they are no positive pair."""
    section = hf_config.get(CONFIG_KEYS[0])
    size = section.get('weight_block_size') if isinstance(section, Mapping) else None
    if size is None:
        return BLOCK
    is_pair = isinstance(size, (list, tuple)) and len(size) == 2
    if not is_pair or any(type(n) is not int or n < 1 for n in size):
        raise ValueError(
            f'config.json: quantization_config.weight_block_size={size!r} must be two positive '
            f'integers; nearest: {list(BLOCK)}'
        )
    return tuple(size)


def _says_no_blocks(hf_config: HFConfig) -> bool:
    section = hf_config.get(CONFIG_KEYS[0])
    return isinstance(section, Mapping) and section.get('weight_block_size') is None


def _check_shape(tensor: StoredTensor, scale: StoredTensor, hf_config: HFConfig) -> None:
    """Raises ValueError if the shape of a scale does not fit that of its weight."""
    rows, *others = tensor.shape or (1,)
    shapes = [(), (1,), (1,) * len(tensor.shape)]
    if _is_by_block(scale) and len(tensor.shape) == 2:
        blocks = _num_blocks(tensor.shape, _block_size(hf_config))
        shapes = [blocks] if math.prod(blocks) > 1 else [*shapes, blocks]
        # In a file without blocks, this name may have one factor for the whole matrix.
        shapes += [(), (1,)] if _says_no_blocks(hf_config) else []
    else:
        shapes += [(rows,), (rows, *[1] * len(others))]
    if scale.shape not in shapes or scale.dtype not in _FLOATS:
        raise ValueError(
            f'{scale.path}: {scale.name} has shape {scale.shape} and dtype {scale.dtype}; the '
            f'scale of {tensor.name} {tensor.shape} must be floats of one of the shapes '
            f'{list(dict.fromkeys(shapes))}'
        )


def _is_by_block(scale: StoredTensor) -> bool:
    return scale.name.endswith('_inv')


def _num_blocks(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, ...]:
    return tuple(-(-n // b) for n, b in zip(shape, block, strict=True))


def read_weight(
    tensor: StoredTensor, scales: Mapping[str, StoredTensor], hf_config: HFConfig
) -> np.ndarray:
    """Reads one tensor, dequantized to float32 if it has a scale.

    `scales` and `hf_config` are those of `split_scales`.
    """
    values, scale = safetensors_files.read_tensor(tensor), scales.get(tensor.name)
    if scale is None:
        return values
    factors = safetensors_files.read_tensor(scale).astype(np.float32)
    block = _block_size(hf_config) if _is_by_block(scale) else None
    return dequantize(values, factors, block=block)


def dequantize(
    values: np.ndarray, factors: np.ndarray, *, block: tuple[int, int] | None
) -> np.ndarray:
    """Returns values times their factors, in float32.

    values [R, C]; factors: one number; with `block`, one a block
    ([ceil(R / block[0]), ceil(C / block[1])]); without, one a row ([R] or [R, 1]).
    """
    values = values.astype(np.float32)
    if factors.size == 1:
        return values * factors.reshape(())
    if block is None:
        return values * factors.reshape(-1, *[1] * (values.ndim - 1))
    for axis, size in enumerate(block):
        factors = np.repeat(factors, size, axis=axis)
    return values * factors[: values.shape[0], : values.shape[1]]
