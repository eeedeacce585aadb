"""Memory of sampling and scoring: the sampler's copy of a player, prefill, decoding, critiques."""

import dataclasses
import functools

import jax

from elenchus.model import block_weights, memory_estimate, quantization, sharding
from elenchus.model.config import ModelConfig
from elenchus.model.placement import Placement
from elenchus.sampling.engine import weights
from elenchus.train.planning.plan_parts import (
    OTHER_WEIGHTS,
    PREFIXES,
    SLOTS,
    Phase,
    RunPlan,
    player_state,
    state_bytes,
)


def quantized_bytes(plan: RunPlan, mesh) -> int:
    """Bytes on one device of the copies that the engine quantizes for the sampling player."""
    kind = plan.sampling.engine.quantize
    state, frozen = player_state(plan)
    if kind == 'none' or (frozen is not None and plan.quantize != 'none'):
        return 0
    model = state.model if frozen is None else frozen
    quantized = jax.eval_shape(lambda model: quantization.quantize(model, kind), model)
    matrices = {
        t: getattr(block_weights.find_module(quantized, t), t)
        for t in block_weights.matrices_of(quantized)
    }
    return memory_estimate.array_bytes(matrices, mesh)


def sampler_mesh(plan: RunPlan) -> jax.sharding.AbstractMesh:
    """The sampler's mesh on the devices of the plan's: all of them are 'data' or 'tensor'."""
    sizes, names = sharding.named_shape(plan.mesh)
    axes = dict(zip(names, sizes, strict=True))
    shape = weights.sampler_shape(axes, plan.sampling.engine.tensor_shards)
    return memory_estimate.abstract_mesh(shape)


def sampler_config(plan: RunPlan) -> ModelConfig:
    """Config of the sampler's copy of a player: in its dtype, with heads that its shards divide."""
    model, engine = plan.model, plan.sampling.engine
    if model.attention == 'cudnn' and engine.dtype == 'float32':
        # The plan has named the kernel of the trainer's dtype; 'auto' has none for this one.
        model = dataclasses.replace(model, attention='einsum')
    return weights.sampler_config(model, engine, Placement(sampler_mesh(plan)))


def prefix_cache_bytes(plan: RunPlan) -> int:
    """Bytes on one device of one player's prefix cache; 0 without one."""
    engine = plan.sampling.engine
    return memory_estimate.cache_bytes(
        sampler_config(plan),
        batch=engine.prefix_cache_rows,
        length=engine.prefix_cache_length,
        mesh=sampler_mesh(plan),
        dtype=engine.cache_dtype,
    )


def _sampling_parts(plan: RunPlan, mesh) -> Phase:
    """Memory of every sampling program: both players, and the sampler's copy of one of them.

    On one device there is no copy if the parameters have the dtype of activations. Each player has
    a prefix cache.
    """
    trained_bytes, _, frozen_bytes = state_bytes(plan, plan.sampling.players, mesh)
    here, engine, config = sampler_mesh(plan), plan.sampling.engine, sampler_config(plan)
    is_copied = here.size > 1 or config.dtype != config.param_dtype
    copy = memory_estimate.sampler_bytes(config, tensor=here.shape['tensor']) if is_copied else 0
    own = {'weights of the player': trained_bytes, 'frozen base': frozen_bytes}
    beside = {OTHER_WEIGHTS: 2 * trained_bytes, 'frozen base beside it': frozen_bytes}
    return Phase({'weights of the sampler': copy, **beside} if copy else own) | {
        OTHER_WEIGHTS: (2 if copy else 1) * trained_bytes,
        'weights in int8': quantized_bytes(plan, mesh) if engine.quantize != 'none' else 0,
        PREFIXES: 2 * prefix_cache_bytes(plan),
    }


def reshard_phase(plan: RunPlan, mesh) -> Phase | None:
    """Memory while a player's weights are resharded for the sampler; None if they are not copied.

    A further copy is in memory meanwhile, and with tensor shards the whole embedding table: XLA
    changes its split from 'embed' to 'vocab' by gathering it.
    """
    parts, here = _sampling_parts(plan, mesh), sampler_mesh(plan)
    copy, config = parts.get('weights of the sampler', 0), sampler_config(plan)
    if here.size == 1 or not copy:
        return None
    trained_bytes, _, frozen_bytes = state_bytes(plan, plan.sampling.players, mesh)
    table = config.vocab_size * config.embed_dim * memory_estimate.itemsize(config.dtype)
    return Phase(
        {
            'weights of the player': trained_bytes,
            'frozen base': frozen_bytes,
            OTHER_WEIGHTS: trained_bytes,
            'weights of the sampler': copy,
            'weights on their way': copy + (table if here.shape['tensor'] > 1 else 0),
            PREFIXES: parts[PREFIXES],
        }
    )


