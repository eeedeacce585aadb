"""Choosing among answers, and estimates over questions with their uncertainty."""

import collections
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def majority(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> str | None:
    """The answer with most votes, or most weight; the first to occur among equals.

    None is no answer: it is returned only where all are None.
    """
    _check_pairs(answers, answers if weights is None else weights, 'weights')
    totals = collections.defaultdict(float)
    for answer, weight in zip(
        answers, [1.0] * len(answers) if weights is None else weights, strict=True
    ):
        if answer is not None:
            totals[answer] += weight
    return max(totals, key=totals.__getitem__) if totals else None


def maj_at_k(
    answers: Sequence[str | None], reference: str, *, k: int, num_draws: int, seed: int
) -> float:
    """The share of k answers drawn without replacement whose majority is the reference.

    With k = len(answers) there is one draw: all of them in order. Else the mean of `num_draws`.
    """
    _check_k(k, len(answers))
    if k == len(answers):
        return float(majority(answers) == reference)
    rng = np.random.default_rng(seed)
    draws = (rng.choice(len(answers), k, replace=False) for _ in range(num_draws))
    return float(np.mean([majority([answers[i] for i in d]) == reference for d in draws]))


def pass_at_k(num_samples: int, num_correct: int, *, k: int) -> float:
    """Chance that one of k samples is correct: 1 - C(n-c, k) / C(n, k).

    Unbiased, given c correct of n. Source: arXiv 2107.03374, equation 1.
    """
    _check_k(k, num_samples)
    if not 0 <= num_correct <= num_samples:
        raise ValueError(f'{num_correct} correct of {num_samples} samples')
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def best_of_n(answers: Sequence[str | None], scores: Sequence[float]) -> str | None:
    """The answer with the highest score, the first among equals; None only where all are None."""
    _check_pairs(answers, scores, 'scores')
    told = [i for i, answer in enumerate(answers) if answer is not None]
    return answers[max(told, key=scores.__getitem__)] if told else None


class Interval(NamedTuple):
    """A mean and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: Sequence[float],
    against: Sequence[float] | None = None,
    *,
    num_resamples: int,
    seed: int,
    level: float,
) -> Interval:
    """Percentile bootstrap of the mean over questions, or of the mean paired difference.

    values [Q]; with `against` [Q], of the same questions in the same order, the interval is that of
    values - against. `level` is the confidence, such as 0.95.
    """
    if against is not None:
        _check_pairs(values, against, 'against')
    if not len(values) or not 0 < level < 1 or num_resamples < 1:
        raise ValueError(
            f'bootstrap of {len(values)} values at level={level} with {num_resamples} resamples'
        )
    sample = np.asarray(values, float) - (0.0 if against is None else np.asarray(against, float))
    rng = np.random.default_rng(seed)
    means = [
        sample[rng.integers(len(sample), size=len(sample))].mean() for _ in range(num_resamples)
    ]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high))


def _check_k(k: int, num_samples: int) -> None:
    if not 1 <= k <= num_samples:
        raise ValueError(f'k={k} must be in [1, {num_samples}], the number of samples')


def _check_pairs(one: Sequence, other: Sequence, name: str) -> None:
    if len(one) != len(other):
        raise ValueError(f'{len(other)} {name} for {len(one)} values')
