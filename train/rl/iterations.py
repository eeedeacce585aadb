"""Plans an iteration of a player: the objective, credit rules and random numbers of its step."""

import functools
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from elenchus.data.records import Batch, Problem
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.transformer import Transformer
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.seeds import derive_seed
from elenchus.train.loop import LoopSettings
from elenchus.train.objective import SFT, Objective
from elenchus.train.rl import credit, rollouts
from elenchus.train.rl.rollouts import RolloutSetup
from elenchus.train.rl.settings import Player, ReinforceSettings
from elenchus.train.rl.stored_rollouts import Keep, make_keep
from elenchus.train.rl.true_verdicts import write_true_verdicts
from elenchus.train.rl.value_model import ValueTraining


class PlayerTraining(NamedTuple):
    """Everything that the iterations of one player need, except the weights that change."""

    settings: ReinforceSettings
    player: Player
    key: str  # of its state; one model that is both players has one state
    setup: RolloutSetup  # with the initial models; those of an iteration replace them
    problems: Sequence[Problem]
    reference: Transformer  # the player before training
    teacher: Transformer  # of the KL term: the reference, or another model
    frozen: Transformer | None  # base under trained adapters; None if all weights are trained
    make_step: Callable[[Objective], Callable]  # objective -> jitted train step, cached
    logprobs: Callable[[Transformer, Batch], np.ndarray]
    shared: SharedPrompt | None  # layout of rows whose samples share a prompt
    parts: int  # the rows of an update must divide into this many parts
    seed: int
    folder: pathlib.Path | None = None  # where the episodes of some iterations are stored
    value: ValueTraining | None = None  # of the model from whose values advantages follow


class Iteration(NamedTuple):
    """Choices of one iteration of a player: its loss, its credit rules and its random numbers."""

    objective: Objective
    assign_credit: Callable[..., credit.GroupValues]  # (group, penalties=) -> advantages
    rng: np.random.Generator
    state: Mapping[str, Any]  # of the advantage function, before the iteration
    keep: Keep | None  # stores the episodes; None: those of this iteration are not stored

    @property
    def turn_discount(self) -> float:
        """Discount of the next turn's return."""
        arguments = self.assign_credit.keywords
        return arguments['rules'].discount(first_phase=arguments['first_phase'])

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
    if s.imitates(player):
        objective = SFT
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
    player, rules = training.player, s.reward_rules(training.player)
    rollout = write_true_verdicts if s.imitates(player) else rollouts.ROLLOUTS[player]
    return {
        'sample': functools.partial(rollout, training.setup._replace(models=models), rules),
        'is_zero_variance': lambda group: (
            iteration.assign_credit(group, penalties=None).zero_variance
        ),
        'problems': [training.problems[i] for i in drawn],
        'num_groups': s.num_problems,
        'seeds': rng.integers(2**32, size=s.refill_rounds + 1).tolist(),
    }


def check_rows(settings: ReinforceSettings, loop: LoopSettings, mesh: jax.sharding.Mesh) -> int:
    """Returns the number of parts into which mesh and microbatches split the rows of an update.

    Raises ValueError if a minibatch does not divide into them.
    """
    rows = settings.rows // settings.num_minibatches
    parts = mesh.shape['data'] * mesh.shape['fsdp'] * loop.num_microbatches
    if rows % parts:
        raise ValueError(
            f'reinforce.num_problems * num_samples / samples_per_row / num_minibatches = {rows} '
            f'does not divide over data * fsdp * num_microbatches = {parts}; nearest: '
            f'{max(1, rows // parts) * parts}'
        )
    return parts
