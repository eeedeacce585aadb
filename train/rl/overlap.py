"""Rollouts that overlap updates: one thread samples what the main thread will train on.

With `reinforce.staleness` s, iteration k (from 0) is sampled with the weights after max(0, k - s)
iterations, whatever the threads' speeds: the samples depend on seed and config only. While the main
thread makes the updates of iteration k, the other thread samples iterations k + 1 to k + s. Host
work of one thread, such as grading or packing, overlaps with device work of the other.

The weights of the iterations ahead are part of the state of the train loop (`OLDER`, the oldest
first), and so of its checkpoints. After a kill, rollouts that were in progress are sampled again
with the same weights and noise; so a checkpoint never waits for rollouts.
"""

import concurrent.futures
import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from elenchus.data.records import RolloutGroup
from elenchus.model import lora, placement
from elenchus.model.placement import Placement
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.engine import Engine
from elenchus.train.rl import implicit_rewards, rollout_devices, rollouts
from elenchus.train.rl.implicit_rewards import ImplicitTraining
from elenchus.train.rl.iterations import (
    Iteration,
    PlayerTraining,
    plan_iteration,
    rollout_arguments,
)
from elenchus.train.rl.rollouts import SampledGroups
from elenchus.train.rl.settings import TRAINED_ROLES, Player
from elenchus.train.state import TrainState

OLDER = 'older'
"""Key, among the states of a train loop, of the weights after each of the last s iterations."""

Weights = Mapping[str, TrainState]
"""Trained weights by the key of their training; those of `OLDER` have no optimizer state."""


class Rollouts(NamedTuple):
    """What a player trains on in an iteration."""

    iteration: Iteration
    sampled: SampledGroups
    weights: Weights  # that sampled
    state: Mapping[str, Any]  # of the advantage function, after these groups
    times: dict[str, float]  # metrics


def sample_player(
    training: PlayerTraining,
    step: int,
    weights: Weights,
    *,
    trainings: Mapping[Player, PlayerTraining],
    advantage_state: Mapping[str, Any],
    implicit: ImplicitTraining | None,
) -> Rollouts:
    """Samples a player's rollouts of iteration `step` (from 1) by `weights`."""
    models = dataclasses.replace(training.setup.models, **current_models(trainings, weights))
    iteration = plan_iteration(training, step, models.sampler, state=advantage_state)
    arguments = rollout_arguments(training, iteration, models)
    scorer = implicit if training.player == 'actor' else None
    arguments['sample'] = implicit_rewards.scoring(scorer, weights, arguments['sample'])
    start = time.perf_counter()
    sampled = rollouts.sample_with_refill(**arguments)
    seconds = time.perf_counter() - start
    # Names below time/ go to timing.jsonl: they differ from run to run.
    times = {'time/rollouts': seconds, 'time/rollout_tokens_per_s': sampled.tokens / seconds}
    return Rollouts(iteration, sampled, weights, iteration.state_after(sampled.groups), times)


def current_models(
    trainings: Mapping[Player, PlayerTraining], weights: Weights
) -> dict[Player, Transformer]:
    """Returns the trained players with these weights."""
    return {p: lora.join(weights[t.key].model, t.frozen) for p, t in trainings.items()}


@placement.pinned_jit
def copy_weights(states: Weights) -> Weights:
    """Returns a copy without optimizer state: a train step deletes the arrays that it is given."""
    copy = lambda x: jax.tree.map(jnp.copy, x)  # noqa: E731
    return {
        key: TrainState(copy(s.step), copy(s.model), optax.EmptyState())
        for key, s in states.items()
    }


def with_older(states: dict[str, Any], staleness: int) -> dict[str, Any]:
    """Returns states before the first iteration, with the weights that sample ahead."""
    return states | {OLDER: (copy_weights(states),) * staleness} if staleness else states


