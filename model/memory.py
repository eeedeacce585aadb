"""What a model holds and sends on one device: exact for arrays, estimated for the rest.

`array_bytes` and `cache_bytes` are what JAX allocates. Activations follow from the remat policy and
what each layer's backward pass reads; the temporaries that XLA adds or fuses away are its own.
Every function takes a mesh, which may be abstract.
"""

import dataclasses
import math
from typing import Any

import jax

from elenchus.model import sharding
from elenchus.model.attention import SharedPrompt, query_block
from elenchus.model.config import ModelConfig
from elenchus.model.kv_cache import CacheDtype, entry_bytes
from elenchus.model.weights import CONTRACT

Mesh = jax.sharding.Mesh | jax.sharding.AbstractMesh
GIB = 2**30


def abstract_mesh(shape: tuple[int, int, int]) -> jax.sharding.AbstractMesh:
    """A mesh of devices that need not be there."""
    axis_types = (jax.sharding.AxisType.Auto,) * len(sharding.AXES)
    return jax.sharding.AbstractMesh(shape, sharding.AXES, axis_types=axis_types)


def array_bytes(tree: Any, mesh: Mesh) -> int:
    """Bytes of one device's share of a tree of parameters, as model/sharding.py splits it.

    Raises ValueError where a dimension does not divide over the mesh.
    """
    places = jax.tree.leaves(sharding.shardings(tree, mesh))
    leaves = jax.tree.leaves(tree)
    return sum(
        -(-math.prod(place.shard_shape(x.shape)) * jax.dtypes.itemsize_bits(x.dtype) // 8)
        for x, place in zip(leaves, places, strict=True)
    )


def split(size: int, parts: int) -> int:
    """What one of `parts` devices holds of a dimension: all of it where it does not divide."""
    return size // parts if size % parts == 0 else size


def itemsize(dtype: str) -> int:
    return jax.numpy.dtype(dtype).itemsize


@dataclasses.dataclass(frozen=True)
class Local:
    """One device's share of a model's dimensions."""

    heads: int
    kv_heads: int
    mlp: int
    vocab: int


def local(config: ModelConfig, mesh: Mesh) -> Local:
    parts = mesh.shape['tensor']
    sizes = (config.num_heads, config.num_kv_heads, config.mlp_dim, config.vocab_size)
    return Local(*(split(size, parts) for size in sizes))


def local_rows(rows: int, mesh: Mesh) -> int:
    """Rows of a batch that one device holds."""
    return split(rows, mesh.shape['data'] * mesh.shape['fsdp'])


def cache_bytes(
    config: ModelConfig, *, batch: int, length: int, mesh: Mesh, dtype: CacheDtype = 'model'
) -> int:
    """Bytes of one device's share of model.cache.init_cache."""
    kv_heads = local(config, mesh).kv_heads
    entries = 2 * config.num_layers * local_rows(batch, mesh) * kv_heads * length
    return entries * entry_bytes(config, dtype)


def matmul_outputs(config: ModelConfig, mesh: Mesh, targets: tuple[str, ...] = ()) -> int:
    """Elements a token that the projections of one layer make; adapters make theirs once more."""
    here = local(config, mesh)
    sizes = {
        'query': here.heads * config.head_dim,
        'key': here.kv_heads * config.head_dim,
        'value': here.kv_heads * config.head_dim,
        'out': config.embed_dim,
        'gate': here.mlp,
        'up': here.mlp,
        'down': config.embed_dim,
    }
    return sum(sizes[target] * (1 + (target in targets)) for target in CONTRACT)


def layer_bytes(config: ModelConfig, *, length: int, mesh: Mesh, targets=()) -> dict[str, float]:
    """Bytes a token that one layer's backward pass reads, by when they may be recomputed.

    'carry' is the layer's input, 'matmuls' what 'dots' keeps, 'rest' all else, 'scores' the
    attention weights of a query against `length` keys, in float32 and, if that is another dtype,
    cast. Of a kernel, 'scores' are the rows' log-sums and, with cuDNN, its mask and the gradient.
    """
    here, size, D = local(config, mesh), itemsize(config.dtype), config.embed_dim
    heads, kv_heads = here.heads * config.head_dim, here.kv_heads * config.head_dim
    norms = 2 * (2 * 4 + size) * D + (8 * (heads + kv_heads) if config.qk_norm else 0)
    scores = {
        'einsum': (4 if size == 4 else 4 + size) * here.heads * length,
        'splash': 4 * here.heads,
        'cudnn': 4 * here.heads + 2 * size * length,
    }
    return {
        'carry': size * D,
        'matmuls': size * matmul_outputs(config, mesh, targets),
        'rest': norms + size * (3 * heads + 2 * kv_heads + 2 * D + 2 * here.mlp),
        'scores': scores[config.attention],
    }


def activation_bytes(
    config: ModelConfig,
    *,
    rows: int,
    length: int,
    mesh: Mesh,
    targets: tuple[str, ...] = (),
    shared: SharedPrompt | None = None,
) -> dict[str, int]:
    """Estimated bytes of one device in a training step of `rows` rows of `length` at once.

    'kept' lives from the forward to the backward pass. 'layer or loss' is the larger of two that
    are not there together: a layer being differentiated, what is recomputed of it or sliced out of
    a scan's stacks and the cotangents of its MLP or attention; and a chunk of the loss. Where
    prompts are `shared`, attention has each sample after its own.
    """
    tokens, here = local_rows(rows, mesh) * length, local(config, mesh)
    samples, keys = (1, length) if shared is None else (shared.samples, shared.sample_length)
    part = layer_bytes(config, length=keys, mesh=mesh, targets=targets)
    if config.attention == 'einsum':
        part['scores'] *= (keys + query_block(keys)) / (2 * keys)
    part['scores'] *= samples * keys / length
    everything = sum(part.values())
    kept = {
        'none': everything,
        'dots': part['carry'] + part['matmuls'],
        'full': part['carry'],
    }[config.remat]
    size, chunk = itemsize(config.dtype), min(config.logits_chunk, keys)
    ends = (4 + 4 * size) * config.embed_dim  # looked-up rows in float32; the loss's own copies
    logits = 3 * 4 * samples * local_rows(rows, mesh) * chunk * here.vocab
    copied = everything if config.remat != 'none' or config.scan_layers else 0
    cotangents = max(3 * size * here.mlp, part['scores'])
    return {
        'kept': int(tokens * (config.num_layers * kept + ends)),
        'layer or loss': max(int(tokens * (copied + cotangents)), logits),
    }


def gathered_bytes(config: ModelConfig, *, mesh: Mesh, trained: bool) -> int:
    """Estimated bytes of what is put together from all 'fsdp' shards while it is used.

    The embedding, the head and their gradients, and two layers' matrices, one of them fetched
    ahead. Nothing where there is one shard.
    """
    if mesh.shape['fsdp'] == 1:
        return 0
    table = local(config, mesh).vocab * config.embed_dim
    size, stored = itemsize(config.dtype), itemsize(config.param_dtype)
    layer = layer_parameters(config) // mesh.shape['tensor']
    gradients = (4 * table if config.tie_embeddings else (4 + size) * table) if trained else 0
    return table * (stored + size) + gradients + 2 * layer * size + (layer * size if trained else 0)


def layer_parameters(config: ModelConfig) -> int:
    """Parameters of one layer's matrices."""
    attention = config.embed_dim * config.head_dim * 2 * (config.num_heads + config.num_kv_heads)
    return attention + 3 * config.embed_dim * config.mlp_dim


def collective_bytes(
    config: ModelConfig,
    *,
    rows: int,
    length: int,
    num_microbatches: int,
    trained_bytes: int,
    mesh: Mesh,
) -> dict[str, int]:
    """Bytes that one device sends in a training step, by mesh axis and collective.

    fsdp: matrices are gathered once forward and once backward for every microbatch, in the dtype of
    activations, the embedding as stored; gradients are scattered once a microbatch. tensor: one
    sum of [B, T, D] after attention and after the MLP, forward and backward, and forward again
    under remat 'full'. data: gradients are summed once. `trained_bytes` are one device's share of
    the gradients. A ring moves (n - 1) / n of the whole; a sum is a scatter and a gather.
    """
    size, stored = itemsize(config.dtype), itemsize(config.param_dtype)
    data, fsdp, tensor = (mesh.shape[axis] for axis in sharding.AXES)
    table = config.vocab_size * config.embed_dim // tensor
    matrices = config.num_layers * layer_parameters(config) // tensor
    once = matrices * size + table * (stored + size)
    activations = local_rows(rows, mesh) * length * config.embed_dim * size
    sums = config.num_layers * (6 if config.remat == 'full' else 4)
    ring = lambda n: (n - 1) / n  # noqa: E731
    return {
        'fsdp all-gather': int(2 * num_microbatches * once * ring(fsdp)),
        'fsdp reduce-scatter': int(num_microbatches * trained_bytes * fsdp * ring(fsdp)),
        'tensor all-reduce': int(2 * sums * activations * ring(tensor)),
        'data all-reduce': int(2 * num_microbatches * trained_bytes * ring(data)),
    }
