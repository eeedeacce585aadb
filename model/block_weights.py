"""Replaces matrices of a Transformer's blocks by other kinds of weights (model/projection.py)."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import qwix
from flax import nnx

from elenchus.model.projection import NUM_INPUT_DIMS, LowRank, Transposed
from elenchus.model.transformer import Transformer

MIN_TRANSPOSED_SIZE = 1 << 17
"""Weights in a matrix; below this, transposing the input costs more than the layout saves."""


def matrices_of(model: Transformer) -> tuple[str, ...]:
    """Returns the matrices of NUM_INPUT_DIMS that the blocks have: without those of experts."""
    return tuple(name for name in NUM_INPUT_DIMS if hasattr(find_module(model, name), name))


def find_module(model: Transformer, target: str) -> nnx.Module:
    """Returns the module of the stacked blocks that has the matrix `target` as an attribute."""
    blocks = model.blocks
    return blocks.attention if hasattr(blocks.attention, target) else getattr(blocks, 'mlp', None)


def replace_weights(
    model: Transformer, new: Callable[[str, nnx.Param], Any], *, targets=None
) -> Transformer:
    """Returns a model with new(target, param) as its matrices; all other arrays are shared.

    Without `targets`, all matrices that `matrices_of` names are replaced.
    """
    model = jax.tree.map(lambda x: x, model)  # a copy of the tree, not of its arrays
    for target in matrices_of(model) if targets is None else targets:
        module = find_module(model, target)
        param = getattr(module, target)
        setattr(module, target, nnx.Param(new(target, param), **param.get_metadata()))
    return model


def transpose_weights(model: Transformer) -> Transformer:
    """Returns a model whose large matrices (of blocks, and the head) are `Transposed`.

    Quantized matrices stay as they are, and so do the factors of a low-rank sum.
    """

    def transpose(weight, contract: int):
        if isinstance(weight, LowRank):
            return dataclasses.replace(weight, base=transpose(weight.base, contract))
        layers, *shape = weight.shape
        if isinstance(weight, qwix.QArray) or math.prod(shape) < MIN_TRANSPOSED_SIZE:
            return weight
        inner = math.prod(shape[:contract])
        return Transposed(weight.reshape(layers, inner, -1).swapaxes(1, 2), tuple(shape))

    model = replace_weights(model, lambda target, p: transpose(p[...], NUM_INPUT_DIMS[target]))
    if model.embedding.size >= MIN_TRANSPOSED_SIZE:
        # A tied head is the embedding [V, D], which is already the transposed form of [D, V].
        head = model.head[...].T if hasattr(model, 'head') else model.embedding[...]
        model.head = nnx.Param(Transposed(head, head.shape[::-1]), axes=('embed', 'vocab'))
    return model
