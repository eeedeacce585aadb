"""Choosing one answer among several: majority vote and best of n."""

import collections
import math
from collections.abc import Sequence
from typing import Literal

from elenchus.sampling.metrics import statistics

Aggregate = Literal['min', 'product', 'last']
"""Reduction of an attempt's step rewards to one score: the worst step, their product, the last."""
_AGGREGATES = {'min': min, 'product': math.prod, 'last': lambda scores: scores[-1]}


def aggregate(step_scores: Sequence[float], how: Aggregate) -> float:
    """Reduces the scores of an attempt's steps to one score; 0 without steps."""
    return float(_AGGREGATES[how](step_scores)) if len(step_scores) else 0.0


def majority(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> str | None:
    """Returns the answer with most votes, or with most weight; the first to occur wins ties.

    None stands for "no answer" and is returned only if all are None.
    """
    weights = [1.0] * len(answers) if weights is None else weights
    statistics.check_same_length(answers, weights, 'weights')
    totals = collections.defaultdict(float)
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals[answer] += weight
    return max(totals, key=totals.__getitem__) if totals else None


def best_of_n(answers: Sequence[str | None], scores: Sequence[float]) -> str | None:
    """Returns the answer with the highest score, the first of equals; None if all are None."""
    statistics.check_same_length(answers, scores, 'scores')
    candidates = [i for i, answer in enumerate(answers) if answer is not None]
    return answers[max(candidates, key=scores.__getitem__)] if candidates else None
