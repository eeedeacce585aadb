"""Dry run of a config for a machine that need not be present: memory and traffic, without weights.

python -m scripts.run --config configs/released/llama3_8b_mathcritique.py --workdir runs/x \\
    --dry_run --topology=v5e-256

All arrays are shapes on an abstract mesh of the machine, and all programs are traced, so shapes
that do not divide and programs that do not trace are errors. If a config does not fit, the error
names the nearest one that does. Nothing is written. The figures are estimates; with --compile, XLA
also compiles every program of the run for the machine, and prints its own (compiled_table.py).
"""

import dataclasses
import functools

import jax

from elenchus.data.records import Batch
from elenchus.model import logprobs, memory_estimate, sharding, value_head
from elenchus.model.attention import kernels
from elenchus.model.memory_estimate import GIB
from elenchus.sampling.engine import decode, sampling_methods
from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.train import objective, optimizer, step
from elenchus.train.config.checks import check_lengths, trained_by
from elenchus.train.config.players import is_one_model
from elenchus.train.config.prefer_settings import PreferSettings
from elenchus.train.config.run_settings import (
    PREFERRED,
    REINFORCED,
    ActorSettings,
    CriticSettings,
    ImproveSettings,
    RunSettings,
)
from elenchus.train.planning import machines, memory_plan
from elenchus.train.planning.machines import Topology
from elenchus.train.planning.memory_plan import Phase, RunPlan, SamplingLoad, TrainingLoad
from elenchus.train.rl import value_model
from elenchus.train.run import checks

SAMPLING_STAGES = {'critique', 'evaluate', *REINFORCED, *PREFERRED, *EXPLORERS}


def plan_of(s: RunSettings) -> RunPlan:
    """Returns what determines the memory of a run: each kind of training, and the sampling.

    A teacher counts as the saved model that it is; a critic that starts from a checkpoint counts
    as large as the actor.
    """
    fitted = [name for name in s.stages if name not in REINFORCED and trained_by(s, name)]
    trainings = [fit_load(s, name, trained_by(s, name)) for name in fitted]
    if 'base' in s.stages and s.base.fit.num_steps:
        trainings.insert(0, base_load(s))
    for name in (name for name in s.stages if name in REINFORCED):
        trainings += reinforcement_loads(s, name)
    if 'evaluate' in s.stages and s.evaluate.adapt.make != 'none':
        trainings.append(adapted_load(s))
    sampling = None
    if SAMPLING_STAGES & set(s.stages):
        # Rank 0 trains all weights, so the player with the lower rank is the larger one.
        larger = min((s.actor, s.critic), key=lambda player: player.lora.rank)
        players = fit_load(s, 'players', larger)
        # A text has at most as many tokens as bytes; token 0 stands for each.
        engine = s.sampling.engine.encoded(lambda text: (0,) * len(text.encode()))
        teacher = checks.teacher_shape(s, 'improve', stages=EXPLORERS)
        sampling = SamplingLoad(engine, players, s.sampling.score, teacher)
    mesh = sharding.named_shape((*s.mesh, s.context))[0]
    return RunPlan(s.model, mesh, s.base.quantize, tuple(trainings), sampling)


def fit_load(
    s: RunSettings,
    name: str,
    stage: ActorSettings | CriticSettings | ImproveSettings | PreferSettings,
) -> TrainingLoad:
    """Load of a supervised stage, or of one on pairs, which are scored before and after."""
    pairs = stage if isinstance(stage, PreferSettings) else None
    return TrainingLoad(
        name=name,
        optimizer=stage.fit.optimizer,
        lora=stage.lora,
        objective=objective.of_pairs(pairs.loss) if pairs else objective.SFT,
        transform=step.IDENTITY,
        rows=s.train.rows,
        length=(pairs and pairs.length) or s.train.length,
        num_microbatches=s.train.num_microbatches,
        others=0,
        logprobs=bool(pairs),
        teacher=checks.teacher_shape(s, 'improve', stages=EXPLORERS.keys() & {name}),
    )


