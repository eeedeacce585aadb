"""Memory and traffic of a model on one device: exact for arrays, estimated for the rest.

`array_bytes` and `cache_bytes` are exactly what JAX allocates. Activations are estimated from the
remat policy and the arrays that the backward pass of a layer reads; temporaries that XLA adds or
removes are not counted. All functions take a mesh, which may be abstract: of devices that this
machine does not have. Results are bytes, or bytes per token, of one device.
"""

import dataclasses
import math
from typing import Any

import jax

from elenchus.model import kv_cache, sharding
from elenchus.model.attention import kernels
from elenchus.model.attention.einsum import query_block_size
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.config import ModelConfig, SavedArray, mlp_parameters, num_parameters
from elenchus.model.kv_cache import CacheDtype
from elenchus.model.projection import NUM_INPUT_DIMS

Mesh = jax.sharding.Mesh | jax.sharding.AbstractMesh
GIB = 2**30


def abstract_mesh(shape: tuple[int, ...]) -> jax.sharding.AbstractMesh:
    """Returns a mesh of devices that need not exist, of sizes as in `sharding.make_mesh`."""
    sizes, names = sharding.named_shape(shape)
    axis_types = (jax.sharding.AxisType.Auto,) * len(names)
    return jax.sharding.AbstractMesh(sizes, names, axis_types=axis_types)


