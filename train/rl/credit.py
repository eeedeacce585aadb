"""Credit assignment: rewards of a group to an advantage for every step of every turn."""

import copy
import json
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from elenchus.data.records import Episode, RolloutGroup, Turn
from elenchus.sampling import user_functions
from elenchus.sampling.seeds import derive_seed
from elenchus.train.rl import advantages, rewards
from elenchus.train.rl.settings import TRAINED_ROLES, Player, RewardRules

StepAdvantages = dict[int, np.ndarray]
"""Turn number (from 1, as in Batch.turns) -> advantage, or reward, of each of its steps, [S]."""


class GroupValues(NamedTuple):
    """Rewards and advantages of a group, by episode."""

    terms: list[dict[str, rewards.TermValues]]  # by role of a trained turn: its terms, not weighted
    rewards: list[float]  # weighted reward of the last trained turn
    # With a value model rewards, paid where a step ends: advantages follow from the values too.
    advantages: list[StepAdvantages]
    state: Mapping[str, Any]  # of the advantage function, after this group
    are_compared: bool = True  # the episodes of the group; False: with a value model

    @property
    def zero_variance(self) -> bool:
        """True if all advantages are 0: no episode is better than another, nothing is learnt.

        With a value model all rewards are equal then; what is learnt depends on the values.
        """
        if not self.are_compared:
            return len(self.rewards) > 1 and len(set(self.rewards)) == 1
        return not any(steps.any() for episode in self.advantages for steps in episode.values())


def trained_turns(episode: Episode, player: Player) -> list[tuple[int, Turn]]:
    """Returns (number from 1, turn) of the turns that a player wrote."""
    roles = TRAINED_ROLES[player]
    return [(i, turn) for i, turn in enumerate(episode.turns, 1) if turn.role in roles]


def assign_credit(
    group: RolloutGroup,
    rules: RewardRules,
    *,
    limits: Mapping[str, int],
    read: Callable[[Turn], str],
    first_phase: bool,
    penalties: Sequence[Mapping[int, float]] | None,
    seed: int,
    state: Mapping[str, Any] = types.MappingProxyType({}),
) -> GroupValues:
    """Returns the rewards and advantages of a group.

    limits: tokens of a turn, by role. read: the text of a turn. first_phase: SCoRe's stage I.
    penalties: KL penalty by episode and turn number, subtracted from the turn's reward. seed: of
    the order of shuffled scores, which is the same in every call for a group. state: of the
    advantage function, after the groups before.
    """
    numbered = [trained_turns(episode, rules.player) for episode in group]
    columns = _judged_turns(group, rules, limits=limits, read=read)
    terms = [rewards.terms(rules.rewards, column) for column in columns]
    # A turn is compared with the same turn of the other episodes. So are their unknown terms.
    filled = [rewards.fill_unknown(values) for values in terms]
    shaped, returns, last_rewards = [], [], []
    discount = rules.discount(first_phase=first_phase)
    for i, turns in enumerate(numbered):
        turn_rewards = [rewards.total(rules.rewards, column[i]) for column in filled]
        last_rewards.append(turn_rewards[-1])
        row = _shape_rewards(turn_rewards, rules, first_phase=first_phase)
        if penalties is not None:
            for k, (number, _) in enumerate(turns):
                row[k] -= penalties[i][number]
        shaped.append(row)
        returns.append(advantages.discounted(row, discount=discount))

    def context() -> advantages.GroupContext:  # its own for each function, which may change it
        copies = np.array(shaped), discount, copy.deepcopy(dict(state))
        return advantages.GroupContext(rules.advantage, columns, *copies)

    outcomes, new_state = np.array(returns), state
    if not rules.imitates:
        outcomes, new_state = _outcome_advantages(outcomes, rules.advantage.outcome, context)
    by_episode = _by_step(numbered, outcomes, rules, discount=discount)
    if rules.advantage.step_coef and rules.player == 'actor' and not first_phase:
        _add_step_advantages(group, by_episode, context(), seed=seed)
    by_role = _by_role(numbered, terms)
    return GroupValues(by_role, last_rewards, by_episode, new_state, not rules.reads_values)


def _by_role(
    numbered: Sequence[Sequence[tuple[int, Turn]]], terms: Sequence[Sequence[rewards.TermValues]]
) -> list[dict[str, rewards.TermValues]]:
    """The terms of each episode's own turns, of terms [K][G]."""
    return [
        {turn.role: column[i] for (_, turn), column in zip(turns, terms, strict=False)}
        for i, turns in enumerate(numbered)
    ]


def _by_step(
    numbered: Sequence[Sequence[tuple[int, Turn]]],
    outcomes: np.ndarray,
    rules: RewardRules,
    *,
    discount: float,
) -> list[dict[int, np.ndarray]]:
    """Gives each step of a turn the turn's advantage, outcomes [G, K].

    If values are read, outcomes are rewards: they go to the last step, and an attempt that is not
    refined gets both.
    """
    of_steps = _at_last_step if rules.reads_values else np.full
    by_episode = []
    for turns, row in zip(numbered, outcomes, strict=True):
        values = list(row[: len(turns)])
        if rules.reads_values:
            values[-1] = advantages.discounted(row[len(turns) - 1 :], discount=discount)[0]
        by_episode.append(
            {
                number: of_steps(len(turn.steps), rules.advantage.outcome_coef * value, np.float32)
                for (number, turn), value in zip(turns, values, strict=True)
            }
        )
    return by_episode


