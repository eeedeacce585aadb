"""Balance scores: how much temperatures and score thresholds of exploration are worth.

Pure functions of scored attempts at a few questions, sampled at every candidate temperature with
the same noise. Source: B-STaR, arXiv 2412.17256.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elenchus.data.records import Episode
from elenchus.model.ranges import PositiveInt, SampleCount, Share, checked
from elenchus.sampling import user_functions
from elenchus.sampling.engine.sampling_methods import Temperature


class Knobs(NamedTuple):
    """The two settings that a controller chooses for a round."""

    temperature: float  # of exploration
    threshold: float  # least critic's score of a kept response; 0: not scored


@dataclasses.dataclass(frozen=True)
@checked('improve.candidates')
class CandidateSettings:
    """Candidates of the controller, every pair of a temperature and a threshold, and their test."""

    temperatures: tuple[Temperature, ...]
    thresholds: tuple[Share, ...]  # of the critic's score
    num_problems: PositiveInt  # training questions on which candidates are compared
    num_attempts: SampleCount  # per question and temperature
    target: SampleCount  # n*: more different correct responses per question bring no more balance

    def __post_init__(self):
        for name, example in (('temperatures', 0.7), ('thresholds', 0.0)):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                nearest = tuple(dict.fromkeys(values)) or (example,)
                raise ValueError(
                    f'improve.candidates.{name}={values} must be one or more different values; '
                    f'nearest: {nearest}'
                )


def score_candidates(
    attempts: Mapping[float, Sequence[Episode]],
    s: CandidateSettings,
    worth: Callable[[Sequence[Sequence[Episode]]], float] | None = None,
) -> list[dict]:
    """Returns every candidate with its `balance`; attempts[t] were sampled at temperature t.

    `worth` maps the attempts that reach the threshold, by question, to a further figure.
    """
    candidates = []
    for temperature, episodes in attempts.items():
        for threshold in s.thresholds:
            balance = average_balance(episodes, threshold=threshold, target=s.target)
            figures = {**Knobs(temperature, threshold)._asdict(), 'balance': balance}
            if worth is not None:
                groups = [
                    [e for e in group if above_threshold(e, threshold)]
                    for group in by_question(episodes)
                ]
                figures['worth'] = _number(worth, worth(groups))
            candidates.append(figures)
    return candidates


def _number(function: Callable, returned: object) -> float:
    """What `worth` of a controller returned. Raises ValueError, naming it, if it is no number."""
    try:
        value = user_functions.as_float(returned)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        user_functions.refuse(function, returned, 'a finite number', field='improve.controller')
    return value


def choose(candidates: Sequence[Mapping]) -> Knobs:
    """Returns the candidate with the highest balance, the first of equals."""
    best = max(candidates, key=lambda candidate: candidate['balance'])
    return Knobs(best['temperature'], best['threshold'])


def average_balance(episodes: Sequence[Episode], *, threshold: float, target: int) -> float:
    """Mean of `balance_score` over the questions."""
    groups = by_question(episodes)
    return float(np.mean([balance_score(g, threshold=threshold, target=target) for g in groups]))


def by_question(episodes: Sequence[Episode]) -> list[list[Episode]]:
    """Groups attempts by question, in the order of first attempts."""
    groups = collections.defaultdict(list)
    for episode in episodes:
        groups[episode.problem_id].append(episode)
    return list(groups.values())


def balance_score(attempts: Sequence[Episode], *, threshold: float, target: int) -> float:
    """Balance of exploration and exploitation at one question: min(n' / target, 1) * n' / n.

    n is the number of different attempts that reach the threshold, n' that of the correct ones
    among them. As in the authors' code (hkust-nlp/B-STaR, determine_hyper.py), repeated attempts
    count once in both. Unlike there, the reference is not added, and n = 0 gives 0.
    """
    correct_by_tokens = {
        e.turns[-1].tokens: bool(e.attempt.facts.correct)
        for e in attempts
        if above_threshold(e, threshold)
    }
    num_correct, num = sum(correct_by_tokens.values()), len(correct_by_tokens)
    return min(num_correct / target, 1.0) * num_correct / num if num else 0.0


def above_threshold(episode: Episode, threshold: float) -> bool:
    """Returns whether the critic's score of the answer reaches a threshold.

    No score counts as 0. With threshold 0 nothing was scored and everything passes.
    """
    return not threshold or (episode.attempt.facts.score or 0.0) >= threshold
