"""Advantage estimators: rewards of a group of samples to weights of turns, steps and tokens."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from elenchus.data.records import ROLES, Batch
from elenchus.model.ranges import Coefficient, Range, checked
from elenchus.sampling.slots import Slot

TOOL = ROLES.index('tool')

Baseline = Literal['group', 'position']
"""Steps whose mean and deviation normalise a step's reward: all of the group, or those of its
position."""


def exact_mean(values: Sequence[float]) -> float:
    """Returns the mean of numbers, and exactly their value where all are equal.

    The mean of six times 0.1 is rounded to less than 0.1: a group without any difference would have
    advantages of 1e-13, and would not count as one of zero variance.
    """
    first = float(values[0])
    return first if all(value == first for value in values) else float(np.mean(values))


def group_normalised(rewards: Sequence[float], *, epsilon: float) -> np.ndarray:
    """Returns (r - mean) / (std + epsilon) over a group, [G]. GRPO, arXiv 2402.03300."""
    r = np.asarray(rewards, np.float64)
    return ((r - exact_mean(r)) / (r.std() + epsilon)).astype(np.float32)


def centred(rewards: Sequence[float]) -> np.ndarray:
    """Returns r - mean, [G]. Dr. GRPO, arXiv 2503.20783.

    Without the division by std, very easy and very hard problems get no extra weight.
    """
    r = np.asarray(rewards, np.float64)
    return (r - exact_mean(r)).astype(np.float32)


def leave_one_out(rewards: Sequence[float]) -> np.ndarray:
    """Returns r_i - mean of the other rewards, [G], G > 1. RLOO, arXiv 2402.14740."""
    r = np.asarray(rewards, np.float64)
    return ((r - exact_mean(r)) * len(r) / (len(r) - 1)).astype(np.float32)


StepRewards = Sequence[float | None]
"""Rewards of the steps of one sample; None or NaN = unknown."""


def process_normalised(
    step_rewards: Sequence[StepRewards],
    *,
    epsilon: float,
    std_floor: float = 0.0,
    baseline: Baseline = 'group',
) -> list[np.ndarray]:
    """Returns the advantage of every step: sum of its own and later normalised rewards, [S] each.

    Rewards are normalised, (r - mean) / (max(std, std_floor) + epsilon), over all steps of all
    samples of the group. GRPO with process supervision, arXiv 2402.03300, section 4.1.3. The floor
    is ours: the std of nearly equal rewards is noise. With baseline 'position', step i has the mean
    and std of the i-th steps of the samples that have one.

    An unknown reward (None) counts in no mean, std or sum, and its step has advantage 0.
    """
    rewards = [np.asarray(r, np.float64) for r in step_rewards]
    longest = max(map(len, rewards))
    if baseline == 'group':
        columns = [np.concatenate(rewards)] * longest
    else:
        columns = [np.array([r[i] for r in rewards if len(r) > i]) for i in range(longest)]
    # A column without any known reward needs no mean: all of its advantages are 0.
    columns = [
        column[~np.isnan(column)] if not np.isnan(column).all() else np.zeros(1)
        for column in columns
    ]
    means = np.array([exact_mean(column) for column in columns])
    divisors = np.array([max(column.std(), std_floor) + epsilon for column in columns])
    results = []
    for r in rewards:
        normalised = np.nan_to_num((r - means[: len(r)]) / divisors[: len(r)])
        sums = normalised[::-1].cumsum()[::-1]
        results.append(np.where(np.isnan(r), 0.0, sums).astype(np.float32))
    return results


def permuted(
    step_rewards: Sequence[StepRewards], rng: np.random.Generator
) -> list[list[float | None]]:
    """Returns the rewards of a group's steps in random places, as many for each sample as before.

    A control: the rewards have the same mean and deviation but say nothing about their steps.
    Unknown rewards (None) keep their places.
    """
    known = [r for rewards in step_rewards for r in rewards if r is not None]
    drawn = iter(rng.permutation(known))
    return [
        [None if r is None else float(next(drawn)) for r in rewards] for rewards in step_rewards
    ]


def step_differences(step_values: StepRewards, *, start: float) -> np.ndarray:
    """Returns V(prefix_i) - V(prefix_{i-1}) of every step, [S], with V(no step) = start.

    The advantage of a step is its effect on the probability of success, arXiv 2406.14532. It is 0
    where one of the two values is unknown.
    """
    values = np.asarray([start, *step_values], np.float64)
    return np.nan_to_num(np.diff(values)).astype(np.float32)


def discounted(rewards: Sequence[float], *, discount: float) -> list[float]:
    """Returns the discounted return of every turn, R_k = r_k + discount * R_{k+1}."""
    returns, total = [], 0.0
    for reward in reversed(rewards):
        total = reward + discount * total
        returns.append(total)
    return returns[::-1]


def truncated_importance(
    trainer_logprobs: np.ndarray, sampler_logprobs: np.ndarray, *, cap: float
) -> np.ndarray:
    """Returns the token weight min(exp(trainer - sampler), cap), same shape as the arguments.

    It corrects for a sampler whose numerics differ from the trainer's. Yao et al. 2025, "Your
    efficient RL framework secretly brings you off-policy training".
    """
    # Capped before the exponential, which would overflow for a large gap.
    gap = np.minimum(trainer_logprobs - sampler_logprobs, np.log(cap))
    return np.exp(gap).astype(np.float32)


def at_tokens(batch: Batch, values: Sequence[Mapping[int, np.ndarray]]) -> np.ndarray:
    """Returns the value of each token's step, [B, T]; 0 on other tokens, and on those of tools.

    One sequence per row.

    values[row]: turn number, as in Batch.turns -> value of each step of that turn.
    """
    weights = np.zeros(batch.tokens.shape, np.float32)
    for row, turns in enumerate(values):
        for turn, steps in turns.items():
            in_steps = (batch.turns[row] == turn) & (batch.steps[row] > 0)
            in_steps &= batch.roles[row] != TOOL
            weights[row, in_steps] = np.asarray(steps, np.float32)[batch.steps[row, in_steps] - 1]
    return weights


def over_tokens(step_values: StepRewards, step_ends: Sequence[int]) -> np.ndarray:
    """Repeats each step's value at all its tokens, [step_ends[-1]]; NaN where it is unknown."""
    lengths = [end - start for start, end in itertools.pairwise((0, *step_ends))]
    return np.repeat(np.asarray(step_values, np.float32), lengths)