def _at_last_step(num_steps: int, value: float, dtype) -> np.ndarray:
    values = np.zeros(num_steps, dtype)
    values[-1:] = value
    return values


def _judged_turns(
    group: RolloutGroup,
    rules: RewardRules,
    *,
    limits: Mapping[str, int],
    read: Callable[[Turn], str],
) -> list[tuple[rewards.JudgedTurn, ...]]:
    """The trained turns [K][G]: those at one place of the episodes beside each other.

    K is the same for all groups: an attempt that is not refined stands in the place of the
    refinement, too.
    """
    rows = [[turn for _, turn in trained_turns(episode, rules.player)] for episode in group]
    most = max(rules.num_trained_turns, *map(len, rows))
    return [
        tuple(  # no function changes what the next one gets
            rewards.JudgedTurn(
                row[min(k, len(row) - 1)],
                episode.attempt,
                group.problem,
                limits[row[min(k, len(row) - 1)].role],
                rules.overlong_tokens,
                read,
            )
            for row, episode in zip(rows, group, strict=True)
        )
        for k in range(most)
    ]


def has_state(rules: RewardRules) -> bool:
    """Returns whether the advantage function remembers earlier groups."""
    name = rules.advantage.outcome
    return hasattr(advantages.OUTCOMES.find(name, advantages.OUTCOMES_FIELD), 'update')


def _outcome_advantages(
    returns: np.ndarray, name: str, context: Callable[[], advantages.GroupContext]
) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Returns the advantages [G, K] of returns [G, K], and the function's state after them."""
    field = advantages.OUTCOMES_FIELD
    function = advantages.OUTCOMES.find(name, field)
    returned = function(returns.copy(), context())
    try:
        values = user_functions.as_floats(returned)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.shape != returns.shape or not np.isfinite(values).all():
        wanted = f'finite numbers of shape {list(returns.shape)}, one for each return'
        user_functions.refuse(function, returned, wanted, field=field)
    if not hasattr(function, 'update'):
        return values, context().state
    if not callable(function.update):
        raise ValueError(f'{field}: the attribute update={function.update!r} is no function')
    state = function.update(returns, context())
    try:
        same = isinstance(state, dict) and json.loads(json.dumps(state, allow_nan=False)) == state
    except (TypeError, ValueError):
        same = False
    if not same:
        wanted = 'a dict of plain JSON, with strings as keys, lists and finite numbers'
        user_functions.refuse(function.update, state, wanted, field=f'the update of {field}')
    return values, state


def _shape_rewards(
    turn_rewards: Sequence[float], rules: RewardRules, *, first_phase: bool
) -> list[float]:
    """Reward of each turn; with a refinement (r2) after the attempt (r1), as in SCoRe.

    Stage I: 0 and r2. Stage II: attempt * r1 and refinement * r2 + progress * (r2 - r1).
    arXiv 2409.12917.
    """
    t = rules.turns
    if rules.player == 'critic' or len(turn_rewards) == 1:
        return list(turn_rewards)
    first, second = turn_rewards
    if first_phase:
        return [0.0, second]
    return [t.attempt * first, t.refinement * second + t.progress * (second - first)]


def _add_step_advantages(
    group: Sequence[Episode],
    by_episode: Sequence[StepAdvantages],
    context: advantages.GroupContext,
    *,
    seed: int,
) -> None:
    """Adds step_coef * A(step) to the attempts' advantages, in place.

    Steps of unknown score keep their advantage as it is, and with unreached='mask' so do all steps
    after the critique's end.
    """
    a = context.settings
    attempts = [trained_turns(episode, 'actor')[0] for episode in group]
    if advantages.reads_scores(a.steps):
        scores = [_counted_scores(turn, a.unreached) for _, turn in attempts]
    else:
        scores = [[None] * len(turn.steps) for _, turn in attempts]
    if a.shuffle_scores:
        rng = np.random.default_rng(derive_seed(seed, group[0].problem_id))
        scores = advantages.permuted(scores, rng)
    function = advantages.STEPS.find(a.steps, advantages.STEPS_FIELD)
    returned = function(scores, context)
    try:
        by_step = [user_functions.as_floats(values) for values in returned]
    except (TypeError, ValueError):
        by_step = []
    shapes = [values.shape for values in by_step]
    if shapes != [(len(s),) for s in scores] or not all(np.isfinite(v).all() for v in by_step):
        wanted = f'arrays of finite numbers, one for each step: {[len(s) for s in scores]}'
        user_functions.refuse(function, returned, wanted, field=advantages.STEPS_FIELD)
    for values, (number, _), steps in zip(by_episode, attempts, by_step, strict=True):
        values[number] += np.float32(a.step_coef) * steps


def _counted_scores(turn: Turn, unreached: str) -> list[float | None]:
    """Scores of an attempt's steps; None for those that have no step advantage."""
    scores, reached = list(turn.step_scores), turn.facts.num_reached
    is_scored = reached is not None or any(score is not None for score in scores)
    assert is_scored or not scores, 'the steps of an attempt are not scored'
    if unreached == 'mask' and reached is not None:
        scores[reached:] = [None] * len(scores[reached:])
    return scores
