"""The sampler's mesh, and its copy of the weights.

The trainer splits weights over 'fsdp', so that no device has the whole model. A decoding step would
have to gather them for every token. Therefore the sampler arranges the same devices as a mesh of
'data' and 'tensor' only, and replicates the weights over 'data'. `Engine.generate` makes this copy
once and drops it when it returns.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType

from elenchus.model import (
    block_weights,
    head_layout,
    platforms,
    projection,
    quantization,
    sharding,
)
from elenchus.model.config import ModelConfig
from elenchus.model.placement import Placement
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.calls import Call, execute
from elenchus.sampling.engine.shapes import EngineSettings


class Change(NamedTuple):
    """What makes the sampler's weights of a model's."""

    config: ModelConfig  # of the result
    quantize: quantization.Quantization
    shards: int  # of the axis 'tensor'


class SamplerWeights(NamedTuple):
    """The weights as prefill and as decoding read them; often one and the same model."""

    prefill: Transformer
    decode: Transformer


def sampler_placement(settings: EngineSettings) -> Placement:
    """Returns the sampler's placement on the devices of the mesh in force.

    Devices keep their order, so that one program can move weights from the trainer's placement.

    Raises ValueError if `tensor_shards` does not divide the devices.
    """
    trainer = sharding.current_mesh()
    return _merged(trainer, sampler_shape(trainer.shape, settings.tensor_shards))


def sampler_shape(trainer_shape: dict[str, int], tensor_shards: int) -> tuple[int, int, int]:
    """Returns the sampler's mesh shape: `tensor_shards` (0: the trainer's), the rest is 'data'."""
    size, tensor = 1, tensor_shards or trainer_shape['tensor']
    for count in trainer_shape.values():
        size *= count
    if size % tensor:
        nearest = min(
            (n for n in range(1, size + 1) if size % n == 0), key=lambda n: abs(n - tensor)
        )
        raise ValueError(
            f'sampling.engine.tensor_shards={tensor} must divide the {size} devices of the mesh; '
            f'nearest: {nearest}'
        )
    return size // tensor, 1, tensor


def check_sampler(model: ModelConfig, settings: EngineSettings, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError, naming the field, if the sampler does not fit its devices.

    `mesh` is the trainer's, which may be abstract.
    """
    if model.numerics == 'canonical' and mesh.size > 1:
        raise ValueError(
            f"model.numerics='canonical' is for one device, but the mesh has {mesh.size}, and sums "
            "over devices have another order; nearest: 'fast'"
        )
    if model.attention == 'cudnn' and settings.dtype == 'float32':
        raise ValueError(
            "sampling.engine.dtype='float32' has no model.attention='cudnn', which prefill uses; "
            "nearest: 'bfloat16'"
        )
    for name, own in (('cache_dtype', 'model'), ('quantize', 'none'), ('dtype', 'model')):
        value = getattr(settings, name)
        if model.numerics == 'canonical' and value not in (own, model.dtype):
            raise ValueError(
                f'sampling.engine.{name}={value!r} rounds otherwise than the trainer, which '
                f"model.numerics='canonical' excludes; nearest: {own!r}"
            )
    data, _, tensor = sampler_shape(mesh.shape, settings.tensor_shards)
    settings.check_shards(data)
    for name in ('vocab_size', 'mlp_dim'):
        size = getattr(model, name)
        if size % tensor:
            nearest = max(n for n in range(1, tensor + 1) if tensor % n == 0 and size % n == 0)
            raise ValueError(
                f'sampling.engine.tensor_shards={tensor} does not divide model.{name}={size}; '
                f'nearest: {nearest}'
            )


@functools.cache
def _merged(mesh: jax.sharding.Mesh, shape: tuple[int, int, int]) -> Placement:
    if mesh.axis_sizes == shape:
        return Placement(mesh)
    axis_types = (AxisType.Auto,) * len(sharding.AXES)
    return Placement(
        jax.sharding.Mesh(mesh.devices.reshape(shape), sharding.AXES, axis_types=axis_types)
    )


