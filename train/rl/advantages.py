"""Where the tokens' weights come from: rewards of a group of samples to advantages."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from elenchus.data.records import Batch


def group_normalised(rewards: Sequence[float], *, epsilon: float) -> np.ndarray:
    """(r - mean) / (std + epsilon) over one prompt's samples, [G]. GRPO, arXiv 2402.03300."""
    r = np.asarray(rewards, np.float64)
    return ((r - r.mean()) / (r.std() + epsilon)).astype(np.float32)


def centred(rewards: Sequence[float]) -> np.ndarray:
    """r - mean, [G]. Dr. GRPO, arXiv 2503.20783."""
    r = np.asarray(rewards, np.float64)
    return (r - r.mean()).astype(np.float32)


def leave_one_out(rewards: Sequence[float]) -> np.ndarray:
    """r_i - mean of the others, [G], G > 1. RLOO, arXiv 2402.14740."""
    r = np.asarray(rewards, np.float64)
    return ((r - r.mean()) * len(r) / (len(r) - 1)).astype(np.float32)


def process_normalised(
    step_rewards: Sequence[Sequence[float]], *, epsilon: float
) -> list[np.ndarray]:
    """Advantage of every step of every sample of a group: the sum of its own and later rewards.

    Rewards are normalised over all steps of the group first. GRPO with process supervision,
    arXiv 2402.03300, section 4.1.3.
    """
    flat = np.concatenate([np.asarray(r, np.float64) for r in step_rewards])
    mean, std = (flat.mean(), flat.std()) if flat.size else (0.0, 0.0)
    normalised = ((np.asarray(r, np.float64) - mean) / (std + epsilon) for r in step_rewards)
    return [r[::-1].cumsum()[::-1].astype(np.float32) for r in normalised]


def step_differences(step_values: Sequence[float], *, start: float) -> np.ndarray:
    """V(prefix_i) - V(prefix_{i-1}) of every step, [S], with V(no step) = start. METHODS 8.

    The advantage of a step in arXiv 2406.14532: what it adds to the chance of success.
    """
    values = np.asarray([start, *step_values], np.float64)
    return np.diff(values).astype(np.float32)


def discounted(rewards: Sequence[float], *, discount: float) -> list[float]:
    """The return of every turn: its own reward and the later ones, each discounted a turn more."""
    returns, later = [], 0.0
    for reward in reversed(rewards):
        later = reward + discount * later
        returns.append(later)
    return returns[::-1]


def truncated_importance(
    trainer_logprobs: np.ndarray, sampler_logprobs: np.ndarray, *, cap: float
) -> np.ndarray:
    """min(exp(trainer - sampler), cap): a token's weight against sampling from a stale twin.

    Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy training".
    """
    gap = np.minimum(trainer_logprobs - sampler_logprobs, np.log(cap))
    return np.exp(gap).astype(np.float32)


def at_tokens(batch: Batch, values: Sequence[Mapping[int, np.ndarray]]) -> np.ndarray:
    """Weights [B, T] of a batch of one sequence a row, 0 where nothing is said.

    values[row] has, by turn number as in Batch.turns, a value for each step of that turn.
    """
    weights = np.zeros(batch.tokens.shape, np.float32)
    for row, turns in enumerate(values):
        for turn, steps in turns.items():
            own = (batch.turns[row] == turn) & (batch.steps[row] > 0)
            weights[row, own] = np.asarray(steps, np.float32)[batch.steps[row, own] - 1]
    return weights


def over_tokens(step_values: Sequence[float], step_ends: Sequence[int]) -> np.ndarray:
    """Each step's value at each of its tokens: [step_ends[-1]]."""
    lengths = [end - start for start, end in itertools.pairwise((0, *step_ends))]
    return np.repeat(np.asarray(step_values, np.float32), lengths)


ADVANTAGES = {
    'grpo': group_normalised,
    'dr_grpo': lambda rewards, *, epsilon: centred(rewards),
    'rloo': lambda rewards, *, epsilon: leave_one_out(rewards),
}