class GroupContext(NamedTuple):
    """What an advantage may depend on besides the returns or scores of a group's G samples."""

    settings: 'AdvantageSettings'
    # [K][G]: JudgedTurn of each sample's K-th trained turn, or of its last one.
    turns: Sequence[Sequence[Any]]
    rewards: np.ndarray  # [G, K]: of each turn alone, shaped and less penalties
    discount: float  # of the next turn's return
    state: Mapping[str, Any]  # what the function's `update` returned last; {} at first


Outcome = Callable[[np.ndarray, GroupContext], np.ndarray]
"""(returns [G, K], context) -> advantages [G, K] of the K trained turns of G samples.

It may have an attribute `update(returns, context) -> state`, called once for each group after its
iteration. The state is plain JSON and part of the checkpoint."""


def by_turn(estimate: Callable[..., np.ndarray]) -> Outcome:
    """Returns the advantage that compares each turn with the same turn of the other samples."""

    def outcome(returns: np.ndarray, context: GroupContext) -> np.ndarray:
        columns = [estimate(column, epsilon=context.settings.epsilon) for column in returns.T]
        return np.stack(columns, axis=1)

    return outcome


def _rewards(returns: np.ndarray, context: GroupContext) -> np.ndarray:
    return context.rewards


_rewards.reads_values = True

