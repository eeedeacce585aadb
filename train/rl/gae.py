"""Generalised advantage estimation: rewards and values of tokens to advantages and returns.

    delta_t = r_t + gamma V_{t+1} - V_t        A_t = delta_t + gamma lambda A_{t+1}
    return of a token = A_t + V_t, the target of its value

V_t is the value of the tokens before t, and V after the last token is 0. t counts the trained
tokens of an episode: other tokens between them, of a critique or a tool, belong to the environment.
Source: arXiv 1506.02438; with rewards of tokens and whitened advantages arXiv 1909.08593.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elenchus.data.records import Batch
from elenchus.model.ranges import Coefficient, Share, checked
from elenchus.train.optimizer import Rate


@dataclasses.dataclass(frozen=True)
@checked('reinforce.value')
class ValueSettings:
    """A value model of each trained player (value_model.py), and the advantages that follow.

    Read if reinforce.advantage.outcome is 'gae', or a function with `reads_values`.
    """

    gamma: Share  # discount of a token; between two turns also turns.discount
    gae_lambda: Share  # 1: return less value; 0: one step ahead
    whiten: bool  # advantages of an iteration get mean 0 and deviation 1
    clip: Coefficient  # most that an iteration moves a value before its loss stops; 0 = off
    learning_rate: Rate  # by AdamW; the rest is as in reinforce.optimizer


class Estimates(NamedTuple):
    """Estimates for tokens, each [B, T]; 0 on tokens that are not trained."""

    advantages: np.ndarray
    returns: np.ndarray


def estimate(
    settings: ValueSettings,
    batch: Batch,
    rewards: np.ndarray,
    *,
    values: np.ndarray,
    turn_discount: float,
) -> Estimates:
    """Returns the advantages and returns of a batch's tokens, from rewards and values [B, T].

    `turn_discount` is a factor of gamma from the last token of a turn to the first of the next.
    """
    s, trained = settings, batch.loss_mask > 0
    advantages = np.zeros(values.shape)
    rewards, values = (np.where(trained, x, 0.0).astype(np.float64) for x in (rewards, values))
    next_value, next_advantage, next_turn, next_segment = np.zeros((4, len(values)))
    for t in reversed(range(values.shape[1])):
        gamma = s.gamma * np.where(batch.turns[:, t] == next_turn, 1.0, turn_discount)
        gamma = np.where(batch.segments[:, t] == next_segment, gamma, 0.0)
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * s.gae_lambda * next_advantage
        advantages[:, t] = np.where(trained[:, t], advantage, 0.0)
        after = (values, advantages, batch.turns, batch.segments)
        before = (next_value, next_advantage, next_turn, next_segment)
        next_value, next_advantage, next_turn, next_segment = (
            np.where(trained[:, t], x[:, t], y) for x, y in zip(after, before, strict=True)
        )
    returns = advantages + values
    if s.whiten:
        advantages = whitened(advantages, trained)
    return Estimates(advantages.astype(np.float32), returns.astype(np.float32))


def whitened(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns values with mean 0 and deviation 1 over the tokens of a mask, 0 elsewhere.

    The variance is that of a sample (n - 1), as in TRL.
    """
    chosen = values[mask]
    if chosen.size < 2:
        return np.where(mask, values, 0.0)
    scaled = (values - chosen.mean()) / np.sqrt(chosen.var(ddof=1) + 1e-8)
    return np.where(mask, scaled, 0.0)


def at_step_ends(batch: Batch, values: Sequence[Mapping[int, np.ndarray]]) -> np.ndarray:
    """Returns [B, T]: the value of each step at its last trained token, 0 elsewhere.

    A step without one pays at the trained token before it, the first one at the one after. One
    sequence per row; `values` as of advantages.at_tokens.
    """
    rewards = np.zeros(batch.tokens.shape, np.float32)
    for row, turns in enumerate(values):
        for turn, steps in turns.items():
            tokens = np.flatnonzero((batch.turns[row] == turn) & (batch.loss_mask[row] > 0))
            if tokens.size:
                numbers = np.arange(1, len(steps) + 1)
                last = np.searchsorted(batch.steps[row, tokens], numbers, side='right') - 1
                np.add.at(rewards[row], tokens[np.maximum(last, 0)], steps)
    return rewards


def explained_variance(values: np.ndarray, returns: np.ndarray) -> float:
    """Returns 1 - Var(returns - values) / Var(returns); 0 if the returns do not vary."""
    variance = float(np.var(returns)) if returns.size else 0.0
    return 1.0 - float(np.var(returns - values)) / variance if variance else 0.0