def base_load(s: RunSettings) -> TrainingLoad:
    """Load of the base model, of which all weights are trained."""
    all_weights = dataclasses.replace(s.actor.lora, rank=0)
    load = fit_load(s, 'base', s.actor)
    return dataclasses.replace(load, optimizer=s.base.fit.optimizer, lora=all_weights)


def adapted_load(s: RunSettings) -> TrainingLoad:
    """Load of `evaluate.adapt`: adapters of the actor are trained for a test question.

    Rows are as long as those of scores; the whole critic is in memory, too.
    """
    load = fit_load(s, 'evaluate: adapters of a question', s.actor)
    return dataclasses.replace(
        load,
        optimizer=s.evaluate.adapt.fit.optimizer,
        lora=s.actor.lora if s.actor.lora.rank else s.evaluate.adapt.lora,
        rows=1,
        length=s.sampling.score.lengths[-1],
        num_microbatches=1,
        bases_beside=0 if s.actor.lora.rank else 1,
        each_part=True,
    )


def reinforcement_loads(s: RunSettings, name: str) -> list[TrainingLoad]:
    """Loads of an iteration: the player with the longest rows, implicit scores, a value model.

    The state of a second trained model (weights and two moments) counts as three further models,
    each copy of the weights that samples ahead as one. The mesh is not divided for rollouts.
    """
    players = REINFORCED[name]
    layouts = [s.reinforce.shared_prompt(p, s.sampling.limits, overhead=1) for p in players]
    longest = max(layouts, key=lambda layout: layout.length) if layouts[0] else None
    num_states = 1 if is_one_model(s, name) else len(players)
    # Of adapters they are small.
    copies = s.reinforce.staleness + 1 if s.reinforce.staleness and not s.reinforce.lora.rank else 0
    has_copy = s.reinforce.implicit.beta > 0 and 'actor' in players
    has_values = s.reinforce.reward_rules('actor').reads_values
    num_states += has_copy + len(players) * has_values
    update = TrainingLoad(
        name=name,
        optimizer=s.reinforce.optimizer,
        lora=s.reinforce.lora,
        objective=s.reinforce.objective,
        transform=sampling_method(s).transform,
        rows=s.reinforce.rows // s.reinforce.num_minibatches,
        length=longest.length if longest else max(map(s.reinforce.row_length, players)),
        num_microbatches=s.train.num_microbatches,
        others=1 + 3 * (num_states - 1) + copies * (num_states - len(players) * has_values),
        shared=longest,
        samples=not s.reinforce.rollout_devices,
        logprobs=s.reinforce.objective.reads_reference or not s.reinforce.reuses_update_logprobs,
        teacher=checks.teacher_shape(s, 'reinforce', stages=REINFORCED),
    )
    beside = {'transform': step.IDENTITY, 'logprobs': True, 'samples': False, 'teacher': None}
    loads, own = [update], dataclasses.replace(update, **beside)
    if has_copy:
        fields = {'objective': objective.outcome(s.reinforce.implicit.beta)}
        fields |= {'optimizer': s.reinforce.implicit_optimizer}
        loads.append(dataclasses.replace(own, name=f'{name}: implicit scores', **fields))
    if has_values:
        fields = {'objective': objective.value(s.reinforce.value.clip), 'has_values': True}
        fields |= {'optimizer': s.reinforce.value_optimizer}
        loads.append(dataclasses.replace(own, name=f'{name}: values', **fields))
    return loads


def sampling_method(s: RunSettings) -> sampling_methods.TemperatureSampling:
    """Sampling method of a run; token 0 stands for the ids that its tokenizer bans."""
    c = s.sampling
    return sampling_methods.TemperatureSampling(
        c.temperature, c.top_k, c.top_p, c.min_p, banned=(0,)
    )


