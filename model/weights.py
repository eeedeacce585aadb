"""What a projection may contract with besides an array: a quantized array, a low-rank sum."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import jax
import qwix
from flax import nnx

if TYPE_CHECKING:
    from elenchus.model.transformer import Transformer

CONTRACT = {'query': 1, 'key': 1, 'value': 1, 'out': 2, 'gate': 1, 'up': 1, 'down': 1}
"""The matrices of a block, and how many of their leading dimensions are the input's."""

Quantize = Literal['none', 'int8', 'nf4']
TRANSPOSED_FROM = 1 << 17  # weights; transposing the input of a smaller matrix takes longer
NF4_BLOCK = 64  # weights of one input's slice that share a scale. Source: arXiv 2305.14314


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRank:
    """base + scale * a @ b, never summed. Source: arXiv 2106.09685."""

    base: jax.Array | qwix.QArray  # [*in, *out]
    a: jax.Array  # [*in, r]
    b: jax.Array  # [r, *out]
    scale: float = dataclasses.field(metadata={'static': True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    def __getitem__(self, index) -> 'LowRank':
        assert index is ..., index
        return self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Transposed:
    """A matrix held [*lead, out, in]: on a CPU a product of few rows is faster from the left."""

    array: jax.Array
    shape: tuple[int, ...] = dataclasses.field(metadata={'static': True})  # [*in, *out]

    def __getitem__(self, index) -> 'Transposed':
        assert index is ..., index
        return self


def dense(weight: jax.Array | qwix.QArray, dtype) -> jax.Array:
    """The array that a weight stands for; scales are applied in float32."""
    if isinstance(weight, qwix.QArray):
        weight = qwix.dequantize(weight.astype('float32'))
    return weight.astype(dtype)


def is_quantized(model: 'Transformer') -> bool:
    """Whether any of a model's matrices is."""
    is_one = lambda x: isinstance(x, qwix.QArray)  # noqa: E731
    return any(map(is_one, jax.tree.leaves(model, is_leaf=is_one)))


def replace_weights(
    model: 'Transformer', new: Callable[[str, nnx.Param], Any], *, targets=tuple(CONTRACT)
) -> 'Transformer':
    """A model with new(target, param) in its blocks; it shares all other arrays with `model`."""
    model = jax.tree.map(lambda x: x, model)
    for target in targets:
        holder = block_part(model, target)
        param = getattr(holder, target)
        setattr(holder, target, nnx.Param(new(target, param), **param.get_metadata()))
    return model


def transposed(model: 'Transformer') -> 'Transformer':
    """The model with its large matrices held Transposed, those of a block and the head."""

    def of_weight(weight, contract: int):
        if isinstance(weight, LowRank):
            return dataclasses.replace(weight, base=of_weight(weight.base, contract))
        layers, *shape = weight.shape
        if isinstance(weight, qwix.QArray) or math.prod(shape) < TRANSPOSED_FROM:
            return weight
        inner = math.prod(shape[:contract])
        return Transposed(weight.reshape(layers, inner, -1).swapaxes(1, 2), tuple(shape))

    model = replace_weights(model, lambda target, p: of_weight(p[...], CONTRACT[target]))
    if model.embedding.size >= TRANSPOSED_FROM:
        head = model.head[...].T if hasattr(model, 'head') else model.embedding[...]
        model.head = nnx.Param(Transposed(head, head.shape[::-1]), axes=('embed', 'vocab'))
    return model


def block_part(model: 'Transformer', target: str) -> nnx.Module:
    """The module of the stacked blocks that holds a target."""
    blocks = model.blocks
    return blocks.attention if hasattr(blocks.attention, target) else blocks.mlp


def quantize(model: 'Transformer', kind: Quantize) -> 'Transformer':
    """The model with its blocks' matrices quantized; embeddings, norms and biases stay.

    So do adapters, whose base is quantized, and what is quantized already. 'int8' has one scale for
    each output, 'nf4' one for each NF4_BLOCK inputs of an output; scales are float32. Sources:
    arXiv 2208.07339 (absmax), arXiv 2305.14314 (NF4).
    """
    return model if kind == 'none' else _quantized(model, kind)


@functools.partial(jax.jit, static_argnames='kind')
def _quantized(model: 'Transformer', kind: Quantize) -> 'Transformer':
    def of_param(target: str, param: nnx.Param) -> LowRank | qwix.QArray:
        weight = param[...]
        if isinstance(weight, LowRank):
            return dataclasses.replace(weight, base=of_weight(target, weight.base))
        return of_weight(target, weight)

    def of_weight(target: str, weight: jax.Array | qwix.QArray) -> qwix.QArray:
        if isinstance(weight, qwix.QArray):
            return weight
        inner = range(1, 1 + CONTRACT[target])  # after the layers
        tiled = {inner[-1]: math.gcd(weight.shape[inner[-1]], NF4_BLOCK)} if kind == 'nf4' else {}
        shared = inner if kind == 'int8' else inner[-1:]
        channels = tuple(dim for dim in range(weight.ndim) if dim not in shared)
        return qwix.quantize(
            weight.astype('float32'),
            'nf4' if kind == 'nf4' else 'int8',
            channelwise_axes=channels,
            tiled_axes=tiled,
        )

    return replace_weights(model, of_param)
