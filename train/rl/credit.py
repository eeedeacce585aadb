"""Credit assignment: rewards of a group to an advantage for every step of every turn."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elenchus.data.records import Episode, Turn
from elenchus.sampling.seeds import derive_seed
from elenchus.train.rl import advantages, rewards
from elenchus.train.rl.settings import TRAINED_ROLES, Player, RewardRules

StepAdvantages = dict[int, np.ndarray]
"""Turn number (from 1, as in Batch.turns) -> advantage of each of its steps, [S]."""


class GroupValues(NamedTuple):
    """Rewards and advantages of a group, by episode."""

    terms: list[dict[str, rewards.TermValues]]  # by role of a trained turn: its terms, not weighted
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
    seed: int,
) -> GroupValues:
    """Returns the rewards and advantages of a group.

    limits: tokens of a turn, by role. first_phase: SCoRe's stage I. penalties: KL penalty by
    episode and turn number, subtracted from the turn's reward. seed: of the order of shuffled
    scores, which is the same in every call for a group.
    """
    terms = [_reward_terms(episode, rules, limits=limits) for episode in group]
    # A turn is compared with the same turn of the other episodes: attempts with attempts, and
    # refinements with refinements. So are their unknown terms.
    columns = [rewards.fill_unknown([values[role] for values in terms]) for role in terms[0]]
    returns, last_rewards = [], []
    for i, episode in enumerate(group):
        turns = trained_turns(episode, rules.player)
        turn_rewards = [rewards.total(rules.rewards, column[i]) for column in columns]
        shaped = _shape_rewards(turn_rewards, rules, first_phase=first_phase)
        if penalties is not None:
            shaped = [r - penalties[i][n] for r, (n, _) in zip(shaped, turns, strict=True)]
        last_rewards.append(turn_rewards[-1])
        # Stage I maximises E[r2], whose gradient has the score function of both turns: without
        # r2 in its return the attempt would only be held to the reference.
        discount = 1.0 if first_phase else rules.turns.discount
        returns.append(advantages.discounted(shaped, discount=discount))
    a = rules.advantage
    to_advantages = advantages.ADVANTAGES[a.outcome]
    by_turn = [to_advantages(column, epsilon=a.epsilon) for column in zip(*returns, strict=True)]
    by_episode = [
        {
            number: np.full(len(turn.steps), a.outcome_coef * by_turn[k][i], np.float32)
            for k, (number, turn) in enumerate(trained_turns(episode, rules.player))
        }
        for i, episode in enumerate(group)
    ]
    if a.step_coef and rules.player == 'actor' and not first_phase:
        _add_step_advantages(group, by_episode, rules, seed=seed)
    return GroupValues(terms, last_rewards, by_episode)


def _reward_terms(
    episode: Episode, rules: RewardRules, *, limits: Mapping[str, int]
) -> dict[str, rewards.TermValues]:
    """The reward terms of each trained turn, by role."""
    return {
        turn.role: rewards.terms(
            rules.rewards,
            rewards.JudgedTurn(turn, episode.attempt, limits[turn.role], rules.overlong_tokens),
        )
        for _, turn in trained_turns(episode, rules.player)
    }


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
    rules: RewardRules,
    *,
    seed: int,
) -> None:
    """Adds step_coef * A(step) to the attempts' advantages, in place.

    Steps of unknown score keep their advantage as it is, and with unreached='mask' so do all steps
    after the critique's end.
    """
    a = rules.advantage
    attempts = [trained_turns(episode, 'actor')[0] for episode in group]
    scores = [_counted_scores(turn, a.unreached) for _, turn in attempts]
    if a.shuffle_scores:
        rng = np.random.default_rng(derive_seed(seed, group[0].problem_id))
        scores = advantages.permuted(scores, rng)
    if a.steps == 'normalised':
        by_step = advantages.process_normalised(
            scores, epsilon=a.epsilon, std_floor=a.std_floor, baseline=a.baseline
        )
    else:
        # V(question): the share of right attempts is the group's own estimate of success.
        start = float(np.mean([episode.attempt.facts.correct for episode in group]))
        by_step = [advantages.step_differences(s, start=start) for s in scores]
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
