"""What a config would take of a machine that is not there: memory and traffic, without a weight.

python -m scripts.run --config configs/released/llama3_8b_mathcritique.py --workdir runs/x \\
    --dry_run --topology=v5e-256

Everything is built abstractly on the machine's mesh: every shape divides, the training steps and
the sampler trace. What cannot fit is refused with the nearest that does. Nothing is written.
With --compile, XLA compiles the first training step for the described TPU and tells what it takes;
that needs libtpu (pip install libtpu), but no TPU.
"""

import dataclasses
import functools
import importlib.util
import math

import jax

from elenchus.data.records import Batch
from elenchus.model import memory, sharding
from elenchus.model.memory import GIB
from elenchus.sampling.engine import decode, sampling_methods
from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.train import objective, optimizer, step
from elenchus.train.config.checks import trained_by
from elenchus.train.config.run_settings import (
    REINFORCED,
    ActorSettings,
    CriticSettings,
    ImproveSettings,
    RunSettings,
)
from elenchus.train.planning import memory_plan
from elenchus.train.planning.memory_plan import Phase, Run, Topology, Training

SAMPLING_STAGES = {'critique', 'evaluate', *REINFORCED, *EXPLORERS}


def described(s: RunSettings) -> Run:
    """What of a run decides about memory: each kind of training of its stages, and its sampling.

    A critic that starts from a checkpoint of its own counts as large as the actor.
    """
    fitted = [name for name in s.stages if name not in REINFORCED and trained_by(s, name)]
    trainings = [fit(s, name, trained_by(s, name)) for name in fitted]
    if 'base' in s.stages and s.base.fit.num_steps:
        trainings.insert(0, base(s))
    trainings += [reinforcement(s, name) for name in s.stages if name in REINFORCED]
    sampling = None
    if SAMPLING_STAGES & set(s.stages):
        whole = min((s.actor, s.critic), key=lambda player: player.lora.rank)
        sampling = memory_plan.Sampling(s.sampling.engine, fit(s, 'players', whole))
    return Run(s.model, s.mesh, s.base.quantize, tuple(trainings), sampling)


def fit(
    s: RunSettings, name: str, stage: ActorSettings | CriticSettings | ImproveSettings
) -> Training:
    """A supervised stage's training."""
    return Training(
        name=name,
        optimizer=stage.fit.optimizer,
        lora=stage.lora,
        objective=objective.SFT,
        transform=step.IDENTITY,
        rows=s.train.rows,
        length=s.train.length,
        num_microbatches=s.train.num_microbatches,
        others=0,
    )


def base(s: RunSettings) -> Training:
    """The base's, of all weights."""
    whole = dataclasses.replace(s.actor.lora, rank=0)
    made = fit(s, 'base', s.actor)
    return dataclasses.replace(made, optimizer=s.base.fit.optimizer, lora=whole)


def reinforcement(s: RunSettings, name: str) -> Training:
    """Updates of the player with the longest rows; of two, the other's state counts thrice."""
    players = REINFORCED[name]
    shared = [s.reinforce.shared_prompt(p, s.sampling.limits, overhead=1) for p in players]
    longest = max(shared, key=lambda made: made.length) if shared[0] else None
    return Training(
        name=name,
        optimizer=s.reinforce.optimizer,
        lora=s.reinforce.lora,
        objective=s.reinforce.objective,
        transform=method(s).transform,
        rows=s.reinforce.rows // s.reinforce.num_minibatches,
        length=longest.length if longest else max(map(s.reinforce.row_length, players)),
        num_microbatches=s.train.num_microbatches,
        others=1 + 3 * (len(players) - 1),
        shared=longest,
    )


def method(s: RunSettings) -> sampling_methods.TemperatureSampling:
    """How a run samples, but for the ids that its tokenizer bans."""
    c = s.sampling
    return sampling_methods.TemperatureSampling(
        c.temperature, c.top_k, c.top_p, c.min_p, banned=(0,)
    )


def dry_run(s: RunSettings, name: str, *, compiled: bool) -> None:
    """Prints what each phase takes. Raises ValueError, with what would fit, where one does not."""
    machine, run = memory_plan.topology(name), described(s)
    run = dataclasses.replace(run, mesh=memory_plan.fill_mesh(run.mesh, machine.num_chips))
    found = memory_plan.phases(run, machine)
    print(f'{machine.name}: {machine.num_chips} {machine.chip} of {machine.bytes / GIB:.1f} GiB')
    print(f'mesh {dict(zip(sharding.AXES, run.mesh, strict=True))}, GiB a device:')
    for names, parts in alike(found).items():
        print(f'  {names}: {sum(parts.values()) / GIB:.2f} = {shares(parts)}')
    print('GiB a device sends in a training step:')
    for names, parts in alike({t.name: traffic(run, t) for t in run.trainings}).items():
        print(f'  {names}: {shares(parts) or "nothing"}')
    mesh = memory.abstract_mesh(run.mesh)
    with jax.sharding.use_abstract_mesh(mesh):
        trace(s, run)
    refuse_unless_fitting(run, machine, found)
    if compiled:
        compile_step(run, machine)