def array_bytes(tree: Any, mesh: Mesh) -> int:
    """Bytes of one device's share of a tree of parameters.

    Raises ValueError if a dimension does not divide over the mesh.
    """
    shardings = jax.tree.leaves(sharding.shardings(tree, mesh))
    leaves = jax.tree.leaves(tree)
    return sum(
        -(-math.prod(leaf_sharding.shard_shape(x.shape)) * jax.dtypes.itemsize_bits(x.dtype) // 8)
        for x, leaf_sharding in zip(leaves, shardings, strict=True)
    )


def local_size(size: int, parts: int) -> int:
    """Size of a dimension on one of `parts` devices; it stays whole if it does not divide."""
    return size // parts if size % parts == 0 else size


def itemsize(dtype: str) -> int:
    """Bytes of one number."""
    return jax.numpy.dtype(dtype).itemsize


@dataclasses.dataclass(frozen=True)
class LocalSizes:
    """One device's share of a model's dimensions."""

    heads: int
    kv_heads: int
    mlp: int  # of all MLPs that may compute a token: the experts that it chose; a CPU exceeds this
    vocab: int


def local_sizes(config: ModelConfig, mesh: Mesh) -> LocalSizes:
    """Returns the dimensions that the 'tensor' axis splits, as they are on one device."""
    parts = mesh.shape['tensor']
    sizes = (config.num_heads, config.num_kv_heads, config.mlp_dim, config.vocab_size)
    heads, kv_heads, mlp, vocab = (local_size(size, parts) for size in sizes)
    if config.expert_parallel:  # all experts of a token may be on one device
        mlp = config.mlp_dim
    return LocalSizes(heads, kv_heads, mlp * max(1, config.experts_per_token), vocab)


def local_rows(rows: int, mesh: Mesh) -> int:
    """Rows of a batch on one device."""
    return local_size(rows, sharding.num_row_parts(mesh))


def local_tokens(rows: int, length: int, mesh: Mesh) -> int:
    """Tokens of a batch on one device: its rows times its part of each sequence."""
    return local_rows(rows, mesh) * local_size(length, sharding.context_size(mesh))


def stream_parts(length: int, mesh: Mesh) -> int:
    """Parts into which 'tensor' splits positions between matrix products; 1: it does not."""
    tensor = mesh.shape['tensor']
    return tensor if length % (tensor * sharding.context_size(mesh)) == 0 else 1


def cache_bytes(
    config: ModelConfig,
    *,
    batch: int,
    length: int,
    mesh: Mesh,
    dtype: CacheDtype = 'model',
    step_tokens: int = 0,
) -> int:
    """Bytes of one device's share of the cache of `kv_cache.init_cache`."""
    local = dataclasses.replace(config, num_kv_heads=local_sizes(config, mesh).kv_heads)
    return kv_cache.cache_bytes(
        local, batch=local_rows(batch, mesh), length=length, dtype=dtype, step_tokens=step_tokens
    )


def matmul_outputs(config: ModelConfig, mesh: Mesh, targets: tuple[str, ...] = ()) -> int:
    """Elements per token that the projections of one layer output.

    A target with adapters counts twice: the base's output, and the sum with the low-rank term.
    """
    local = local_sizes(config, mesh)
    sizes = {
        'query': local.heads * config.head_dim,
        'key': local.kv_heads * config.head_dim,
        'value': local.kv_heads * config.head_dim,
        'out': config.embed_dim,
        'gate': local.mlp,
        'up': local.mlp,
        'down': config.embed_dim * max(1, config.experts_per_token),
    }
    return sum(sizes[target] * (1 + (target in targets)) for target in NUM_INPUT_DIMS)


def layer_bytes(config: ModelConfig, *, length: int, mesh: Mesh, targets=()) -> dict[str, float]:
    """Bytes per token that the backward pass of one layer reads, grouped by remat policy.

    'carry' is the layer's input, 'matmuls' the outputs that remat 'dots' saves, 'scores' the
    attention weights of a query against `length` keys, and 'rest' everything else.
    """
    local, size = local_sizes(config, mesh), itemsize(config.dtype)
    D = config.embed_dim / stream_parts(length, mesh)
    heads, kv_heads = local.heads * config.head_dim, local.kv_heads * config.head_dim
    norms = 2 * (2 * 4 + size) * D + (8 * (heads + kv_heads) if config.qk_norm else 0)
    by_expert = config.experts_per_token * config.embed_dim  # tokens, sorted by expert
    # The einsum stores weights in float32 and in the dtype of activations. A kernel stores one
    # log-sum per query, and cuDNN also a mask and its gradient.
    scores = {
        'einsum': (4 if size == 4 else 4 + size) * local.heads * length,
        'splash': 4 * local.heads,
        'cudnn': 4 * local.heads + 2 * size * length,
    }
    return {
        'carry': size * D,
        'matmuls': size * matmul_outputs(config, mesh, targets),
        'rest': norms + size * (3 * heads + 2 * kv_heads + 2 * D + 2 * local.mlp + by_expert),
        'scores': scores[kernels.implementation(config)],
    }


def named_bytes(
    config: ModelConfig, names: tuple[SavedArray, ...], *, length: int, mesh: Mesh
) -> float:
    """Bytes per token of the arrays of a layer that `remat_saved` or `remat_offloaded` names."""
    local, size = local_sizes(config, mesh), itemsize(config.dtype)
    heads, kv_heads = local.heads * config.head_dim, local.kv_heads * config.head_dim
    # The kernel for TPUs keeps a log-sum for each query and head beside its output.
    is_splash = kernels.implementation(config) == 'splash'
    sizes = {
        'query': size * heads,
        'key': size * kv_heads,
        'value': size * kv_heads,
        'attention': size * heads + (4 * local.heads if is_splash else 0),
        'residual': size * config.embed_dim / stream_parts(length, mesh),
        'gate': size * local.mlp,
        'up': size * local.mlp,
    }
    return sum(sizes[name] for name in names)


def host_bytes(config: ModelConfig, *, rows: int, length: int, mesh: Mesh) -> int:
    """Bytes of one device's activations that a training step keeps in the memory of the host."""
    per_token = named_bytes(config, config.remat_offloaded, length=length, mesh=mesh)
    return int(local_tokens(rows, length, mesh) * config.num_layers * per_token)


def activation_bytes(
    config: ModelConfig,
    *,
    rows: int,
    length: int,
    mesh: Mesh,
    targets: tuple[str, ...] = (),
    shared: SharedPrompt | None = None,
) -> dict[str, int]:
    """Estimated bytes on one device in a training step of `rows` rows of `length` tokens at once.

    'kept' is what exists from the forward to the backward pass. 'layer or loss' is the largest of
    three parts that never exist at the same time: the MLP of the layer that is differentiated (the
    outputs of its projections and three cotangents), its attention (three arrays of scores for a
    block of queries), and one chunk of the loss. docs/scale.md compares it with XLA for TPUs.
    """
    tokens, local = local_tokens(rows, length, mesh), local_sizes(config, mesh)
    # With a shared prompt, attention works on split rows: one per sample.
    samples, keys = (1, length) if shared is None else (shared.samples, shared.sample_length)
    part = layer_bytes(config, length=keys, mesh=mesh, targets=targets)
    block_scores = 0
    if kernels.implementation(config) == 'einsum':
        # Blocks of queries skip later keys: on average a bit more than half of them are computed.
        part['scores'] *= (keys + query_block_size(keys)) / (2 * keys)
        block = query_block_size(local_size(keys, sharding.context_size(mesh)))
        block_scores = 3 * 4 * samples * local_rows(rows, mesh) * local.heads * block * keys
    part['scores'] *= samples * keys / length
    everything = sum(part.values())
    kept = {
        'none': everything,
        'dots': part['carry'] + part['matmuls'],
        'full': part['carry'] + named_bytes(config, config.remat_saved, length=length, mesh=mesh),
    }[config.remat]
    size, scored = itemsize(config.dtype), samples * local_tokens(rows, keys, mesh)
    ends = (4 + 4 * size) * config.embed_dim  # embeddings in float32; copies in the loss
    logits = logits_bytes(config, tokens=scored, mesh=mesh)
    outputs = part['matmuls'] + 2 * part['carry']
    copied = outputs if config.remat != 'none' or config.scan_layers else 0
    copied += gathered_keys(config, mesh)
    return {
        'kept': int(tokens * (config.num_layers * kept + ends)),
        'layer or loss': max(int(tokens * (copied + 3 * size * local.mlp)), block_scores, logits),
    }


def gathered_keys(config: ModelConfig, mesh: Mesh) -> int:
    """Bytes per token of the keys and values that a device gathers from the rest of 'context'."""
    others, heads = sharding.context_size(mesh) - 1, local_sizes(config, mesh).kv_heads
    return 2 * others * itemsize(config.dtype) * heads * config.head_dim


def forward_bytes(
    config: ModelConfig,
    *,
    rows: int,
    length: int,
    mesh: Mesh,
    shared: SharedPrompt | None = None,
) -> dict[str, int]:
    """Estimated bytes on one device in a forward pass: nothing is kept for a backward pass."""
    plain = dataclasses.replace(
        config, remat='full', remat_saved=(), remat_offloaded=(), scan_layers=False
    )
    options = {'rows': rows, 'length': length, 'mesh': mesh, 'shared': shared}
    step = activation_bytes(plain, **options)['layer or loss']
    stream = local_tokens(rows, length, mesh) * 2 * itemsize(config.dtype) * config.embed_dim
    return {'residual stream': stream, 'layer or loss': step}


def gathered_bytes(config: ModelConfig, *, mesh: Mesh, trained: bool) -> int:
    """Estimated bytes of parameters gathered from all 'fsdp' shards while they are used.

    Counts the head and, if it is `trained`, its gradient, both in the dtype of activations, and the
    matrices of one layer. The gathered parts of a trained tied head exist twice, since they are
    joined by columns. The embedding is not gathered. 0 if 'fsdp' has one shard.
    """
    head, layer = gathered_parts(config, mesh)
    return head * (1 + trained + (trained and config.tie_embeddings)) + layer


def gathered_parts(config: ModelConfig, mesh: Mesh) -> tuple[int, int]:
    """Bytes of a gathered head and of the gathered matrices of one layer; 0 without 'fsdp'."""
    if mesh.shape['fsdp'] * sharding.context_size(mesh) == 1:
        return 0, 0
    head = local_sizes(config, mesh).vocab * config.embed_dim * itemsize(config.dtype)
    return head, layer_parameters(config) // mesh.shape['tensor'] * itemsize(config.dtype)


def logits_bytes(config: ModelConfig, *, tokens: int, mesh: Mesh) -> int:
    """Bytes of the logits of one chunk of a device's `tokens`: XLA fuses the softmax."""
    return 4 * min(config.logits_chunk, tokens) * local_sizes(config, mesh).vocab


def scored_bytes(config: ModelConfig, *, rows: int, length: int, mesh: Mesh) -> dict[str, int]:
    """Estimated bytes on one device in a pass for log-probabilities of `rows` rows of `length`.

    The gathered matrices of a layer and the outputs of its MLP are freed before the logits exist.
    docs/scale.md compares it with XLA for TPUs, where a kernel computes attention.
    """
    tokens, local = local_tokens(rows, length, mesh), local_sizes(config, mesh)
    size, (head, layer) = itemsize(config.dtype), gathered_parts(config, mesh)
    logits = logits_bytes(config, tokens=tokens, mesh=mesh)
    return {
        'residual stream': 2 * size * tokens * config.embed_dim,
        'gathered weights': head,
        'layer or loss': max(layer + 2 * size * tokens * local.mlp, logits),
    }


def sampler_bytes(config: ModelConfig, *, tensor: int) -> int:
    """Bytes on one device of the sampler's copy of the weights, split over `tensor` devices alone.

    In the dtype of activations; a tied head is an array of its own, beside the embedding.
    """
    tied = config.vocab_size * config.embed_dim if config.tie_embeddings else 0
    return (num_parameters(config) + tied) * itemsize(config.dtype) // tensor


def layer_parameters(config: ModelConfig) -> int:
    """Number of parameters in the matrices of one layer."""
    attention = config.embed_dim * config.head_dim * 2 * (config.num_heads + config.num_kv_heads)
    return attention + mlp_parameters(config, experts=config.num_experts)


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

    - fsdp: every microbatch gathers the matrices once forward and once backward, in the dtype of
      activations (the embedding as stored), and scatters the gradients once.
    - tensor: gathers [B, T, D] before attention and before the MLP and scatters sums after them,
      forward and backward, and once more forward with remat 'full'. Where it does not divide the
      positions, it sums instead: the same bytes.
    - context: every layer gathers keys and values, forward and backward, and scatters their
      gradients. Weights are gathered and scattered over it as over fsdp.
    - data: sums the gradients once per microbatch.

    `trained_bytes` is one device's share of the gradients.
    """
    size, stored = itemsize(config.dtype), itemsize(config.param_dtype)
    data, fsdp, tensor = (mesh.shape[axis] for axis in sharding.AXES)
    context = sharding.context_size(mesh)
    table = config.vocab_size * config.embed_dim // tensor
    matrices = config.num_layers * layer_parameters(config) // tensor
    gathered = matrices * size + table * (stored + size)
    tokens = num_microbatches * local_tokens(rows, length, mesh)
    activations = tokens * config.embed_dim * size
    keys = tokens * context * 2 * local_sizes(config, mesh).kv_heads * config.head_dim * size
    sums = config.num_layers * (6 if config.remat == 'full' else 4)
    # A ring sends (n - 1) / n of an array; a sum is a scatter followed by a gather.
    ring = lambda n: (n - 1) / n  # noqa: E731
    moved = int(sums * activations * ring(tensor))
    kinds = ('all-gather', 'reduce-scatter')
    of_tensor = {f'tensor {kind}': moved for kind in kinds}
    if stream_parts(length, mesh) < tensor:
        of_tensor = {'tensor all-reduce': 2 * moved}
    return {
        'fsdp all-gather': int(2 * num_microbatches * gathered * ring(fsdp * context)),
        'fsdp reduce-scatter': int(num_microbatches * trained_bytes * (fsdp * context - 1)),
        'context all-gather': int(2 * config.num_layers * keys * ring(context)),
        'context reduce-scatter': int(config.num_layers * keys * ring(context)),
        **of_tensor,
        'data all-reduce': int(2 * num_microbatches * trained_bytes * ring(data)),
    }
