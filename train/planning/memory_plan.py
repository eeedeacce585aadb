"""Memory plan of a run: bytes on each device, phase by phase, and the nearest change that fits.

Arrays are counted exactly, on abstract meshes; activations and gathered weights are estimates
(model/memory_estimate.py). No array is allocated.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator

import jax

from elenchus.model import (
    block_weights,
    head_layout,
    lora,
    memory_estimate,
    projection,
    quantization,
    sharding,
    transformer,
)
from elenchus.model.attention import inputs, kernels
from elenchus.model.config import ModelConfig
from elenchus.sampling.engine import weights
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.sampling.step_scores import ScoreShapes
from elenchus.train import optimizer as optimizers
from elenchus.train.objective import Objective
from elenchus.train.planning import machines
from elenchus.train.planning.machines import Topology
from elenchus.train.state import TrainState, init_state
from elenchus.train.step import Transform


@dataclasses.dataclass(frozen=True)
class TrainingLoad:
    """One kind of training step: a supervised fit, or an update of reinforcement learning."""

    name: str
    optimizer: optimizers.OptimizerSettings
    lora: lora.LoraSettings
    objective: Objective
    transform: Transform
    rows: int  # of a batch, over all devices
    length: int  # tokens of a row
    num_microbatches: int
    others: int  # models in memory beside the trained one: a reference, a critic
    logprobs: bool = False  # a pass of its own computes old or reference log-probabilities
    shared: inputs.SharedPrompt | None = None


@dataclasses.dataclass(frozen=True)
class SamplingLoad:
    """Decoding with one player while the other one stays in memory."""

    engine: EngineSettings
    players: TrainingLoad  # that trained them: two whole models, or adapters on one base
    score: ScoreShapes | None = None  # of the scoring pass


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """The parts of a run's settings that determine its memory."""

    model: ModelConfig
    mesh: tuple[int, int, int]  # data, fsdp, tensor; -1: the remaining devices
    quantize: quantization.Quantization  # of the frozen base under adapters
    trainings: tuple[TrainingLoad, ...]
    sampling: SamplingLoad | None


OTHER_WEIGHTS, SLOTS = 'weights to start from and of other players', 'cache of the slots'
BESIDE = (
    OTHER_WEIGHTS,
    'optimizer state beside it',
    'frozen base beside it',
    'head beside it',
)
"""Parts of a phase that are in memory while its program runs, but are no arguments of it."""


class Phase(dict):
    """Bytes on one device, by purpose."""

    def __or__(self, other) -> 'Phase':
        """Adds parts."""
        return Phase({**self, **other})

    @property
    def program(self) -> int:
        """Bytes of the program alone: its arguments, results and temporaries."""
        return self.total - sum(self.get(name, 0) for name in BESIDE)

    @property
    def total(self) -> int:
        """Bytes of all purposes together."""
        return sum(self.values())


