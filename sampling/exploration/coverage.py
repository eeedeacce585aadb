"""What an exploration covers, and whether what is kept of it loses its tail (arXiv 2411.00750).

Pure functions of noted episodes; figures by level have `all` besides.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from elenchus.data.records import Episode
from elenchus.sampling.exploration.context import well_answered
from elenchus.sampling.metrics import critic_metrics
from elenchus.sampling.test_time import votes

BINS = 12
"""Of a histogram that compares two sets of values."""
LEAST_RANGE = 1e-3
"""That its bins span, where all values are the same."""


class Question(NamedTuple):
    """What was found of one question: its first unguided attempts, and all responses."""

    level: int
    attempts: list[Episode]
    responses: list[Episode]


def questions(explored: Sequence[Episode]) -> list[Question]:
    groups: dict[str, Question] = {}
    for episode in explored:
        question = groups.setdefault(episode.problem_id, Question(episode.level, [], []))
        question.responses.append(episode)
        if episode.outcome['found_by'] == 'attempt':
            question.attempts.append(episode)
    return list(groups.values())


def exploration(explored: Sequence[Episode]) -> dict[str, Any]:
    """What was found, by level.

    `coverage` is the share of questions with a right response, `attempt_coverage` with a right
    first attempt; `distinct` the mean number of different right responses of a question. Of the
    first attempts: `correct_counts[n]` questions with n right ones, and `pass_at_k` the chance
    that one of k is right: with `distinct`, the exploration of arXiv 2412.17256.
    """
    asked = questions(explored)
    most = max(len(question.attempts) for question in asked)
    counts = [sum(bool(e.outcome['correct']) for e in q.attempts) for q in asked]
    return {
        'coverage': _mean(asked, lambda q: any(map(well_answered, q.responses))),
        'attempt_coverage': _mean(asked, lambda q: any(e.outcome['correct'] for e in q.attempts)),
        'distinct': _mean(asked, lambda q: len(_different(q.responses))),
        'correct_counts': np.bincount(counts, minlength=most + 1).tolist(),
        'pass_at_k': {
            str(k): float(np.mean([votes.pass_at_k(most, count, k=k) for count in counts]))
            for k in range(1, most + 1)
        },
    }


def kept(responses: Sequence[Episode], explored: Sequence[Episode]) -> dict[str, Any]:
    """Of the responses that are trained on: how many by level and origin, and how many spurious."""
    counts = collections.Counter(episode.level for episode in responses)
    levels = {str(level): counts[level] for level in sorted({e.level for e in explored})}
    found = collections.Counter(episode.outcome['found_by'] for episode in responses)
    return {
        'kept': len(responses),
        'kept_by_level': levels,
        'kept_share': {n: count / max(1, len(responses)) for n, count in levels.items()},
        'found_by': dict(sorted(found.items())),
        'kept_spurious': critic_metrics.spurious_share(responses),
    }


def exploitation(scored: Sequence[Episode]) -> dict[str, float]:
    """Best of n by the critic's score of the answer, against the mean and any: first attempts.

    An attempt without a score counts as 0. Source of the comparison: arXiv 2412.17256.
    """
    chosen = [
        max(question.attempts, key=lambda e: e.outcome['score'] or 0.0)
        for question in questions(scored)
    ]
    return {
        'attempt': float(np.mean([bool(e.outcome['correct']) for e in scored])),
        'best_of_n': float(np.mean([bool(e.outcome['correct']) for e in chosen])),
        'questions': len(chosen),
    }


def histograms(values: dict[str, Sequence[float]]) -> dict[str, Any]:
    """Sets of values in the same bins, as shares of each set, and their means."""
    every = np.concatenate([*values.values()])
    edges = np.linspace(every.min(), max(every.max(), every.min() + LEAST_RANGE), BINS + 1)
    return {
        'edges': edges.tolist(),
        'shares': {
            name: (np.histogram(some, edges)[0] / max(1, len(some))).tolist()
            for name, some in values.items()
        },
        'mean': {name: float(np.mean(some)) for name, some in values.items() if len(some)},
    }


def _different(responses: Sequence[Episode]) -> set[tuple[int, ...]]:
    return {e.turns[-1].tokens for e in responses if well_answered(e)}


def _mean(asked: Sequence[Question], measure: Callable[[Question], float]) -> dict[str, float]:
    return critic_metrics.by_level(asked, lambda some: float(np.mean([measure(q) for q in some])))
