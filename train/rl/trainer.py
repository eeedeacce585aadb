"""Reinforcement learning of the actor, of the critic, or of both in alternation.

Life of an iteration of one player (`update_player`):

1. sample groups   `rollouts`: G episodes of each of P problems by the current weights, judged;
                   groups of zero variance are replaced (DAPO's dynamic sampling)
2. rewards         `rewards`: weighted terms of a turn; `credit`: return of a turn
                   R_k = r_k + discount * R_{k+1}
3. advantages      `advantages`: GRPO (R - mean) / (std + eps), Dr. GRPO R - mean, RLOO; of steps
4. batch           `update_batch`: one episode per row; the advantage of its step at each token,
                   old and reference log-probabilities, importance weights
5. updates         `train.step` on `train.objective`: - sum m f(rho, A) / norm + KL - entropy;
                   num_epochs passes of num_minibatches updates

With one update per iteration the data are on-policy and the update computes the old
log-probabilities itself. Otherwise the samples are at most num_updates - 1 updates stale, and rho
is taken against the policy that sampled.
"""

import dataclasses
import functools
import pathlib
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optax

from elenchus.data.batching import packing
from elenchus.data.records import Batch, Problem
from elenchus.model import lora, sharding
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.sampling_methods import TemperatureSampling
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.seeds import derive_seed
from elenchus.sampling.step_scores import StepScorer
from elenchus.train import preemption
from elenchus.train.loop import (
    LoopSettings,
    StepInterrupted,
    Updates,
    init_train_state,
    to_device,
    train_loop,
)
from elenchus.train.metrics import writers
from elenchus.train.objective import Objective
from elenchus.train.optimizer import make_optimizer
from elenchus.train.rl import credit, diagnostics, rollouts, update_batch
from elenchus.train.rl.iteration_cursor import IterationCursor
from elenchus.train.rl.logprobs import change_layout, make_logprobs
from elenchus.train.rl.rollouts import RolloutSetup, SampledGroups
from elenchus.train.rl.settings import Player, ReinforceSettings, check_rows, turn_overhead
from elenchus.train.rl.stored_rollouts import Keep, make_keep
from elenchus.train.state import TrainState
from elenchus.train.step import Transform, make_train_step


class PlayerTraining(NamedTuple):
    """Everything that the iterations of one player need, except the weights that change."""

    settings: ReinforceSettings
    player: Player
    setup: RolloutSetup  # with the initial models; those of an iteration replace them
    problems: Sequence[Problem]
    reference: Transformer  # of the KL term: the player before training
    frozen: Transformer | None  # base under trained adapters; None if all weights are trained
    make_step: Callable[[Objective], Callable]  # objective -> jitted train step, cached
    logprobs: Callable[[Transformer, Batch], np.ndarray]
    shared: SharedPrompt | None  # layout of rows whose samples share a prompt
    parts: int  # the rows of an update must divide into this many parts
    seed: int
    folder: pathlib.Path | None = None  # where the episodes of some iterations are stored


