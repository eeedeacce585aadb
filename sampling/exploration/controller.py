"""The round controller: which knobs a round of self-improvement explores with.

Pure functions of scored attempts at a few questions, sampled at every candidate temperature with
the same noise. Source: B-STaR, arXiv 2412.17256.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from elenchus.data.records import Episode

Controller = Literal['none', 'balance']


class Knobs(NamedTuple):
    """The temperature of exploration, and the critic's score that a kept response must have."""

    temperature: float
    threshold: float  # 0: no score is asked for


@dataclasses.dataclass(frozen=True)
class CandidateSettings:
    """Between which knobs a controller chooses, and on what; every pair is a candidate."""

    temperatures: tuple[float, ...]
    thresholds: tuple[float, ...]
    num_problems: int
    num_attempts: int  # a question, at each temperature
    target: int  # n*, how many different right responses to a question are enough

    def __post_init__(self):
        for name in ('num_problems', 'num_attempts', 'target'):
            if getattr(self, name) < 1:
                raise ValueError(f'improve.candidates.{name}={getattr(self, name)}: at least 1')
        for name, least in (('temperatures', 0.01), ('thresholds', 0.0)):
            values = getattr(self, name)
            if not values or min(values) < least or len(set(values)) < len(values):
                raise ValueError(
                    f'improve.candidates.{name}={values} must be different values from {least} on'
                )
        if max(self.thresholds) > 1:
            raise ValueError(
                f'improve.candidates.thresholds={self.thresholds} must be at most 1: they are of '
                'probabilities'
            )


def measures(probed: Mapping[float, Sequence[Episode]], s: CandidateSettings) -> list[dict]:
    """The average balance score of every candidate; probed[t] are scored attempts at t."""
    return [
        {
            **Knobs(temperature, threshold)._asdict(),
            'balance': average_balance(episodes, threshold=threshold, target=s.target),
        }
        for temperature, episodes in probed.items()
        for threshold in s.thresholds
    ]


def choose(told: Sequence[Mapping]) -> Knobs:
    """The candidate with the highest average balance score, the first among equals."""
    best = max(told, key=lambda candidate: candidate['balance'])
    return Knobs(best['temperature'], best['threshold'])


def average_balance(episodes: Sequence[Episode], *, threshold: float, target: int) -> float:
    """The mean of balance_score over the questions."""
    groups = collections.defaultdict(list)
    for episode in episodes:
        groups[episode.problem_id].append(episode)
    scores = (balance_score(g, threshold=threshold, target=target) for g in groups.values())
    return float(np.mean([*scores]))


def balance_score(attempts: Sequence[Episode], *, threshold: float, target: int) -> float:
    """min(n' / target, 1) * n' / n: enough different right responses, and little else beside them.

    n are the different attempts at one question that pass the threshold, n' the right ones among
    them. As in the authors' code (hkust-nlp/B-STaR, determine_hyper.py) repeats count once in
    both; unlike there the reference is not added, and a question of which nothing passes has 0.
    """
    passing = {
        e.turns[-1].tokens: bool(e.outcome['correct']) for e in attempts if passes(e, threshold)
    }
    right = sum(passing.values())
    return min(right / target, 1.0) * right / len(passing) if passing else 0.0


def passes(episode: Episode, threshold: float) -> bool:
    """Whether the critic's score of the answer reaches a threshold; no score counts as 0."""
    return not threshold or (episode.outcome['score'] or 0.0) >= threshold