def prefill_phase(
    plan: RunPlan, mesh, *, rows: int, length: int, from_prefixes: bool = False
) -> Phase:
    """Memory of a prefill of `rows` rows of `length` tokens, with the slots that it fills.

    `from_prefixes`: it reads a prefix cache, and its rows begin with what is there.
    """
    engine, here, config = plan.sampling.engine, sampler_mesh(plan), sampler_config(plan)
    chunk = min(engine.prefill_chunk or length, length)
    cache_bytes = functools.partial(
        memory_estimate.cache_bytes, config, mesh=here, dtype=engine.cache_dtype
    )
    whole = dataclasses.replace(config, logits_chunk=1)  # no logits
    layer = memory_estimate.forward_bytes(whole, rows=rows, length=chunk, mesh=here)
    parts = _sampling_parts(plan, mesh)
    name = next(
        name for name in ('weights of the sampler', 'weights of the player') if name in parts
    )
    # A prefill computes no logits, so the head is beside it.
    head = memory_estimate.local_sizes(config, here).vocab * config.embed_dim
    head *= memory_estimate.itemsize(config.dtype) if name == 'weights of the sampler' else 0
    read = prefix_cache_bytes(plan) if from_prefixes else 0
    whole_length = length + (engine.prefix_cache_length if from_prefixes else 0)
    return parts | {
        name: parts[name] - head,
        'head beside it': head,
        SLOTS: cache_bytes(
            batch=engine.num_slots, length=engine.max_length, step_tokens=engine.step_tokens
        ),
        'cache of a prefill': cache_bytes(batch=rows, length=min(whole_length, engine.max_length)),
        'layer of a prefill': layer['layer or loss'],
        'prefix cache': read,
        PREFIXES: parts[PREFIXES] - read,
    }


def decode_phase(plan: RunPlan, mesh) -> Phase:
    """Memory of a chunk of decoding in all slots.

    With several key/value heads on a device, XLA for TPU uses another cache layout inside the loop,
    so the caches count twice.
    """
    engine, here, config = plan.sampling.engine, sampler_mesh(plan), sampler_config(plan)
    local = memory_estimate.local_sizes(config, here)
    logits_per_step = memory_estimate.local_rows(engine.num_slots, here) * engine.lookup.num_logits
    slots = memory_estimate.cache_bytes(
        config,
        mesh=here,
        dtype=engine.cache_dtype,
        batch=engine.num_slots,
        length=engine.max_length,
        step_tokens=engine.step_tokens,
    )
    return _sampling_parts(plan, mesh) | {
        SLOTS: slots,
        'caches in the layout of the loop': slots if local.kv_heads > 1 else 0,
        'logits': 4 * logits_per_step * local.vocab,
    }


def scoring_phase(plan: RunPlan, mesh, *, rows: int, length: int) -> Phase:
    """Memory of a scoring pass over `rows` critiques of `length` tokens."""
    forward = memory_estimate.forward_bytes(
        dataclasses.replace(plan.model, logits_chunk=1), rows=rows, length=length, mesh=mesh
    )
    trained_bytes, _, frozen_bytes = state_bytes(plan, plan.sampling.players, mesh)
    gathered = memory_estimate.gathered_bytes(plan.model, mesh=mesh, trained=False)
    return Phase(
        {
            'weights of the player': trained_bytes,
            'frozen base': frozen_bytes,
            OTHER_WEIGHTS: trained_bytes,
            'gathered weights': gathered,
            PREFIXES: 2 * prefix_cache_bytes(plan),
            **forward,
        }
    )


def sampling_phases(plan: RunPlan, mesh) -> dict[str, Phase]:
    """Memory of the largest prefill, of decoding, and of the largest scoring pass."""
    engine, score = plan.sampling.engine, plan.sampling.score
    rows, length = engine.prefill_batch_sizes[-1], engine.prompt_buckets[-1]
    from_prefixes = engine.prefix_cache_rows > 0
    by_name = {
        'prefill': prefill_phase(plan, mesh, rows=rows, length=length, from_prefixes=from_prefixes),
        'decode': decode_phase(plan, mesh),
    }
    reshard = reshard_phase(plan, mesh)
    if reshard is not None:
        by_name['weights of the sampler'] = reshard
    if score is not None:
        by_name['scoring'] = scoring_phase(plan, mesh, rows=score.rows, length=score.lengths[-1])
    return by_name
