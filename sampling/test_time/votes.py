"""Choosing among answers, and estimates over questions with their uncertainty."""

import collections
import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Aggregate = Literal['min', 'product', 'last']
"""How step rewards become one score: the worst step, all of them, or the last."""
_AGGREGATES = {'min': min, 'product': math.prod, 'last': lambda scores: scores[-1]}


def aggregate(step_scores: Sequence[float], how: Aggregate) -> float:
    """One score of an attempt from those of its steps; 0 where there is no step."""
    return float(_AGGREGATES[how](step_scores)) if len(step_scores) else 0.0


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


def subsets(n: int, k: int, *, num_draws: int, seed: int) -> list[tuple[int, ...]]:
    """Sets of k of n samples, each ascending: all there are, or `num_draws` drawn ones if fewer.

    What a vote of k samples is worth is its mean over these sets. Samples are exchangeable, so
    the same sets may serve every question.
    """
    _check_k(k, n)
    if math.comb(n, k) <= num_draws:
        return list(itertools.combinations(range(n), k))
    rng = np.random.default_rng(seed)
    return [tuple(sorted(rng.choice(n, k, replace=False).tolist())) for _ in range(num_draws)]


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
    sample = np.asarray(values, float) - (0.0 if against is None else np.asarray(against, float))
    ones = np.ones(len(sample))
    return bootstrap_ratio(sample, ones, num_resamples=num_resamples, seed=seed, level=level)


def bootstrap_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    num_resamples: int,
    seed: int,
    level: float,
) -> Interval:
    """Percentile bootstrap over questions of sum(numerators) / sum(denominators), both [Q].

    For shares of things of which a question has several, such as its critiques: these are not
    independent of each other. Raises ValueError where a denominator is not above 0.
    """
    _check_pairs(numerators, denominators, 'denominators')
    above, below = (np.asarray(values, float) for values in (numerators, denominators))
    if not len(above) or not 0 < level < 1 or num_resamples < 1:
        raise ValueError(
            f'bootstrap of {len(above)} values at level={level} with {num_resamples} resamples'
        )
    if below.min() <= 0:
        raise ValueError(f'bootstrap: denominator {below.min()} must be above 0; leave it out')
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(above), size=(num_resamples, len(above)))
    ratios = above[chosen].sum(axis=1) / below[chosen].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(above.sum() / below.sum()), float(low), float(high))


def _check_k(k: int, num_samples: int) -> None:
    if not 1 <= k <= num_samples:
        raise ValueError(f'k={k} must be in [1, {num_samples}], the number of samples')


def _check_pairs(one: Sequence, other: Sequence, name: str) -> None:
    if len(one) != len(other):
        raise ValueError(f'{len(other)} {name} for {len(one)} values')