def alike(found: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """The same with equal entries under one name."""
    told: dict[tuple, list[str]] = {}
    for name, parts in found.items():
        told.setdefault(tuple(parts.items()), []).append(name)
    return {', '.join(names): dict(parts) for parts, names in told.items()}


def shares(parts: dict[str, int]) -> str:
    """The parts in GiB, the largest first."""
    order = sorted(parts, key=parts.get, reverse=True)
    return ', '.join(f'{name} {parts[name] / GIB:.2f}' for name in order if parts[name])


def traffic(run: Run, training: Training) -> dict[str, int]:
    mesh = memory.abstract_mesh(run.mesh)
    return memory.collective_bytes(
        run.model,
        rows=training.rows // training.num_microbatches,
        length=training.length,
        num_microbatches=training.num_microbatches,
        trained_bytes=memory_plan.state_bytes(run, training, mesh)[0],
        mesh=mesh,
    )


def refuse_unless_fitting(run: Run, machine: Topology, found: dict[str, Phase]) -> None:
    too_large = {name: phase for name, phase in found.items() if phase.total > machine.usable}
    if not too_large:
        return
    worst = max(too_large, key=lambda name: too_large[name].total)
    phase = too_large[worst]
    largest = max(phase, key=phase.get)
    message = (
        f'{machine.name}: {worst} takes {phase.total / GIB:.1f} GiB a device, of which {largest} '
        f'{phase[largest] / GIB:.1f}; {machine.usable / GIB:.1f} of {machine.bytes / GIB:.1f} '
        'GiB can be used; '
    )
    nearest = memory_plan.nearest_fit(run, machine)
    if nearest is None:
        raise ValueError(
            f'{message}no mesh, remat or number of microbatches fits, nor a larger one'
        )
    raise ValueError(f'{message}nearest that fits: {changes(run, machine, *nearest)}')


def changes(run: Run, machine: Topology, fitting: Run, larger: Topology) -> str:
    """The overrides that lead from a run to one that fits."""
    told = [f'--topology={larger.name}'] if larger != machine else []
    if fitting.mesh != run.mesh:
        told.append(f'--config.mesh={fitting.mesh}'.replace(' ', ''))
    if fitting.model.remat != run.model.remat:
        told.append(f'--config.model.remat={fitting.model.remat}')
    micro = fitting.trainings[0].num_microbatches if fitting.trainings else 1
    if fitting.trainings and micro != run.trainings[0].num_microbatches:
        told.append(f'--config.train.num_microbatches={micro}')
    return ' '.join(told)


# Building the programs


def abstract_batch(training: Training, place=None) -> Batch:
    floats = ('loss_mask', 'weights', 'old_logprobs', 'ref_logprobs')
    shape = (training.rows, training.length)
    return Batch(
        **{
            name: jax.ShapeDtypeStruct(
                shape, 'float32' if name in floats else 'int32', sharding=place
            )
            for name in Batch._fields
        }
    )


def make_step(training: Training):
    return step.make_train_step(
        objective=training.objective,
        optimizer=optimizer.make_optimizer(training.optimizer, num_steps=1),
        transform=training.transform,
        num_microbatches=training.num_microbatches,
        skip_nonfinite=False,
        shared=training.shared,
    )


def abstract_state(run: Run, training: Training):
    return memory_plan.abstract_state(run.model, training.lora, training.optimizer, run.quantize)


def trace(s: RunSettings, run: Run) -> None:
    """Traces every training step and a chunk of decoding. Raises where a shape does not fit."""
    for training in {dataclasses.replace(t, name='training') for t in run.trainings}:
        parts = math.prod(run.mesh[:2]) * training.num_microbatches
        if training.rows % parts:
            raise ValueError(
                f'{training.name}: {training.rows} rows do not divide over data * fsdp * '
                f'num_microbatches = {parts}; nearest: {max(1, training.rows // parts) * parts}'
            )
        state, frozen = abstract_state(run, training)
        jax.eval_shape(make_step(training), state, abstract_batch(training), frozen)
    if run.sampling is not None:
        engine = run.sampling.engine
        slots = jax.eval_shape(
            lambda: decode.init_state(
                s.model,
                batch=engine.num_slots,
                length=engine.max_length,
                dtype=engine.cache_dtype,
            )
        )
        chunk = functools.partial(
            decode.decode_chunk,
            slots=None,
            method=method(s),
            seed=0,
            num_steps=engine.chunk_steps,
            stop_ids=(1,),
            length=engine.max_length,
            lookup=engine.lookup,
        )
        jax.eval_shape(chunk, memory_plan.abstract_player(run), slots)


def compile_step(run: Run, machine: Topology) -> None:
    """Lets XLA compile the first training step for the machine, and says what it takes."""
    if not machine.chip.startswith('v'):
        raise ValueError(f'--compile: only TPUs can be described, not {machine.name!r}')
    if importlib.util.find_spec('libtpu') is None:
        raise ValueError('--compile: libtpu is not installed: pip install libtpu')
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(memory_plan.slice_name(machine), 'tpu').devices
    axis_types = (jax.sharding.AxisType.Auto,) * len(sharding.AXES)
    mesh = jax.make_mesh(run.mesh, sharding.AXES, devices=devices, axis_types=axis_types)
    training = run.trainings[0]
    placed = lambda tree: jax.tree.map(  # noqa: E731
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        tree,
        sharding.shardings(tree, mesh),
    )
    with jax.set_mesh(mesh):
        state, frozen = (placed(tree) for tree in abstract_state(run, training))
        batch = abstract_batch(training, sharding.batch_sharding(mesh))
        lowered = make_step(training).lower(state, batch, frozen)
        used = lowered.compile().memory_analysis()
    print(
        f'  XLA, {training.name}: arguments {used.argument_size_in_bytes / GIB:.2f}, temporaries '
        f'{used.temp_size_in_bytes / GIB:.2f} GiB a device'
    )