class Ahead:
    """Samples iterations ahead in a thread; a context manager, which ends it at the next chunk."""

    def __init__(
        self,
        trainings: Mapping[Player, PlayerTraining],
        *,
        implicit: ImplicitTraining | None,
        engine: Engine,
        place: Placement | None,
    ):
        """`place`: where it samples, if not on the trainer's devices."""
        settings = next(iter(trainings.values())).settings
        self._staleness, self._num_steps = settings.staleness, settings.num_steps
        self._trainings, self._implicit, self._engine = trainings, implicit, engine
        self._placement = place or placement.current()
        if place:
            self._trainings = rollout_devices.place_trainings(trainings, place)
        self._pool = concurrent.futures.ThreadPoolExecutor(1, 'rollouts')
        self._sampled: dict[int, concurrent.futures.Future[dict[Player, Rollouts]]] = {}
        self._advantage_states: dict[Player, Mapping[str, Any]] | None = None
        self._taken_at = self._ended_at = time.perf_counter()
        self._stopped, self._exits = threading.Event(), contextlib.ExitStack()

    def __enter__(self) -> 'Ahead':
        self._exits.enter_context(self._stops_engine())
        self._exits.callback(self._pool.shutdown, cancel_futures=True)
        self._exits.callback(self._stopped.set)
        return self

    def __exit__(self, *_) -> None:
        self._exits.close()

    @contextlib.contextmanager
    def _stops_engine(self) -> Iterator[None]:
        """Lets the engine leave what it samples after a chunk in which the thread was stopped."""
        before = self._engine.on_chunk

        def on_chunk() -> None:
            if self._stopped.is_set():
                raise concurrent.futures.CancelledError
            before()

        self._engine.on_chunk = on_chunk
        try:
            yield
        finally:
            self._engine.on_chunk = before

    def take(
        self,
        step: int,
        states: Mapping[str, Any],
        *,
        advantage_states: Mapping[Player, Mapping[str, Any]],
    ) -> tuple[dict[Player, Rollouts], dict[str, tuple[Weights, ...]]]:
        """Waits for the rollouts of iteration `step` (from 1), with later ones in progress.

        `states` and `advantage_states` are those before the iteration. Returns the rollouts by
        player, and `OLDER` of the states after the iteration. Raises what the thread raised.
        """
        if self._advantage_states is None:  # a restored run has some
            self._advantage_states = dict(advantage_states)
        older = states[OLDER]
        weights = (*older, copy_weights({key: states[key] for key in older[0]}))
        for number in range(step, min(step + self._staleness, self._num_steps) + 1):
            if number not in self._sampled:
                self._sampled[number] = self._pool.submit(
                    self._sample, number, weights[number - step]
                )
        start = time.perf_counter()
        taken = self._sampled.pop(step).result()
        end = time.perf_counter()
        idle = {'time/trainer_idle': (end - start) / (end - self._taken_at)}
        self._taken_at = end
        for of_player in taken.values():
            of_player.times.update(idle)
        return taken, {OLDER: weights[1:]}

    def _sample(self, step: int, weights: Weights) -> dict[Player, Rollouts]:
        """Samples an iteration, in the thread."""
        with self._placement.in_force():
            here = jax.block_until_ready(self._placement.place(weights))
            start = time.perf_counter()
            result = {
                player: sample_player(
                    training,
                    step,
                    here,
                    trainings=self._trainings,
                    advantage_state=self._advantage_states.get(player, {}),
                    implicit=self._implicit,
                )
                for player, training in self._trainings.items()
            }
        self._advantage_states = {p: taken.state for p, taken in result.items()}
        end = time.perf_counter()
        idle = {'time/sampler_idle': (start - self._ended_at) / (end - self._ended_at)}
        self._ended_at = end
        return {
            player: taken._replace(
                weights=weights,
                sampled=with_policy_step(
                    taken.sampled, player, int(weights[self._trainings[player].key].step)
                ),
                times=taken.times | idle,
            )
            for player, taken in result.items()
        }


def with_policy_step(sampled: SampledGroups, player: Player, policy_step: int) -> SampledGroups:
    """Returns groups whose turns by the player have the fact `policy_step`."""

    def mark(turn):
        is_new = turn.role in TRAINED_ROLES[player] and turn.logprobs
        return turn.with_facts(policy_step=policy_step) if is_new else turn

    groups = [
        RolloutGroup(
            group.problem,
            tuple(dataclasses.replace(e, turns=tuple(map(mark, e.turns))) for e in group),
        )
        for group in sampled.groups
    ]
    return sampled._replace(groups=groups)


def idle_shares(sampling: float, total: float) -> dict[str, float]:
    """Returns the shares of an iteration in which either side waits if they alternate."""
    return {'time/trainer_idle': sampling / total, 'time/sampler_idle': 1 - sampling / total}
