"""Reinforcement learning of the actor, of the critic, or of both in alternation.

An iteration trains one player after the other. For a player it does this:

1. sample groups   `rollouts`: G judged episodes of each of P problems by the current weights;
                   replaces groups whose rewards are all equal (DAPO's dynamic sampling)
2. rewards         `rewards`: weighted sum of the terms of a turn; `credit`: return of a turn,
                   R_k = r_k + discount * R_{k+1}
3. advantages      `advantages`: of turns by GRPO (R - mean) / (std + eps), Dr. GRPO R - mean or
                   RLOO, of steps by their scores; or `gae` with the values of a `value_model`
4. batch           `update_batch`: one episode per row; each token has the advantage of its step,
                   old and reference log-probabilities, and an importance weight
5. updates         `updates`: num_epochs passes over num_minibatches by `train.step`, which minimise
                   - sum m f(rho, A) / norm + KL - entropy; as many updates of a value model

With one update an iteration, the samples are on-policy, and the update computes the old
log-probabilities itself. With n updates, samples are at most n - 1 updates old, and `staleness`
iterations older if another thread samples ahead (`overlap`). The trainer then recomputes the old
log-probabilities with the weights that sampled, so rho is the ratio to the policy that sampled.
"""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optax

from elenchus.data.records import Problem
from elenchus.model import lora, sharding
from elenchus.model.placement import Placement
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.sampling_methods import Method
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.step_scores import StepScorer
from elenchus.train import preemption
from elenchus.train.loop import (
    LoopSettings,
    StepInterrupted,
    Updates,
    init_train_state,
    train_loop,
)
from elenchus.train.metrics import writers
from elenchus.train.objective import Objective
from elenchus.train.optimizer import make_optimizer
from elenchus.train.rl import (
    diagnostics,
    implicit_rewards,
    overlap,
    replay,
    rollout_devices,
    value_model,
)
from elenchus.train.rl.actor_episodes import turn_overhead
from elenchus.train.rl.iteration_cursor import IterationCursor
from elenchus.train.rl.iterations import PlayerTraining, check_rows
from elenchus.train.rl.logprobs import make_logprobs
from elenchus.train.rl.overlap import OLDER, Ahead, Rollouts
from elenchus.train.rl.rollouts import RolloutSetup
from elenchus.train.rl.settings import Player, ReinforceSettings
from elenchus.train.rl.updates import update_player
from elenchus.train.step import IDENTITY, make_train_step


def reinforce(
    models: ModelPair,
    problems: Sequence[Problem],
    *,
    trained: Sequence[Player],
    settings: ReinforceSettings,
    loop: LoopSettings,
    scorer: StepScorer,
    method: Method,
    folder: pathlib.Path,
    writer: writers.Writer,
    seed: int,
    teacher: Transformer | None = None,
) -> tuple[dict[Player, Transformer], dict[str, float]]:
    """Trains the players in `trained`; returns (player -> trained model, totals of the stage).

    An iteration trains them in turn, each with the newest weights of the other. A player with
    adapters trains only these. With `settings.one_model` one model, the critic's, is both players
    and gets all updates. The reference of the KL term is the `teacher`, or else the initial player.
    All randomness follows from (seed, step), so a run resumes bit for bit from folder/checkpoints.
    """
    s, mesh = settings, sharding.current_mesh()
    if s.one_model and len(trained) > 1:
        models = dataclasses.replace(models, actor=models.critic)
    counts = (s.num_samples, s.num_refinements, s.refine, s.num_rollouts, s.rollout_threshold)
    with rollout_devices.divided(models, teacher, settings=s) as (models, teacher, place):
        result, totals = train_players(
            RolloutSetup(models, scorer, method, *counts, labels=s.labels),
            problems,
            trained=trained,
            settings=s,
            loop=loop,
            folder=folder,
            writer=writer,
            seed=seed,
            teacher=teacher,
            place=place,
        )
    return (Placement(mesh).place(result) if place else result), totals