def plan_for(s: RunSettings, machine: Topology) -> RunPlan:
    """The plan of a run on a machine, with the remaining chips filled into its mesh."""
    plan = plan_of(s)
    attention = kernels.implementation(plan.model, machines.platform(machine))
    model = dataclasses.replace(plan.model, attention=attention)
    mesh = sharding.fill_mesh(plan.mesh, machine.num_chips)
    return memory_plan.on_mesh(dataclasses.replace(plan, model=model), mesh)


def checked_plan(s: RunSettings, machine: Topology) -> RunPlan:
    """The plan of a run on a machine; raises ValueError, as the run, if a size does not divide."""
    plan = plan_for(s, machine)
    mesh = memory_estimate.abstract_mesh(plan.mesh)
    checks.check_mesh(s, mesh)
    checks.check_sampling(s, mesh)
    return plan


def dry_run(s: RunSettings, topology: str, *, compiled: bool = False) -> None:
    """Prints the estimated memory and traffic of each phase.

    Raises ValueError, with the nearest change that fits, if a phase does not fit; if the programs
    will be `compiled`, the compiler decides that instead.
    """
    machine = machines.topology(topology)
    check_lengths(s, longest_question=1)  # none is read: what no question could fit
    plan = checked_plan(s, machine)
    phases = memory_plan.phases(plan, machine)
    print(f'{machine.name}: {machine.num_chips} {machine.chip} of {machine.bytes / GIB:.1f} GiB')
    axes = dict(zip(sharding.named_shape(plan.mesh)[1], plan.mesh, strict=True))
    print(f'mesh {axes}, GiB a device:')
    for names, parts in merge_equal(phases).items():
        print(f'  {names}: {sum(parts.values()) / GIB:.2f} = {format_gib(parts)}')
    host = {t.name: {'host': host_bytes(plan, t)} for t in plan.trainings}
    for names, parts in merge_equal(host).items() if plan.model.remat_offloaded else ():
        print(f'  {names}: {parts["host"] / GIB:.2f} of activations in the memory of the host')
    print('GiB a device sends in a training step:')
    for names, parts in merge_equal({t.name: traffic(plan, t) for t in plan.trainings}).items():
        print(f'  {names}: {format_gib(parts) or "nothing"}')
    with jax.sharding.use_abstract_mesh(memory_estimate.abstract_mesh(plan.mesh)):
        trace_programs(s, plan)
    print('These figures are estimates from shapes; --compile asks the compiler.')
    if not compiled:
        check_fits(plan, machine, phases)


