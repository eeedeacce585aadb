"""Coverage of hard questions by an exploration and by the responses kept of it.

Training on sampled responses tends to lose the hard questions (arXiv 2411.00750). Pure functions of
episodes with an origin (`context.with_origin`). Figures by level have an entry `all`.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from elenchus.data.records import Episode
from elenchus.sampling.exploration.context import is_right_response
from elenchus.sampling.metrics import critic_metrics, statistics

NUM_BINS = 12
"""Number of histogram bins."""
MIN_RANGE = 1e-3
"""Width of a histogram whose values are all equal."""


class QuestionResponses(NamedTuple):
    """The first unguided attempts at one question, and all responses to it."""

    level: int
    attempts: list[Episode]
    responses: list[Episode]


def group_by_question(explored: Sequence[Episode]) -> list[QuestionResponses]:
    """Groups episodes by question, in the order of the questions' first episodes."""
    groups: dict[str, QuestionResponses] = {}
    for episode in explored:
        question = groups.setdefault(episode.problem_id, QuestionResponses(episode.level, [], []))
        question.responses.append(episode)
        if episode.response.facts.origin == 'attempt':
            question.attempts.append(episode)
    return list(groups.values())


def exploration_summary(explored: Sequence[Episode]) -> dict[str, Any]:
    """Summarises what an exploration covers, by level.

    `coverage` is the share of questions with a correct response, `attempt_coverage` that with a
    correct first attempt, `distinct` the mean number of different correct responses per question.
    `correct_counts[n]` is the number of questions with n correct first attempts, and `pass_at_k`
    the probability that one of k first attempts is correct. arXiv 2412.17256 measures exploration
    by `pass_at_k` and `distinct`.
    """
    questions = group_by_question(explored)
    most = max(len(question.attempts) for question in questions)
    counts = [sum(bool(e.attempt.facts.correct) for e in q.attempts) for q in questions]
    return {
        'coverage': _mean(questions, lambda q: any(map(is_right_response, q.responses))),
        'attempt_coverage': _mean(
            questions, lambda q: any(e.attempt.facts.correct for e in q.attempts)
        ),
        'distinct': _mean(questions, lambda q: len(_different_valid(q.responses))),
        'correct_counts': np.bincount(counts, minlength=most + 1).tolist(),
        'pass_at_k': {
            str(k): float(np.mean([statistics.pass_at_k(most, count, k=k) for count in counts]))
            for k in range(1, most + 1)
        },
    }


def kept_summary(responses: Sequence[Episode], explored: Sequence[Episode]) -> dict[str, Any]:
    """Counts the responses kept for training by level and origin; `kept_spurious` is a share."""
    counts = collections.Counter(episode.level for episode in responses)
    levels = {str(level): counts[level] for level in sorted({e.level for e in explored})}
    origins = collections.Counter(episode.response.facts.origin for episode in responses)
    return {
        'kept': len(responses),
        'kept_by_level': levels,
        'kept_share': {n: count / max(1, len(responses)) for n, count in levels.items()},
        'found_by': dict(sorted(origins.items())),
        'kept_spurious': critic_metrics.spurious_share(responses),
    }


def exploitation_summary(scored: Sequence[Episode]) -> dict[str, float]:
    """Compares the first attempts' accuracy with best of n by the critic's score of the answer.

    An attempt without a score counts as 0. Source of the comparison: arXiv 2412.17256.
    """
    chosen = [
        max(question.attempts, key=lambda e: e.attempt.facts.score or 0.0)
        for question in group_by_question(scored)
    ]
    return {
        'attempt': float(np.mean([bool(e.attempt.facts.correct) for e in scored])),
        'best_of_n': float(np.mean([bool(e.attempt.facts.correct) for e in chosen])),
        'questions': len(chosen),
    }


def histograms(values: dict[str, Sequence[float]]) -> dict[str, Any]:
    """Histograms of several sets of values over the same bins, as shares of each set, and means."""
    joined = np.concatenate([*values.values()])
    low, high = (joined.min(), joined.max()) if joined.size else (0.0, 0.0)
    edges = np.linspace(low, max(high, low + MIN_RANGE), NUM_BINS + 1)
    return {
        'edges': edges.tolist(),
        'shares': {
            name: (np.histogram(members, edges)[0] / max(1, len(members))).tolist()
            for name, members in values.items()
        },
        'mean': {name: float(np.mean(members)) for name, members in values.items() if len(members)},
    }


def _different_valid(responses: Sequence[Episode]) -> set[tuple[int, ...]]:
    return {e.turns[-1].tokens for e in responses if is_right_response(e)}


def _mean(
    questions: Sequence[QuestionResponses], measure: Callable[[QuestionResponses], float]
) -> dict[str, float]:
    return critic_metrics.by_level(
        questions, lambda members: float(np.mean([measure(q) for q in members]))
    )
