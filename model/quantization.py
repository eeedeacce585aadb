"""Int8 and NF4 quantization of the matrices of a Transformer's blocks."""

import dataclasses
import math
from typing import Literal

import jax
import qwix
from flax import nnx

from elenchus.model.block_weights import replace_weights
from elenchus.model.config import ModelConfig
from elenchus.model.placement import pinned_jit
from elenchus.model.projection import NUM_INPUT_DIMS, LowRank
from elenchus.model.transformer import Transformer

Quantization = Literal['none', 'int8', 'nf4']
NF4_BLOCK = 64  # weights along the input that share one scale. Source: QLoRA (arXiv 2305.14314)


def is_quantized(model: Transformer) -> bool:
    """Returns True if any matrix of the model is quantized."""
    is_qarray = lambda x: isinstance(x, qwix.QArray)  # noqa: E731
    return any(map(is_qarray, jax.tree.leaves(model, is_leaf=is_qarray)))


def quantize(model: Transformer, kind: Quantization) -> Transformer:
    """Returns the model with the matrices of its blocks quantized.

    Embeddings, norms and biases keep their dtype; so do adapters, of which only the base is
    quantized. Matrices that are quantized already are unchanged. 'int8' has one float32 scale per
    output (arXiv 2208.07339, absmax), 'nf4' one per NF4_BLOCK inputs of an output
    (arXiv 2305.14314).
    """
    return model if kind == 'none' else quantize_matrices(model, kind=kind)


def check(kind: Quantization, config: ModelConfig, *, name: str) -> None:
    """Raises ValueError, with the name of the setting, if a model with experts is quantized.

    Its experts would stay as they are, and they are nearly all of it.
    """
    if kind != 'none' and config.num_experts:
        raise ValueError(
            f'{name}={kind!r} is not supported with model.num_experts={config.num_experts}; '
            "nearest: 'none'"
        )


@pinned_jit(static_argnames='kind')
def quantize_matrices(model: Transformer, *, kind: Quantization) -> Transformer:
    """The program of `quantize`; `kind` is not 'none'."""
    check(kind, model.config, name='quantize')

    # Only qwix's functions on arrays: `qwix.quantize_model` sets attributes of modules while they
    # run, which flax refuses for blocks inside a `lax.scan`.
    def quantize_param(target: str, param: nnx.Param) -> LowRank | qwix.QArray:
        weight = param[...]
        if isinstance(weight, LowRank):
            return dataclasses.replace(weight, base=quantize_weight(target, weight.base))
        return quantize_weight(target, weight)

    def quantize_weight(target: str, weight: jax.Array | qwix.QArray) -> qwix.QArray:
        if isinstance(weight, qwix.QArray):
            return weight
        inner = range(1, 1 + NUM_INPUT_DIMS[target])  # dimension 0 is the layer
        # A last input dimension that 64 does not divide gets the largest block that divides both.
        tiled = {inner[-1]: math.gcd(weight.shape[inner[-1]], NF4_BLOCK)} if kind == 'nf4' else {}
        shared = inner if kind == 'int8' else inner[-1:]
        channels = tuple(dim for dim in range(weight.ndim) if dim not in shared)
        return qwix.quantize(
            weight.astype('float32'),
            'nf4' if kind == 'nf4' else 'int8',
            channelwise_axes=channels,
            tiled_axes=tiled,
        )

    return replace_weights(model, quantize_param)