def merge_equal(by_name: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Merges equal entries into one, under their names joined by commas."""
    names_by_parts: dict[tuple, list[str]] = {}
    for name, parts in by_name.items():
        names_by_parts.setdefault(tuple(parts.items()), []).append(name)
    return {', '.join(names): dict(parts) for parts, names in names_by_parts.items()}


def format_gib(parts: dict[str, int]) -> str:
    """Non-zero parts in GiB, largest first."""
    order = sorted(parts, key=parts.get, reverse=True)
    return ', '.join(f'{name} {parts[name] / GIB:.2f}' for name in order if parts[name])


def traffic(plan: RunPlan, training: TrainingLoad) -> dict[str, int]:
    """Bytes that one device sends in a training step, by kind of collective."""
    mesh = memory_estimate.abstract_mesh(plan.mesh)
    return memory_estimate.collective_bytes(
        plan.model,
        rows=training.rows // training.num_microbatches,
        length=training.length,
        num_microbatches=training.num_microbatches,
        trained_bytes=memory_plan.state_bytes(plan, training, mesh)[0],
        mesh=mesh,
    )


def host_bytes(plan: RunPlan, training: TrainingLoad) -> int:
    """Bytes of a device's activations that a training step keeps in the memory of the host."""
    return memory_estimate.host_bytes(
        plan.model,
        rows=training.rows // training.num_microbatches,
        length=training.length,
        mesh=memory_estimate.abstract_mesh(plan.mesh),
    )


def check_fits(plan: RunPlan, machine: Topology, phases: dict[str, Phase]) -> None:
    """Raises ValueError, with the nearest change that fits, if a phase exceeds the memory."""
    worst = max(phases, key=lambda name: phases[name].total, default='')
    if not worst or phases[worst].total <= machine.usable:
        return
    phase = phases[worst]
    largest = max(phase, key=phase.get)
    message = (
        f'{machine.name}: {worst} needs {phase.total / GIB:.1f} GiB a device, of which {largest} '
        f'{phase[largest] / GIB:.1f}; usable are {machine.usable / GIB:.1f} of '
        f'{machine.bytes / GIB:.1f} GiB; '
    )
    nearest = memory_plan.nearest_fit(plan, machine)
    if nearest is None:
        raise ValueError(f'{message}no mesh fits with these rows and slots, nor more devices')
    raise ValueError(f'{message}nearest that fits: {overrides(plan, machine, fitting=nearest)}')


def overrides(plan: RunPlan, machine: Topology, *, fitting: tuple[RunPlan, Topology]) -> str:
    """Command-line flags that turn a plan into one that fits."""
    fitting_plan, fitting_machine = fitting
    flags = [f'--topology={fitting_machine.name}'] if fitting_machine != machine else []
    if fitting_plan.mesh != plan.mesh:
        flags.append(f'--config.mesh={fitting_plan.mesh[:3]}'.replace(' ', ''))
    for field in ('remat', 'remat_saved'):
        if (value := getattr(fitting_plan.model, field)) != getattr(plan.model, field):
            flags.append(f'--config.model.{field}={value}')
    if plan.trainings:
        count = fitting_plan.trainings[0].num_microbatches
        if count != plan.trainings[0].num_microbatches:
            flags.append(f'--config.train.num_microbatches={count}')
    return ' '.join(flags)


# Building the programs


def abstract_batch(training: TrainingLoad) -> Batch:
    """Batch of shapes, [rows, length] in each field."""
    floats = ('loss_mask', 'weights', 'old_logprobs', 'ref_logprobs')
    shape = (training.rows, training.length)
    return Batch(
        **{
            name: jax.ShapeDtypeStruct(shape, 'float32' if name in floats else 'int32')
            for name in Batch._fields
        }
    )


def make_step(training: TrainingLoad):
    """Returns the jitted training step."""
    return step.make_train_step(
        objective=training.objective,
        optimizer=optimizer.make_optimizer(training.optimizer, num_steps=1),
        transform=training.transform,
        num_microbatches=training.num_microbatches,
        skip_nonfinite=False,
        shared=training.shared,
        numbers=numbers_of(training),
    )


def numbers_of(training: TrainingLoad) -> step.TokenNumbers:
    """Returns the function of a token that a loss reads: log-probabilities, or values."""
    return value_head.token_values if training.has_values else logprobs.token_logprobs


def abstract_state(plan: RunPlan, training: TrainingLoad):
    """(train state, frozen base) of a training, as shapes."""
    state, frozen = memory_plan.abstract_state(
        plan.model, training.lora, optimizer=training.optimizer, quantize=plan.quantize
    )
    if training.has_values:
        update = optimizer.make_optimizer(training.optimizer, num_steps=1)
        init = value_model.state_initializer(update, plan.model)
        state = jax.eval_shape(init, state.model)
    return state, frozen


def trace_programs(s: RunSettings, plan: RunPlan) -> None:
    """Traces every training step and a chunk of decoding."""
    # Trainings that differ only by name share a trace.
    for training in {dataclasses.replace(t, name='training') for t in plan.trainings}:
        state, frozen = abstract_state(plan, training)
        jax.eval_shape(make_step(training), state, abstract_batch(training), frozen)
    if plan.sampling is not None:
        engine = plan.sampling.engine
        slots = jax.eval_shape(lambda: decode.init_state(s.model, **engine.slot_shapes))
        chunk = functools.partial(
            decode.decode_chunk,
            slots=None,
            method=sampling_method(s),
            seed=0,
            num_steps=engine.chunk_steps,
            stop_ids=(1,),
            length=engine.max_length,
            lookup=engine.lookup,
        )
        jax.eval_shape(chunk, memory_plan.abstract_player(plan), slots)