def train_players(
    setup: RolloutSetup,
    problems: Sequence[Problem],
    *,
    trained: Sequence[Player],
    settings: ReinforceSettings,
    loop: LoopSettings,
    folder: pathlib.Path,
    writer: writers.Writer,
    seed: int,
    teacher: Transformer | None,
    place: Placement | None,
) -> tuple[dict[Player, Transformer], dict[str, float]]:
    """Does what `reinforce` says on the mesh in force; samples rollouts on the devices `place`."""
    s = settings
    is_one = s.one_model and len(trained) > 1
    num_updates = s.num_steps * s.num_updates * (len(trained) if is_one else 1)
    optimizer = make_optimizer(s.optimizer, num_steps=num_updates)
    options = {'settings': s, 'loop': loop, 'optimizer': optimizer, 'seed': seed}
    options |= {'setup': setup, 'problems': problems, 'is_one': is_one, 'teacher': teacher}
    trainings = {p: make_training(p, **options)._replace(folder=folder) for p in trained}
    implicit = make_implicit(trainings, loop) if s.implicit.beta and 'actor' in trained else None
    cursor = IterationCursor()
    engine = setup.models.sampler.engine
    with (
        Ahead(trainings, implicit=implicit, engine=engine, place=place)
        if s.staleness
        else contextlib.nullcontext()
    ) as ahead:
        states, _ = train_loop(
            lambda: initial_states(trainings, optimizer, implicit=implicit),
            functools.partial(
                train_iteration, trainings=trainings, cursor=cursor, implicit=implicit, ahead=ahead
            ),
            num_steps=s.num_steps,
            loop=dataclasses.replace(loop, log_every=1, checkpoint_every=s.checkpoint_every),
            folder=folder,
            writer=writer,
            description=f'reinforce {" and ".join(trained)}',
            cursor=cursor.to_json,
            set_cursor=cursor.restore,
            watch=diagnostics.make_watch(diagnostics.to_stderr),
            should_stop=lambda: cursor.has_spent(s.token_budget),
        )
    updates = {p: int(state.step) for p, state in states.items() if p != OLDER}
    return overlap.current_models(trainings, states), {**cursor.counters, 'updates': updates}


def make_training(
    player: Player,
    *,
    setup: RolloutSetup,
    problems: Sequence[Problem],
    settings: ReinforceSettings,
    loop: LoopSettings,
    optimizer: optax.GradientTransformation,
    seed: int,
    is_one: bool = False,  # one model is both players
    teacher: Transformer | None = None,
) -> PlayerTraining:
    """Builds the training of one player: its reference, layout of rows and compiled functions."""
    model, sampler = getattr(setup.models, player), setup.models.sampler
    overhead = turn_overhead(sampler.chat, settings.turns.episode)
    shared = settings.shared_prompt(player, sampler.max_tokens, overhead=overhead)
    value = None
    if settings.reward_rules(player).reads_values:
        options = {'shared': shared, 'loop_settings': loop}
        value = value_model.make_training(settings, player, model, **options)
    # What was written for a player has the likelihood of its whole distribution, not a sampler's.
    transform = IDENTITY if settings.imitates(player) else setup.method.transform
    layout = {'transform': transform, 'shared': shared}
    return PlayerTraining(
        settings=settings,
        player=player,
        key='actor' if is_one else player,
        setup=setup,
        problems=problems,
        reference=model,
        teacher=model if teacher is None else teacher,
        frozen=lora.split(model)[1],
        make_step=make_step_factory(optimizer, settings, loop, player=player, **layout),
        logprobs=make_logprobs(
            **layout, rows=settings.rows // settings.num_minibatches // loop.num_microbatches
        ),
        shared=shared,
        parts=check_rows(settings, loop, sharding.current_mesh()),
        seed=seed,
        value=value,
    )


def make_implicit(
    trainings: Mapping[Player, PlayerTraining], loop: LoopSettings
) -> implicit_rewards.ImplicitTraining:
    """Builds the training of the model that gives the actor's steps their scores."""
    actor = trainings['actor']
    s, chat = actor.settings, actor.setup.models.sampler.chat
    optimizer = make_optimizer(s.implicit_optimizer, num_steps=s.num_steps * s.num_minibatches)
    return implicit_rewards.make_training(
        s, chat, actor.reference, shared=actor.shared, loop=loop, optimizer=optimizer
    )


def initial_states(
    trainings: Mapping[Player, PlayerTraining],
    optimizer: optax.GradientTransformation,
    *,
    implicit: implicit_rewards.ImplicitTraining | None,
) -> dict[str, Any]:
    """Returns the states before the first iteration: of players, implicit scores and values.

    With `staleness` also copies of the weights, with which another thread samples ahead.
    """
    by_key = {training.key: training for training in trainings.values()}
    states = {
        key: init_train_state(lora.split(training.reference)[0], optimizer)
        for key, training in by_key.items()
    }
    if implicit is not None:
        model = lora.split(implicit.reference)[0]
        states[implicit_rewards.KEY] = init_train_state(model, implicit.optimizer)
    settings = next(iter(trainings.values())).settings
    states = overlap.with_older(states, settings.staleness)
    values = [training.value for training in trainings.values() if training.value is not None]
    return states | {value.key: value_model.initial_state(value) for value in values}


