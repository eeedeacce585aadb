"""Where the tokens' weights come from: rewards of a group of samples to advantages."""

import itertools
from collections.abc import Sequence

import numpy as np


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


def over_tokens(step_values: Sequence[float], step_ends: Sequence[int]) -> np.ndarray:
    """Each step's value at each of its tokens: [step_ends[-1]]."""
    lengths = [end - start for start, end in itertools.pairwise((0, *step_ends))]
    return np.repeat(np.asarray(step_values, np.float32), lengths)


ADVANTAGES = {
    'grpo': group_normalised,
    'dr_grpo': lambda rewards, *, epsilon: centred(rewards),
    'rloo': lambda rewards, *, epsilon: leave_one_out(rewards),
}