def fill_mesh(shape: tuple[int, int, int], num_chips: int) -> tuple[int, int, int]:
    """Mesh shape with -1 replaced by the remaining chips.

    Raises ValueError if the shape does not cover the chips.
    """
    known = math.prod(n for n in shape if n != -1)
    if num_chips % known or (-1 not in shape and known != num_chips):
        raise ValueError(
            f'mesh={shape} does not divide the {num_chips} chips; nearest valid mesh: '
            f'(1, {num_chips}, 1)'
        )
    return tuple(num_chips // known if n == -1 else n for n in shape)


@functools.cache
def abstract_model(config: ModelConfig) -> transformer.Transformer:
    """Model whose parameters are shapes without values."""
    return jax.eval_shape(lambda: transformer.init_model(config, jax.random.key(0)))


@functools.cache
def abstract_state(
    config: ModelConfig,
    adapters: lora.LoraSettings,
    *,
    optimizer: optimizers.OptimizerSettings,
    quantize: quantization.Quantization,
) -> tuple[TrainState, transformer.Transformer | None]:
    """(train state, frozen base) as shapes; without adapters there is no frozen base."""
    trained, frozen = abstract_model(config), None
    if adapters.rank:
        frozen = jax.eval_shape(lambda model: quantization.quantize(model, quantize), trained)
        adaptation = lora.Adaptation(adapters, '', '', quantize)
        trained = jax.eval_shape(lambda: lora.init_adapters(config, adaptation, jax.random.key(0)))
    update = optimizers.make_optimizer(optimizer, num_steps=1)
    return jax.eval_shape(lambda trained: init_state(trained, update), trained), frozen


def abstract_player(plan: RunPlan) -> transformer.Transformer:
    """Player that samples, as shapes."""
    state, frozen = _player_state(plan)
    player = jax.eval_shape(lora.join, state.model, frozen)
    kind = plan.sampling.engine.quantize
    return jax.eval_shape(functools.partial(quantization.quantize, kind=kind), player)


def _player_state(plan: RunPlan) -> tuple[TrainState, transformer.Transformer | None]:
    players = plan.sampling.players
    return abstract_state(
        plan.model, players.lora, optimizer=players.optimizer, quantize=plan.quantize
    )


def state_bytes(plan: RunPlan, training: TrainingLoad, mesh) -> tuple[int, int, int]:
    """Bytes on one device of (trained weights, optimizer state, frozen base)."""
    # Remat changes no array; without it the cache of abstract_state serves all variations.
    config = dataclasses.replace(plan.model, remat='none')
    state, frozen = abstract_state(
        config, training.lora, optimizer=training.optimizer, quantize=plan.quantize
    )
    trained_bytes = memory_estimate.array_bytes(state.model, mesh)
    frozen_bytes = 0 if frozen is None else memory_estimate.array_bytes(frozen, mesh)
    return trained_bytes, memory_estimate.array_bytes(state, mesh) - trained_bytes, frozen_bytes


def training_phase(plan: RunPlan, training: TrainingLoad, mesh) -> Phase:
    """Memory of a training step: state, gradients, activations and the other models."""
    trained_bytes, optimizer_bytes, frozen_bytes = state_bytes(plan, training, mesh)
    # Microbatches add up gradients: the sum and the gradients of the current one.
    gradient_copies = 2 if training.num_microbatches > 1 else 1
    phase = Phase(
        {
            'trained weights': trained_bytes,
            'optimizer state': optimizer_bytes,
            'gradients': gradient_copies * trained_bytes,
            'frozen base': frozen_bytes,
            OTHER_WEIGHTS: (1 + training.others) * trained_bytes,
        }
    )
    phase |= memory_estimate.activation_bytes(
        plan.model,
        rows=training.rows // training.num_microbatches,
        length=training.length,
        mesh=mesh,
        targets=training.lora.targets if training.lora.rank else (),
        shared=training.shared,
    )
    phase['gathered weights'] = memory_estimate.gathered_bytes(
        plan.model, mesh=mesh, trained=not training.lora.rank
    )
    return phase


def quantized_bytes(plan: RunPlan, mesh) -> int:
    """Bytes on one device of the copies that the engine quantizes for the sampling player."""
    kind = plan.sampling.engine.quantize
    state, frozen = _player_state(plan)
    if kind == 'none' or (frozen is not None and plan.quantize != 'none'):
        return 0
    model = state.model if frozen is None else frozen
    quantized = jax.eval_shape(lambda model: quantization.quantize(model, kind), model)
    matrices = {
        t: getattr(block_weights.find_module(quantized, t), t) for t in projection.NUM_INPUT_DIMS
    }
    return memory_estimate.array_bytes(matrices, mesh)


def logprob_phase(plan: RunPlan, training: TrainingLoad, mesh) -> Phase:
    """Memory of the pass for old or reference log-probabilities: forward only, all rows at once."""
    phase = training_phase(plan, training, mesh)
    trained_bytes, optimizer_bytes = phase['trained weights'], phase['optimizer state']
    forward = memory_estimate.forward_bytes(
        plan.model, rows=training.rows, length=training.length, mesh=mesh, shared=training.shared
    )
    return Phase(
        {
            'trained weights': trained_bytes,
            'frozen base': phase['frozen base'],
            'optimizer state beside it': optimizer_bytes,
            OTHER_WEIGHTS: phase[OTHER_WEIGHTS],
            **forward,
            'gathered weights': memory_estimate.gathered_bytes(
                plan.model, mesh=mesh, trained=False
            ),
        }
    )


def sampler_mesh(plan: RunPlan) -> jax.sharding.AbstractMesh:
    """The sampler's mesh on the devices of the plan's: all of them are 'data' or 'tensor'."""
    data, fsdp, tensor = plan.mesh
    axes = dict(zip(sharding.AXES, (data, fsdp, tensor), strict=True))
    shape = weights.sampler_shape(axes, plan.sampling.engine.tensor_shards)
    return memory_estimate.abstract_mesh(shape)


def _sampling_parts(plan: RunPlan, mesh) -> Phase:
    """What is in memory in every program of sampling: both players, and the sampler's copy of one.

    On one device nothing is copied whose dtype is that of activations.
    """
    trained_bytes, _, frozen_bytes = state_bytes(plan, plan.sampling.players, mesh)
    here, engine = sampler_mesh(plan), plan.sampling.engine
    config = head_layout.divided_heads(plan.model, here.shape['tensor'])
    is_copied = here.size > 1 or config.dtype != config.param_dtype
    copy = memory_estimate.sampler_bytes(config, tensor=here.shape['tensor']) if is_copied else 0
    own = {'weights of the player': trained_bytes, 'frozen base': frozen_bytes}
    beside = {OTHER_WEIGHTS: 2 * trained_bytes, 'frozen base beside it': frozen_bytes}
    return Phase({'weights of the sampler': copy, **beside} if copy else own) | {
        OTHER_WEIGHTS: (2 if copy else 1) * trained_bytes,
        'weights in int8': quantized_bytes(plan, mesh) if engine.quantize != 'none' else 0,
    }


def prefill_phase(plan: RunPlan, mesh, *, rows: int, length: int) -> Phase:
    """Memory of a prefill of `rows` rows of `length` tokens, with the slots that it fills."""
    engine, here = plan.sampling.engine, sampler_mesh(plan)
    config = head_layout.divided_heads(plan.model, here.shape['tensor'])
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
    return parts | {
        name: parts[name] - head,
        'head beside it': head,
        SLOTS: cache_bytes(batch=engine.num_slots, length=engine.max_length),
        'cache of a prefill': cache_bytes(batch=rows, length=length),
        'layer of a prefill': layer['layer or loss'],
    }


def decode_phase(plan: RunPlan, mesh) -> Phase:
    """Memory of a chunk of decoding in all slots.

    XLA for TPU keeps the caches in another layout inside of the loop, so they are there twice.
    """
    engine, here = plan.sampling.engine, sampler_mesh(plan)
    config = head_layout.divided_heads(plan.model, here.shape['tensor'])
    local = memory_estimate.local_sizes(config, here)
    tokens_per_step = memory_estimate.local_rows(engine.num_slots, here) * (1 + engine.draft_tokens)
    slots = memory_estimate.cache_bytes(
        config,
        mesh=here,
        dtype=engine.cache_dtype,
        batch=engine.num_slots,
        length=engine.max_length,
    )
    return _sampling_parts(plan, mesh) | {
        SLOTS: slots,
        'caches in the layout of the loop': slots,
        'logits': 4 * tokens_per_step * local.vocab,
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
            **forward,
        }
    )


