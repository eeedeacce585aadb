"""Credit assignment: rewards of a group to an advantage for every step of every turn."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elenchus.data.records import Episode, Turn
from elenchus.train.rl import advantages, rewards
from elenchus.train.rl.settings import TRAINED_ROLES, Player, RewardRules

StepAdvantages = dict[int, np.ndarray]
"""Turn number (from 1, as in Batch.turns) -> advantage of each of its steps, [S]."""


class GroupValues(NamedTuple):
    """Rewards and advantages of a group, by episode."""

    terms: list[dict[str, float]]  # reward terms of the last trained turn, not weighted
    rewards: list[float]  # weighted reward of the last trained turn
    advantages: list[StepAdvantages]

    @property
    def zero_variance(self) -> bool:
        """True if all advantages are 0: no episode is better than another, nothing is learnt."""
        return not any(steps.any() for episode in self.advantages for steps in episode.values())


def trained_turns(episode: Episode, player: Player) -> list[tuple[int, Turn]]:
    """Returns (number from 1, turn) of the turns that a player wrote."""
    roles = TRAINED_ROLES[player]
    return [(i, turn) for i, turn in enumerate(episode.turns, 1) if turn.role in roles]


def assign_credit(
    group: Sequence[Episode],
    rules: RewardRules,
    *,
    limits: Mapping[str, int],
    first_phase: bool,
    penalties: Sequence[Mapping[int, float]] | None,
) -> GroupValues:
    """Returns the rewards and advantages of a group.

    limits: tokens of a turn, by role. first_phase: SCoRe's stage I. penalties: KL penalty by
    episode and turn number, subtracted from the turn's reward.
    """
    last_terms, last_rewards, returns = [], [], []
    for i, episode in enumerate(group):
        turns = trained_turns(episode, rules.player)
        terms = [_reward_terms(episode, turn, rules, limits=limits) for _, turn in turns]
        turn_rewards = [rewards.total(rules.rewards, values) for values in terms]
        shaped = _shape_rewards(turn_rewards, rules, first_phase=first_phase)
        if penalties is not None:
            shaped = [r - penalties[i][n] for r, (n, _) in zip(shaped, turns, strict=True)]
        last_terms.append(terms[-1])
        last_rewards.append(turn_rewards[-1])
        # Stage I maximises E[r2], whose gradient has the score function of both turns: without
        # r2 in its return the attempt would only be held to the reference.
        discount = 1.0 if first_phase else rules.turns.discount
        returns.append(advantages.discounted(shaped, discount=discount))
    a = rules.advantage
    to_advantages = advantages.ADVANTAGES[a.outcome]
    # A turn is compared with the same turn of the other episodes: attempts with attempts, and
    # refinements with refinements.
    by_turn = [to_advantages(column, epsilon=a.epsilon) for column in zip(*returns, strict=True)]
    by_episode = [
        {
            number: np.full(len(turn.steps), a.outcome_coef * by_turn[k][i], np.float32)
            for k, (number, turn) in enumerate(trained_turns(episode, rules.player))
        }
        for i, episode in enumerate(group)
    ]
    if a.step_coef and rules.player == 'actor' and not first_phase:
        _add_step_advantages(group, by_episode, rules)
    return GroupValues(last_terms, last_rewards, by_episode)


def _reward_terms(episode: Episode, turn: Turn, rules: RewardRules, *, limits) -> dict[str, float]:
    limit = limits[turn.role]
    judged = rewards.JudgedTurn(turn, episode.attempt, limit, rules.overlong_tokens)
    return rewards.terms(rules.rewards, judged)


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
    group: Sequence[Episode], by_episode: Sequence[StepAdvantages], rules: RewardRules
) -> None:
    """Adds step_coef * A(step) to the attempts' advantages, in place."""
    a = rules.advantage
    attempts = [trained_turns(episode, 'actor')[0] for episode in group]
    scores = [turn.step_scores for _, turn in attempts]
    if a.steps == 'normalised':
        by_step = advantages.process_normalised(scores, epsilon=a.epsilon)
    else:
        # V(question): the share of right attempts is the group's own estimate of success.
        start = float(np.mean([episode.attempt.facts.correct for episode in group]))
        by_step = [advantages.step_differences(s, start=start) for s in scores]
    for values, (number, _), steps in zip(by_episode, attempts, by_step, strict=True):
        values[number] = values[number] + np.float32(a.step_coef) * steps
