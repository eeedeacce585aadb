"""An iteration's samples as one batch: every token at its advantage; and what they tell.

One episode a row, on a shape that never changes.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from elenchus.data.batching import packing
from elenchus.data.records import Batch, Episode
from elenchus.data.text.chat import Chat
from elenchus.sampling.engine.requests import holding
from elenchus.train.objective import Objective
from elenchus.train.rl import advantages
from elenchus.train.rl.rollouts import ROLES, Filled, Player, Valued


@dataclasses.dataclass(frozen=True)
class Shape:
    """How a player's samples are laid out."""

    player: Player
    length: int  # of a row
    num_samples: int  # of a group
    importance_cap: float


class LogProbs(NamedTuple):
    """Two models' log-probabilities [B, T] of a batch's own tokens, as host arrays."""

    policy: Callable[[Batch], np.ndarray] | None  # the trainer's before the update, where needed
    reference: Callable[[Batch], np.ndarray]


def make_batch(
    found: Filled,
    shape: Shape,
    chat: Chat,
    *,
    value: Callable[..., Valued],
    objective: Objective,
    logprobs: LogProbs,
) -> tuple[Batch, dict[str, float]]:
    """(batch of host arrays, metrics of the samples).

    Old log-probabilities are the trainer's own, or the sampler's: where `logprobs` has none of the
    policy's, and where an episode was sampled from another context than it is trained in (`hinted`;
    the ratio is then taken on the plain prompt).
    """
    episodes = [episode for group in found.groups for episode in group]
    batch = blank_batch(episodes, shape, chat)
    trainer = batch.old_logprobs if logprobs.policy is None else logprobs.policy(batch)
    if objective.reads_reference:
        batch = batch._replace(ref_logprobs=logprobs.reference(batch))
    penalties = kl_penalties(batch, trainer, objective, episodes)
    valued = []
    for i, group in enumerate(found.groups):
        own = slice(i * shape.num_samples, (i + 1) * shape.num_samples)
        valued.append(value(group, penalties=penalties and penalties[own]))
    weights = advantages.at_tokens(batch, [values for v in valued for values in v.values])
    hinted = np.array([[bool(e.outcome.get('hinted'))] for e in episodes])
    told = group_metrics(found, valued, weights, batch) | {
        'reward/unfinished': np.mean([not chat.is_finished(e.turns[-1]) for e in episodes])
    }
    if logprobs.policy is not None:
        told |= gap_metrics(batch, trainer, trained=(batch.loss_mask > 0) & ~hinted)
    if shape.importance_cap:
        trust = advantages.truncated_importance(
            trainer, batch.old_logprobs, cap=shape.importance_cap
        )
        weights = weights * np.where(hinted, np.float32(1), trust)
    informative = np.arange(len(episodes)) < found.num_informative * shape.num_samples
    return batch._replace(
        weights=weights,
        loss_mask=batch.loss_mask * informative[:, None].astype(np.float32),
        old_logprobs=np.where(hinted, batch.old_logprobs, trainer),
    ), told


def busy_rows(batch: Batch, objective: Objective, *, parts: int, together: int) -> Batch:
    """The rows of one sequence each that have a weight, with the loss of the whole batch.

    A group whose samples are all right, or all wrong, has no advantages: of a loss of weights alone
    its rows only enlarge the divisor, so the others' weights are lowered instead. `together`
    neighbours stay or go as one. Left are a quarter, half, three quarters or all of the rows, and a
    multiple of `parts * together`: a step has at most four shapes. Tokens that a truncated policy
    excludes are counted in the divisor here.
    """
    if not objective.is_of_weights:
        return batch
    trained = batch.loss_mask > 0
    counted = trained.sum(axis=1) if objective.average == 'token' else trained.any(axis=1)
    busy = (trained & (batch.weights != 0)).any(axis=1).reshape(-1, together).any(axis=1)
    quarters = [-(-len(busy) * n // (4 * parts)) * parts for n in (1, 2, 3, 4)]
    kept = np.sort(np.argsort(~busy, kind='stable')[: holding(quarters, busy.sum())])
    kept = neighbours(kept, together)
    scale = np.float32(counted[kept].sum() / max(1, counted.sum()))
    rest = Batch(*(values[kept] for values in batch))
    return rest._replace(weights=rest.weights * scale)


def neighbours(firsts: np.ndarray, together: int) -> np.ndarray:
    """The rows of which `together` neighbours each are number 0, 1, ..., for these numbers."""
    return (together * firsts[:, None] + np.arange(together)).ravel()


def blank_batch(episodes: Sequence[Episode], shape: Shape, chat: Chat) -> Batch:
    """One row an episode, the player's own turns trained, each token of weight 1."""
    examples = [
        chat.example(e.turns, trained=ROLES[shape.player], weights=None, last_only=False)
        for e in episodes
    ]
    return packing.pad(examples, length=shape.length)


def kl_penalties(
    batch: Batch, trainer: np.ndarray, objective: Objective, episodes: Sequence[Episode]
) -> list[dict[int, float]] | None:
    """kl_coef * k1 of every turn of every episode, by turn number; None unless kl is 'k1'.

    A turn's reward loses it, and so the policy gradient has the pull towards the reference.
    """
    if objective.kl != 'k1':
        return None
    known = (batch.loss_mask > 0) & np.isfinite(trainer) & np.isfinite(batch.ref_logprobs)
    each = np.zeros(trainer.shape)
    each[known] = objective.kl_coef * (trainer - batch.ref_logprobs)[known]
    return [
        {n: float(each[row, batch.turns[row] == n].sum()) for n in range(1, len(e.turns) + 1)}
        for row, e in enumerate(episodes)
    ]


def group_metrics(
    found: Filled, valued: Sequence[Valued], weights: np.ndarray, batch: Batch
) -> dict[str, float]:
    """How rewards and advantages are distributed, and what became of groups without variance."""
    rewards = np.array([v.rewards for v in valued])
    levels = np.array([group[0].level for group in found.groups])
    advantage = weights[batch.loss_mask > 0]
    episodes = [episode for group in found.groups for episode in group]
    terms = {
        f'reward/{name}': float(np.mean([t[name] for v in valued for t in v.terms]))
        for name in valued[0].terms[0]
    }
    told = {
        'reward/mean': rewards.mean(),
        'reward/std': rewards.std(),
        'reward/groups_without_variance': found.num_flat / found.num_sampled,
        'reward/groups_dropped': 1 - found.num_informative / len(found.groups),
        'advantage/mean': advantage.mean(),
        'advantage/std': advantage.std(),
        'advantage/min': advantage.min(),
        'advantage/max': advantage.max(),
    }
    size = rewards.shape[1]
    for level in np.unique(levels):
        rows = np.repeat(levels == level, size)
        own = weights[rows][batch.loss_mask[rows] > 0]
        told |= {
            f'levels/reward{level}': rewards[levels == level].mean(),
            f'levels/reward{level}_std': rewards[levels == level].std(),
            f'levels/advantage{level}_std': own.std(),
        }
    correct = np.mean([float(e.outcome['correct']) for e in episodes])
    return {'reward/correct': correct} | told | terms


def gap_metrics(batch: Batch, trainer: np.ndarray, *, trained: np.ndarray) -> dict[str, float]:
    """How far the sampler's log-probabilities are from the trainer's: mean and largest distance."""
    known = trained & np.isfinite(trainer)
    gaps = np.abs(trainer - batch.old_logprobs)[known]
    return {
        'sampler/gap': float(gaps.mean()) if gaps.size else 0.0,
        'sampler/gap_max': float(gaps.max()) if gaps.size else 0.0,
    }