def sampling_phases(plan: RunPlan, mesh) -> dict[str, Phase]:
    """Memory of the largest prefill, of decoding, and of the largest scoring pass."""
    engine, score = plan.sampling.engine, plan.sampling.score
    rows, length = engine.prefill_batch_sizes[-1], engine.prompt_buckets[-1]
    by_name = {
        'prefill': prefill_phase(plan, mesh, rows=rows, length=length),
        'decode': decode_phase(plan, mesh),
    }
    if score is not None:
        by_name['scoring'] = scoring_phase(plan, mesh, rows=score.rows, length=score.lengths[-1])
    return by_name


def phases(plan: RunPlan, machine: Topology) -> dict[str, Phase]:
    """Memory of every phase of a run on a machine.

    Raises ValueError if a shape does not divide over the mesh, or if the attention implementation
    does not run on this kind of machine.
    """
    kernels.check_backend(plan.model, machines.platform(machine))
    mesh = memory_estimate.abstract_mesh(fill_mesh(plan.mesh, machine.num_chips))
    by_name = {t.name: training_phase(plan, t, mesh) for t in plan.trainings}
    for training in plan.trainings:
        if training.logprobs:
            by_name[f'{training.name}: log-probabilities'] = logprob_phase(plan, training, mesh)
    if plan.sampling is not None:
        by_name |= sampling_phases(plan, mesh)
    return by_name


def fits(by_name: dict[str, Phase], machine: Topology) -> bool:
    """True if every phase fits into the usable memory of one chip."""
    return all(phase.total <= machine.usable for phase in by_name.values())


def nearest_fit(plan: RunPlan, machine: Topology) -> tuple[RunPlan, Topology] | None:
    """Smallest change that fits: recompute more, split batches, shard more, or more devices.

    Tries machines up to 64 times as large; on each, the config's mesh comes before other meshes.
    """
    for _ in range(7):
        for variation in variations(plan, machine):
            try:
                if fits(phases(variation, machine), machine):
                    return variation, machine
            except ValueError:  # this mesh does not divide the model
                continue
        machine = machines.twice_as_large(machine)
    return None


def variations(plan: RunPlan, machine: Topology) -> Iterator[RunPlan]:
    """Plans of the same result with another mesh, remat policy or number of microbatches."""
    count = machine.num_chips
    meshes = [plan.mesh, *((1, count // t, t) for t in (1, 2, 4, 8, 16) if count % t == 0)]
    remats = ('none', 'dots', 'full')  # in the order of more recomputation
    remats = remats[remats.index(plan.model.remat) :]
    for mesh, splits, remat in itertools.product(dict.fromkeys(meshes), (1, 2, 4, 8, 16), remats):
        trainings = tuple(
            dataclasses.replace(t, num_microbatches=t.num_microbatches * splits)
            for t in plan.trainings
        )
        try:
            filled = fill_mesh(mesh, count)
        except ValueError:
            continue
        remainders = [t.rows % (t.num_microbatches * filled[0] * filled[1]) for t in trainings]
        if not any(remainders):
            model = dataclasses.replace(plan.model, remat=remat)
            yield dataclasses.replace(plan, model=model, mesh=filled, trainings=trainings)