def train_iteration(
    step: int,
    states: dict[str, Any],
    *,
    trainings: Mapping[Player, PlayerTraining],
    cursor: IterationCursor,
    implicit: implicit_rewards.ImplicitTraining | None = None,
    ahead: Ahead | None = None,
) -> tuple[dict[str, Any], dict, Updates]:
    """Runs one iteration of each player; returns (states, metrics, updates) for the train loop.

    Adds the sampled tokens to the cursor. A request to stop is obeyed while a player samples; it
    raises StepInterrupted if another player was updated before. With `implicit`, this model scores
    the actor's steps, and is then trained on the same samples. With `ahead`, the rollouts of all
    players are taken from it before the first update.
    """
    all_updates, taken, older = [], {}, {}
    if ahead is not None:
        taken, older = ahead.take(step, states, advantage_states=cursor.advantage_states)
    for player, training in trainings.items():
        start = time.perf_counter()
        if player in cursor.row:  # before the iteration was interrupted
            continue
        try:
            # The second player meets the first one's weights of this very iteration.
            rollouts = taken.get(player) or overlap.sample_player(
                training,
                step,
                states,
                trainings=trainings,
                advantage_state=cursor.advantage_states.get(player, {}),
                implicit=implicit,
            )
        except preemption.Interrupted:
            if not cursor.row:
                raise
            raise StepInterrupted(states, all_updates) from None
        rollouts, replayed = replay_groups(training, rollouts, step=step, cursor=cursor)
        states, metrics, updates = update_states(training, states, rollouts, implicit=implicit)
        all_updates += updates
        metrics |= replayed | rollouts.times
        if ahead is None:
            seconds = time.perf_counter() - start
            metrics |= overlap.idle_shares(rollouts.times['time/rollouts'], seconds)
        cursor.add(player, rollouts.state, sampled_tokens=rollouts.sampled.tokens, updates=updates)
        if len(trainings) > 1:  # 'loss/kl' becomes 'loss/critic/kl'
            metrics = {n.replace('/', f'/{player}/', 1): value for n, value in metrics.items()}
        cursor.row[player] = metrics
    return states | older, cursor.take_row(), all_updates


def replay_groups(
    training: PlayerTraining, rollouts: Rollouts, *, step: int, cursor: IterationCursor
) -> tuple[Rollouts, dict[str, float]]:
    """Returns rollouts with replayed groups, and metrics; stores the new ones in the cursor."""
    most, player = training.settings.replay_groups, training.player
    if not most:
        return rollouts, {}
    stored, sampled = cursor.replay.get(player, []), rollouts.sampled
    value = functools.partial(rollouts.iteration.assign_credit, penalties=None)
    filled, count = replay.fill(
        sampled,
        stored,
        problems={problem.id: problem for problem in training.problems},
        value=value,
        rng=np.random.default_rng(derive_seed(training.seed, 'replay', player, step)),
    )
    cursor.replay[player] = replay.store(stored, sampled.groups, value=value, most=most)
    share = {'reward/groups_replayed': count / len(sampled.groups)}
    return rollouts._replace(sampled=filled), share


def update_states(
    training: PlayerTraining,
    states: dict[str, Any],
    rollouts: Rollouts,
    *,
    implicit: implicit_rewards.ImplicitTraining | None,
) -> tuple[dict[str, Any], dict, Updates]:
    """Takes the updates of a player, then of the model that scored its steps, if one did."""
    states, metrics, updates = update_player(training, states, rollouts)
    if implicit is None or training.player != 'actor':
        return states, metrics, updates
    state = states[implicit_rewards.KEY]
    state, more, more_updates = implicit_rewards.update(implicit, state, rollouts.sampled)
    return states | {implicit_rewards.KEY: state}, metrics | more, [*updates, *more_updates]


def make_step_factory(
    optimizer: optax.GradientTransformation,
    settings: ReinforceSettings,
    loop: LoopSettings,
    *,
    player: Player,
    **layout: Any,
) -> Callable[[Objective], Callable]:
    """Returns objective -> train step of a `layout`; every objective is compiled once."""

    @functools.cache
    def make_step(objective: Objective):
        return make_train_step(
            objective=objective,
            optimizer=optimizer,
            num_microbatches=loop.num_microbatches,
            skip_nonfinite=loop.nonfinite == 'skip',
            measure_gap=settings.reuses_update_logprobs and not settings.imitates(player),
            **layout,
        )

    return make_step