OUTCOMES_FIELD = 'reinforce.advantage.outcome'
OUTCOMES = Slot(
    '(returns [G, K], context) -> [G, K]',
    {
        'grpo': by_turn(group_normalised),
        'dr_grpo': by_turn(lambda rewards, *, epsilon: centred(rewards)),
        'rloo': by_turn(lambda rewards, *, epsilon: leave_one_out(rewards)),
        'gae': _rewards,
    },
)


def reads_values(outcome: str) -> bool:
    """Returns whether a function of OUTCOMES returns rewards for GAE instead of advantages.

    It has the attribute `reads_values = True`; its rewards are given at the ends of turns.
    """
    return bool(getattr(OUTCOMES.find(outcome, OUTCOMES_FIELD), 'reads_values', False))


def _normalised(scores: Sequence[StepRewards], context: GroupContext) -> list[np.ndarray]:
    s = context.settings
    return process_normalised(scores, epsilon=s.epsilon, std_floor=s.std_floor, baseline=s.baseline)


def _difference(scores: Sequence[StepRewards], context: GroupContext) -> list[np.ndarray]:
    # V(question): the share of right attempts is the group's own estimate of success.
    start = float(np.mean([t.turn.facts.correct for t in context.turns[0]]))
    return [step_differences(values, start=start) for values in scores]


def _scores(scores: Sequence[StepRewards], context: GroupContext) -> list[np.ndarray]:
    return [np.nan_to_num(np.asarray(row, np.float64)) for row in scores]


def reads_scores(steps: str) -> bool:
    """Returns whether a function of STEPS reads the critic's scores, so that they are sampled.

    One with the attribute `reads_scores = False` gets None for every step.
    """
    return bool(getattr(STEPS.find(steps, STEPS_FIELD), 'reads_scores', True))


STEPS_FIELD = 'reinforce.advantage.steps'
STEPS = Slot(
    '(scores, G lists of numbers or None, context) -> G arrays',
    {'normalised': _normalised, 'difference': _difference, 'score': _scores},
)


@dataclasses.dataclass(frozen=True)
@checked('reinforce.advantage')
class AdvantageSettings:
    """Conversion of the rewards of a group to advantages.

    Advantage of a step = outcome_coef * A(return of its turn) + step_coef * A(step). The second
    term exists for attempts only.
    """

    outcome: Annotated[str, OUTCOMES]  # returns of a group's turns to advantages
    # Added to the standard deviation ('grpo', 'normalised'), which is 0 for equal rewards.
    epsilon: Annotated[float, Range(1e-12, 1e3, note='equal rewards are divided by it')]
    outcome_coef: Coefficient
    # 0 = off: the critic then scores steps only if a reward reads the scores.
    step_coef: Coefficient
    steps: Annotated[str, STEPS]  # scores of a group's steps to advantages
    std_floor: Coefficient  # least standard deviation that 'normalised' divides by; 0 = off
    unreached: Literal['zero', 'mask']  # steps after a finished critique's error: 0, or unknown
    baseline: Baseline  # of 'normalised': all steps of the group, or those of a position
    shuffle_scores: bool  # control: the step scores of a group are permuted

    def __post_init__(self):
        if not self.outcome_coef and not self.step_coef:
            raise ValueError(
                'reinforce.advantage.outcome_coef=0.0 and reinforce.advantage.step_coef=0.0 leave '
                'no advantage to learn from: set one above 0; nearest: outcome_coef=1.0'
            )
        if self.steps == 'difference' and (self.std_floor or self.baseline != 'group'):
            raise ValueError(
                f"reinforce.advantage.steps='difference' reads neither std_floor={self.std_floor} "
                f"nor baseline={self.baseline!r}: set them to 0.0 and 'group'"
            )
        if self.step_coef and self.steps == 'normalised' and reads_values(self.outcome):
            raise ValueError(
                "reinforce.advantage.steps='normalised' compares the steps of a group, but "
                f"outcome={self.outcome!r} takes rewards of steps: set steps='score' or "
                "step_coef=0.0; nearest: 'score'"
            )
