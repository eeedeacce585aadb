"""Calls every program of a run in the order of the run, with the arrays that the run would pass.

A `Call` compiles a program and returns its results as shapes with the shardings that the compiler
chose. The next program is compiled for these, as in the run, so shardings that the code does not
pin are those of the compiler.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.model import lora, placement, quantization
from elenchus.model.placement import Placement
from elenchus.model.transformer import Transformer
from elenchus.sampling import step_scores
from elenchus.sampling.engine import engine
from elenchus.sampling.engine.calls import Call
from elenchus.train import loop
from elenchus.train import optimizer as optimizers
from elenchus.train.checkpoints import saved_models
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import dry_run
from elenchus.train.planning.memory_plan import RunPlan, TrainingLoad
from elenchus.train.rl import value_model
from elenchus.train.rl.logprobs import make_logprobs
from elenchus.train.state import TrainState

NUM_VERDICTS = 16  # verdict positions of the scoring pass: step_scores pads to at least as many


def groups(s: RunSettings, plan: RunPlan, mesh: jax.sharding.Mesh) -> Iterator[Callable]:
    """Functions of a `Call`: each calls the programs of one training, or those of sampling.

    The mesh must be in force when they are called.
    """
    for training in distinct_trainings(plan):
        yield functools.partial(call_training, plan, training, mesh=mesh)
    if plan.sampling is not None:
        yield functools.partial(call_sampling, s, plan, mesh=mesh)


def call_sampling(s: RunSettings, plan: RunPlan, call: Call, *, mesh: jax.sharding.Mesh) -> None:
    """Calls the programs of the engine, with the run's sampling method, and the scoring pass."""
    model = player(plan, plan.sampling.players, mesh=mesh, call=call)
    sampler = engine.Engine(plan.sampling.engine, stop_ids=(1,))
    sampler.warm_up(model, method=dry_run.sampling_method(s), call=call)
    call_scoring(s, model, call=call)


def distinct_trainings(plan: RunPlan) -> Iterator[TrainingLoad]:
    """Trainings of different programs; equal ones are one, with their names joined by commas."""
    names: dict[TrainingLoad, list[str]] = {}
    for training in plan.trainings:
        unnamed = dataclasses.replace(training, name='', others=0)
        names.setdefault(unnamed, []).append(training.name)
    for training, equal in names.items():
        yield dataclasses.replace(training, name=', '.join(equal))


def call_training(
    plan: RunPlan, training: TrainingLoad, call: Call, *, mesh: jax.sharding.Mesh
) -> None:
    """Calls the programs of one kind of training: first state, step, log-probabilities."""
    trained, frozen = parts(plan, training, mesh=mesh, call=call)
    state = first_state(plan, training, trained, call=call)
    batch = Placement(mesh).abstract(dry_run.abstract_batch(training), placement.ROWS)
    call(f'{training.name}: train step', dry_run.make_step(training), state, batch, frozen)
    if training.logprobs:
        trained = state.model if training.has_values else trained
        model = trained if frozen is None else passed_through(lora.join, trained, frozen)
        call_logprobs(training, model, call, mesh=mesh)


def call_logprobs(
    training: TrainingLoad, model: Transformer, call: Call, *, mesh: jax.sharding.Mesh
) -> None:
    """Calls the pass for old or reference log-probabilities of a training's model."""
    rows = training.rows // training.num_microbatches
    numbers = dry_run.numbers_of(training)
    layout = {'transform': training.transform, 'shared': training.shared, 'rows': rows}
    logprobs = make_logprobs(**layout, numbers=numbers)
    one_pass = dataclasses.replace(training, rows=rows)
    batch = Placement(mesh).abstract(dry_run.abstract_batch(one_pass), placement.ROWS)
    call(f'{training.name}: log-probabilities', logprobs.program, model, batch)


def first_state(plan: RunPlan, training: TrainingLoad, trained: Any, *, call: Call) -> TrainState:
    """The state before the first step, as `train.loop.init_train_state` makes it."""
    optimizer = optimizers.make_optimizer(training.optimizer, num_steps=1)
    init = loop.state_initializer(optimizer)
    if training.has_values:
        init = value_model.state_initializer(optimizer, plan.model)
    return call(f'{training.name}: first state', placement.current().jit(init), trained)


def parts(plan: RunPlan, training: TrainingLoad, *, mesh, call: Call):
    """(trained, frozen) of a player as the run loads them: `ModelStore.load_to_train`."""
    base = saved_models.abstract_model(plan.model, mesh)
    if not training.lora.rank:
        return base, None
    if plan.quantize != 'none':
        base = call('quantize', quantization.quantize_matrices, base, kind=plan.quantize)
    adaptation = lora.Adaptation(training.lora, '', 0, plan.quantize)
    adapters = jax.eval_shape(lambda: lora.init_adapters(plan.model, adaptation, jax.random.key(0)))
    return Placement(mesh).abstract(adapters), base


def player(plan: RunPlan, training: TrainingLoad, *, mesh, call: Call) -> Transformer:
    """A whole player, as the sampler and the scorer get it."""
    trained, frozen = parts(plan, training, mesh=mesh, call=call)
    return trained if frozen is None else passed_through(lora.join, trained, frozen)


def passed_through(function, *trees: Any) -> Any:
    """function(*trees) of abstract arrays for a function that only rearranges its arguments.

    Every leaf of the result is a leaf of an argument, with its sharding.
    """
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*trees)
    leaves = dict(zip(jaxpr.jaxpr.invars, jax.tree.leaves(trees), strict=True))
    return jax.tree.unflatten(
        jax.tree.structure(shapes), [leaves[variable] for variable in jaxpr.jaxpr.outvars]
    )


def call_scoring(s: RunSettings, critic: Transformer, *, call: Call) -> None:
    """Calls the scoring pass in all its lengths."""
    shapes = s.sampling.score
    for length in shapes.lengths:
        call(
            f'scoring {shapes.rows} x {length}',
            step_scores.verdict_scores,
            critic,
            np.zeros((shapes.rows, length), np.int32),
            np.zeros(shapes.rows, np.int32),
            verdict_positions=np.full((shapes.rows, NUM_VERDICTS), -1, np.int32),
            correct_id=np.int32(0),
            wrong_id=np.int32(1),
        )


def placed_bytes(tree: Any) -> int:
    """Bytes of one device's shares of arrays or shapes with shardings; others count whole."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        shape = tuple(jnp.shape(leaf))
        place = getattr(leaf, 'sharding', None)
        local = shape if place is None else place.shard_shape(shape)
        total += -(-int(np.prod(local)) * jax.dtypes.itemsize_bits(leaf.dtype) // 8)
    return total


def is_large(name: str) -> bool:
    """True for a program that takes long to compile, and on whose results no other depends."""
    kinds = ('prefill', 'decode ', 'scoring', 'read slots')
    return name.startswith(kinds) or name.endswith((': train step', ': log-probabilities'))