def sampler_config(config: ModelConfig, settings: EngineSettings, here: Placement) -> ModelConfig:
    """Returns the config of the model that `place_weights` makes."""
    if settings.dtype != 'model':
        config = dataclasses.replace(config, dtype=settings.dtype)
    return head_layout.divided_heads(config, here.mesh.shape['tensor'])


def place_weights(
    model: Transformer, settings: EngineSettings, here: Placement, *, call: Call = execute
) -> SamplerWeights:
    """Returns the sampler's weights: quantized, in its dtype, with its heads, where they belong.

    Matrices are stored in the dtype of activations, in which every product reads them, so the copy
    changes no result. Norms keep their dtype: they multiply in float32.

    On several devices, both are one copy with an array for each layer. On one CPU, decoding (and in
    bfloat16 prefill too) reads such a copy with large matrices transposed: a product of few rows is
    up to 1.8 times faster with the matrix on the left, and XLA would copy slices of stacked weights
    at every step. On one other device, nothing is copied that is in its dtype.
    """
    change = Change(
        sampler_config(model.config, settings, here),
        settings.quantize,
        shards=here.mesh.shape['tensor'],
    )
    if here.mesh.size > 1:
        placed = call('weights of the sampler', _move_program(model, change, here), model)
        return SamplerWeights(placed, placed)
    if settings.quantize != 'none':
        kind = settings.quantize
        model = call('quantize', quantization.quantize_matrices, model, kind=kind)
    if model.config != change.config or _needs_cast(model):
        model = call('weights of the sampler', _convert_alone, model, change=change)
    if platforms.target_platform() != 'cpu':
        return SamplerWeights(model, model)
    decode = call('decoding layout', _decoding_layout, model)
    # XLA for CPU reads slices of stacked bfloat16 weights from a float32 copy of them all.
    return SamplerWeights(decode if model.config.dtype == 'bfloat16' else model, decode)


@jax.jit
def _decoding_layout(model: Transformer) -> Transformer:
    # A product with a transposed matrix adds in another order.
    is_fast = model.config.numerics == 'fast'
    return (block_weights.transpose_weights(model) if is_fast else model).unstacked()


def _convert(model: Transformer, *, change: Change) -> Transformer:
    model = quantization.quantize(model, change.quantize)
    config = dataclasses.replace(model.config, dtype=change.config.dtype)
    model = projection.cast_matrices(head_layout.with_config(model, config), config.dtype)
    return head_layout.divide_heads(model, change.shards)


_convert_alone = jax.jit(_convert, static_argnames='change')


def _needs_cast(model: Transformer) -> bool:
    leaves = jax.tree_util.tree_leaves_with_path(model)
    return any(
        x.dtype != model.config.dtype for path, x in leaves if not projection.keeps_dtype(path)
    )


def _move_program(model: Transformer, change: Change, here: Placement):
    """The program that changes a model where it lies and moves it, with an array for each layer."""
    leaves, structure = jax.tree.flatten(model)
    origins = tuple(x.sharding for x in leaves)
    key = structure, tuple((x.shape, x.dtype) for x in leaves), origins, change, here
    if key not in _moves:

        def move(model):
            if change.quantize == 'none':
                # What travels is in the sampler's dtype: the cast comes first, where weights lie.
                cast = jax.tree.leaves(projection.cast_matrices(model, change.config.dtype))
                model = jax.tree.unflatten(structure, map(_hold, cast, origins))
            return _convert(model, change=change).unstacked()

        result = jax.eval_shape(move, model)
        _moves[key] = jax.jit(move, out_shardings=here.shardings(result))
    return _moves[key]


def _hold(x: jax.Array, origin) -> jax.Array:
    is_split = isinstance(origin, jax.sharding.NamedSharding)
    return jax.lax.with_sharding_constraint(x, origin) if is_split else x


_moves: dict[Any, Any] = {}
"""Results of `_move_program`, by the shapes and shardings of what they move."""