def reinforce(
    models: ModelPair,
    problems: Sequence[Problem],
    *,
    trained: Sequence[Player],
    settings: ReinforceSettings,
    loop: LoopSettings,
    scorer: StepScorer,
    method: TemperatureSampling,
    folder: pathlib.Path,
    writer: writers.Writer,
    seed: int,
) -> tuple[dict[Player, Transformer], dict[str, float]]:
    """Trains the players in `trained`, one after the other in every iteration.

    Each plays against the newest weights of the other; a player with adapters trains only these.
    All randomness follows from (seed, step), so a run resumes bit for bit from folder/checkpoints,
    where one step holds all players. Returns the trained players and totals.
    """
    s = settings
    optimizer = make_optimizer(s.optimizer, num_steps=s.num_steps * s.num_updates)
    setup = RolloutSetup(models, scorer, method, s.num_samples, s.num_refinements, s.refine)
    trainings = {
        player: make_training(
            player, setup, problems, settings=s, loop=loop, optimizer=optimizer, seed=seed
        )._replace(folder=folder)
        for player in trained
    }
    initial = {p: lora.split(training.reference)[0] for p, training in trainings.items()}
    cursor = IterationCursor()
    states, _ = train_loop(
        lambda: {p: init_train_state(weights, optimizer) for p, weights in initial.items()},
        functools.partial(train_iteration, trainings=trainings, cursor=cursor),
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
    return _current_models(trainings, states), {
        **cursor.counters,
        'updates': {p: int(state.step) for p, state in states.items()},
    }


def make_training(
    player: Player,
    setup: RolloutSetup,
    problems: Sequence[Problem],
    *,
    settings: ReinforceSettings,
    loop: LoopSettings,
    optimizer: optax.GradientTransformation,
    seed: int,
) -> PlayerTraining:
    """Builds the training of one player: its reference, layout of rows and compiled functions."""
    model, sampler = getattr(setup.models, player), setup.models.sampler
    overhead = turn_overhead(sampler.chat, settings.turns.episode)
    shared = settings.shared_prompt(player, sampler.max_tokens, overhead=overhead)
    layout = {'transform': setup.method.transform, 'shared': shared}
    return PlayerTraining(
        settings=settings,
        player=player,
        setup=setup,
        problems=problems,
        reference=model,
        frozen=lora.split(model)[1],
        make_step=make_step_factory(optimizer, settings, loop, **layout),
        logprobs=make_logprobs(
            **layout, rows=settings.rows // settings.num_minibatches // loop.num_microbatches
        ),
        shared=shared,
        parts=check_rows(settings, loop, sharding.current_mesh()),
        seed=seed,
    )


def train_iteration(
    step: int,
    states: dict[Player, TrainState],
    *,
    trainings: Mapping[Player, PlayerTraining],
    cursor: IterationCursor,
) -> tuple[dict[Player, TrainState], dict, Updates]:
    """Runs one iteration of each player; returns (states, metrics, updates) for the train loop.

    Adds the sampled and trained tokens to the cursor. A request to stop is obeyed while a player
    samples; raises StepInterrupted if a player before it has taken its updates.
    """
    all_updates = []
    for player, training in trainings.items():
        if player in cursor.row:  # before the iteration was interrupted
            continue
        # The second player meets the first one's weights of this very iteration.
        models = dataclasses.replace(training.setup.models, **_current_models(trainings, states))
        iteration = plan_iteration(
            training, step, models.sampler, state=cursor.advantage_states.get(player, {})
        )
        start = time.perf_counter()
        try:
            sampled = rollouts.sample_with_refill(**rollout_arguments(training, iteration, models))
        except preemption.Interrupted:
            if not cursor.row:
                raise
            raise StepInterrupted(states, all_updates) from None
        seconds = time.perf_counter() - start
        state, metrics, updates = update_player(
            training, states[player], sampled, iteration=iteration
        )
        states = states | {player: state}
        all_updates += updates
        cursor.advantage_states[player] = iteration.state_after(sampled.groups)
        cursor.counters['tokens_sampled'] += sampled.tokens
        for _, minibatch in updates:
            cursor.counters.update(packing.token_counts(minibatch))
        # Names below time/ go to timing.jsonl: they differ from run to run.
        metrics |= {'time/rollouts': seconds, 'time/rollout_tokens_per_s': sampled.tokens / seconds}
        if len(trainings) > 1:  # 'loss/kl' becomes 'loss/critic/kl'
            metrics = {n.replace('/', f'/{player}/', 1): value for n, value in metrics.items()}
        cursor.row[player] = metrics
    row = {name: value for metrics in cursor.row.values() for name, value in metrics.items()}
    cursor.row = {}
    return states, row | {'sampled/tokens': cursor.counters['tokens_sampled']}, all_updates


def _current_models(
    trainings: Mapping[Player, PlayerTraining], states: dict[Player, TrainState]
) -> dict[Player, Transformer]:
    return {p: lora.join(state.model, trainings[p].frozen) for p, state in states.items()}


class Iteration(NamedTuple):
    """Choices of one iteration of a player: its loss, its credit rules and its random numbers."""

    objective: Objective
    assign_credit: Callable[..., credit.GroupValues]  # (group, penalties=) -> advantages
    rng: np.random.Generator
    state: Mapping[str, Any]  # of the advantage function, before the iteration
    keep: Keep | None  # stores the episodes; None: those of this iteration are not stored

    def state_after(self, groups: rollouts.Groups) -> Mapping[str, Any]:
        """Returns the state of the advantage function after these groups."""
        state = self.state
        for group in groups if credit.has_state(self.assign_credit.keywords['rules']) else ():
            state = self.assign_credit(group, penalties=None, state=state).state
        return state


def plan_iteration(
    training: PlayerTraining, step: int, sampler: Sampler, *, state: Mapping[str, Any]
) -> Iteration:
    """Returns the choices of iteration `step`; the first phase of SCoRe has its own objective.

    All groups of an iteration see the `state` of the advantage function before it.
    """
    s, player = training.settings, training.player
    first_phase = player == 'actor' and step <= s.turns.first_phase_steps
    objective = s.first_phase_objective if first_phase else s.objective
    assign_credit = functools.partial(
        credit.assign_credit,
        rules=s.reward_rules(player),
        limits=sampler.max_tokens,
        read=sampler.chat.text,
        first_phase=first_phase,
        state=state,
        # Not drawn from the iteration's generator: all else is as without shuffled scores.
        seed=derive_seed(training.seed, 'scores', step),
    )
    keep = make_keep(training.folder, player, step, settings=s)
    return Iteration(objective, assign_credit, make_rng(training.seed, step, player), state, keep)


def update_player(
    training: PlayerTraining, state: TrainState, sampled: SampledGroups, *, iteration: Iteration
) -> tuple[TrainState, dict, Updates]:
    """Takes the updates of one iteration on sampled groups; returns (state, metrics, updates)."""
    s, player, objective = training.settings, training.player, iteration.objective
    policy = functools.partial(training.logprobs, lora.join(state.model, training.frozen))
    if s.reuses_update_logprobs:
        objective, policy = dataclasses.replace(objective, on_policy=True), None
    batch, metrics = update_batch.make_batch(
        sampled,
        update_batch.RowLayout(
            player, s.row_length(player), s.num_samples, s.importance_cap, s.mask_truncated
        ),
        training.setup.models.sampler.chat,
        assign_credit=iteration.assign_credit,
        objective=objective,
        logprobs=update_batch.LogprobFunctions(
            policy, functools.partial(training.logprobs, training.reference)
        ),
        keep=iteration.keep,
    )
    train_step, updates = training.make_step(objective), []
    for _ in range(s.num_epochs):
        for part in np.split(iteration.rng.permutation(s.rows), s.num_minibatches):
            rows = update_batch.expand_groups(np.sort(part), s.samples_per_row)
            minibatch = Batch(*(values[rows] for values in batch))
            if s.drop_zero_advantage_rows:
                minibatch = update_batch.drop_zero_advantage_rows(
                    minibatch, objective, parts=training.parts, samples_per_row=s.samples_per_row
                )
            merged, _ = change_layout(minibatch, training.shared)
            state, values = train_step(state, to_device(merged), training.frozen)
            updates.append((values, minibatch))
    return state, metrics | update_batch.mean_of_updates([v for v, _ in updates]), updates


def make_rng(seed: int, step: int, player: Player) -> np.random.Generator:
    """Returns the generator of a player's iteration: problems, sampling noise, order of rows.

    It depends on nothing else, so that an iteration can be repeated after a restart.
    """
    return np.random.default_rng((seed, step, zlib.crc32(player.encode())))


def rollout_arguments(
    training: PlayerTraining, iteration: Iteration, models: ModelPair
) -> dict[str, Any]:
    """Returns the arguments of `rollouts.sample_with_refill` for randomly drawn problems."""
    s, rng = training.settings, iteration.rng
    drawn = rng.permutation(len(training.problems))[: s.num_problems * (s.refill_rounds + 1)]
    return {
        'sample': functools.partial(
            rollouts.ROLLOUTS[training.player],
            training.setup._replace(models=models),
            s.reward_rules(training.player),
        ),
        'is_zero_variance': lambda group: (
            iteration.assign_credit(group, penalties=None).zero_variance
        ),
        'problems': [training.problems[i] for i in drawn],
        'num_groups': s.num_problems,
        'seeds': rng.integers(2**32, size=s.refill_rounds + 1).tolist(),
    }


def make_step_factory(
    optimizer: optax.GradientTransformation,
    settings: ReinforceSettings,
    loop: LoopSettings,
    *,
    transform: Transform,
    shared: SharedPrompt | None,
) -> Callable[[Objective], Callable]:
    """Returns objective -> train step; cached, so that every objective is compiled once."""

    @functools.cache
    def make_step(objective: Objective):
        return make_train_step(
            objective=objective,
            optimizer=optimizer,
            transform=transform,
            num_microbatches=loop.num_microbatches,
            skip_nonfinite=loop.nonfinite == 'skip',
            measure_gap=settings.reuses_update_logprobs,
            shared=shared,
        )

    return make_step
