"""Memory plan of a run: bytes on each device, phase by phase, and the nearest change that fits.

Arrays are counted exactly, on abstract meshes; activations and gathered weights are estimates
(model/memory_estimate.py). No array is allocated.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from elenchus.model import memory_estimate, sharding
from elenchus.model.attention import kernels
from elenchus.model.config import ModelConfig
from elenchus.sampling.engine import shapes, weights
from elenchus.train.planning import machines
from elenchus.train.planning.machines import Topology
from elenchus.train.planning.plan_parts import (
    OTHER_WEIGHTS,
    TEACHER,
    TRAINING_STATES,
    Phase,
    RunPlan,
    SamplingLoad,
    TrainingLoad,
    abstract_player,
    abstract_state,
    on_mesh,
    state_bytes,
    teacher_bytes,
)
from elenchus.train.planning.sampling_memory import (
    decode_phase,
    prefill_phase,
    reshard_phase,
    sampling_phases,
    scoring_phase,
)

__all__ = [
    'Phase',
    'RunPlan',
    'SamplingLoad',
    'TrainingLoad',
    'abstract_player',
    'abstract_state',
    'decode_phase',
    'fits',
    'logprob_phase',
    'nearest_fit',
    'on_mesh',
    'phases',
    'prefill_phase',
    'reshard_phase',
    'sampling_phases',
    'scoring_phase',
    'state_bytes',
    'training_phase',
]


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
            TEACHER: teacher_bytes(training, mesh),
        }
    )
    if training.bases_beside:
        phase |= {'frozen base beside it': training.bases_beside * frozen_bytes}
    phase |= memory_estimate.activation_bytes(
        plan.model,
        rows=training.rows // training.num_microbatches,
        length=training.length,
        mesh=mesh,
        targets=training.lora.targets if training.lora.rank else (),
        shared=training.shared,
    )
    if not training.lora.rank:
        gathered = memory_estimate.gathered_bytes(plan.model, mesh=mesh, trained=True)
        return phase | {'gathered weights': gathered}
    # A frozen head has no gradient: it is gone when the layers are differentiated.
    head, layer = memory_estimate.gathered_parts(plan.model, mesh)
    rows = memory_estimate.local_rows(training.rows // training.num_microbatches, mesh)
    tokens = rows * training.length
    logits = memory_estimate.logits_bytes(plan.model, tokens=tokens, mesh=mesh)
    return phase | {'layer or loss': max(phase['layer or loss'] + layer, head + logits)}


def logprob_phase(
    plan: RunPlan, training: TrainingLoad, mesh, *, model: ModelConfig | None = None
) -> Phase:
    """Memory of the pass for old or reference log-probabilities of a microbatch, by `model`."""
    phase, model = training_phase(plan, training, mesh), model or plan.model
    trained_bytes, optimizer_bytes = phase['trained weights'], phase['optimizer state']
    size = {'rows': training.rows // training.num_microbatches, 'length': training.length}
    if kernels.implementation(model) != 'einsum':
        forward = memory_estimate.scored_bytes(model, mesh=mesh, **size)
    else:
        gathered = memory_estimate.gathered_bytes(model, mesh=mesh, trained=False)
        forward = {'gathered weights': gathered} | memory_estimate.forward_bytes(
            model, mesh=mesh, shared=training.shared, **size
        )
    return Phase(
        {
            'trained weights': trained_bytes,
            'frozen base': phase['frozen base'],
            'optimizer state beside it': optimizer_bytes,
            OTHER_WEIGHTS: phase[OTHER_WEIGHTS],
            TEACHER: phase[TEACHER],
            **forward,
        }
    )


def phases(plan: RunPlan, machine: Topology) -> dict[str, Phase]:
    """Memory of every phase of a run on a machine.

    Raises ValueError if a shape does not divide over the mesh, or if the attention implementation
    does not run on this kind of machine.
    """
    kernels.check_backend(plan.model, machines.platform(machine))
    mesh = memory_estimate.abstract_mesh(sharding.fill_mesh(plan.mesh, machine.num_chips))
    by_name = {t.name: training_phase(plan, t, mesh) for t in plan.trainings}
    for training in plan.trainings:
        if training.logprobs:
            by_name[f'{training.name}: log-probabilities'] = logprob_phase(plan, training, mesh)
        if training.logprobs and training.teacher is not None:
            phase = logprob_phase(plan, training, mesh, model=training.teacher)
            by_name[f'{training.name}: log-probabilities of the teacher'] = phase
    if plan.sampling is not None:
        kept = kept_while_sampling(plan, mesh)
        by_name |= {name: phase | kept for name, phase in sampling_phases(plan, mesh).items()}
        if plan.sampling.teacher is not None:
            by_name |= {
                f'teacher: {n}': p for n, p in sampling_phases(of_teacher(plan), mesh).items()
            }
    return by_name


def of_teacher(plan: RunPlan) -> RunPlan:
    """The plan of a teacher that samples in the actor's place; both players count as its size."""
    players = plan.sampling.players
    whole = dataclasses.replace(players, lora=dataclasses.replace(players.lora, rank=0))
    sampling = dataclasses.replace(plan.sampling, players=whole)
    return dataclasses.replace(plan, model=plan.sampling.teacher, sampling=sampling)


def kept_while_sampling(plan: RunPlan, mesh) -> Phase:
    """What reinforcement learning has in memory while it samples, beside a player and its start.

    Moments, the other player, a teacher, states of value models and implicit scores, older weights.
    """
    kept = 0
    for training in plan.trainings:
        if training.samples:
            trained_bytes, optimizer_bytes, _ = state_bytes(plan, training, mesh)
            own = optimizer_bytes + training.others * trained_bytes
            kept = max(kept, own + teacher_bytes(training, mesh))
    return Phase({TRAINING_STATES: kept} if kept else {})


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
                check_sampling(variation)
                if fits(phases(variation, machine), machine):
                    return variation, machine
            except ValueError:  # this mesh does not divide the model or the slots
                continue
        machine = machines.twice_as_large(machine)
        if machine is None:
            break
    return None


def check_sampling(plan: RunPlan) -> None:
    """Raises ValueError, naming the field, if the sampler's shapes do not divide over the mesh."""
    if plan.sampling is None:
        return
    mesh, score = memory_estimate.abstract_mesh(plan.mesh), plan.sampling.score
    # The plan names the kernel that 'auto' is for the trainer's dtype.
    model = dataclasses.replace(plan.model, attention='auto')
    weights.check_sampler(model, plan.sampling.engine, mesh)
    if score is not None:
        shapes.check_divides('sampling.score.rows', score.rows, sharding.num_row_parts(mesh))


def variations(plan: RunPlan, machine: Topology) -> Iterator[RunPlan]:
    """Plans of the same result with another mesh, remat policy or number of microbatches."""
    count = machine.num_chips
    context = plan.mesh[3:]  # as configured: it splits the sequences
    rest = count // math.prod(context)
    tensors = (t for t in (1, 2, 4, 8, 16) if rest % t == 0)
    meshes = [plan.mesh, *((1, rest // t, t, *context) for t in tensors)]
    kept = itertools.product(dict.fromkeys(meshes), (1, 2, 4, 8, 16), less_kept(plan.model))
    for mesh, splits, model in kept:
        trainings = tuple(
            dataclasses.replace(t, num_microbatches=t.num_microbatches * splits)
            if not t.each_part
            else t
            for t in plan.trainings
        )
        try:
            filled = sharding.fill_mesh(mesh, count)
        except ValueError:
            continue
        varied = on_mesh(dataclasses.replace(plan, model=model, trainings=trainings), filled)
        parts = filled[0] * filled[1]
        if not any(t.rows % (t.num_microbatches * parts) for t in varied.trainings):
            yield varied


def less_kept(model: ModelConfig) -> list[ModelConfig]:
    """A model and its variants that recompute more in the backward pass, in this order."""
    remats = ('none', 'dots', 'full')
    more = remats[remats.index(model.remat) + 1 :]
    variants = [model, *(dataclasses.replace(model, remat=remat) for remat in more)]
    if model.remat_saved:
        variants.append(dataclasses.replace(model, remat_saved=()))
    return variants
