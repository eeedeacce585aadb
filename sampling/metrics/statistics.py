"""Estimates over samples and questions: subsets, pass@k and bootstrap intervals."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def subsets(n: int, k: int, *, num_draws: int, seed: int) -> list[tuple[int, ...]]:
    """Returns sets of k of n samples, each ascending: all of them, or `num_draws` random ones.

    The expected value of a vote among k samples is its mean over these sets. Samples are
    exchangeable, so the same sets may serve every question.
    """
    _check_k(k, n)
    if math.comb(n, k) <= num_draws:
        return list(itertools.combinations(range(n), k))
    rng = np.random.default_rng(seed)
    return [tuple(sorted(rng.choice(n, k, replace=False).tolist())) for _ in range(num_draws)]


def pass_at_k(num_samples: int, num_correct: int, *, k: int) -> float:
    """Estimates the probability that one of k samples is correct: 1 - C(n-c, k) / C(n, k).

    Unbiased, for c correct ones of n. Source: arXiv 2107.03374, equation 1.
    """
    _check_k(k, num_samples)
    if not 0 <= num_correct <= num_samples:
        raise ValueError(
            f'num_correct={num_correct} must be in [0, {num_samples}], the number of samples'
        )
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


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
        check_same_length(values, against, 'against')
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

    For a share of items of which a question has several, such as its critiques: items of one
    question depend on each other, so questions are resampled and not items. Raises ValueError if
    a denominator is not positive.
    """
    check_same_length(numerators, denominators, 'denominators')
    above, below = (np.asarray(values, float) for values in (numerators, denominators))
    if not len(above) or not 0 < level < 1 or num_resamples < 1:
        raise ValueError(
            f'bootstrap of {len(above)} values at level={level} with {num_resamples} resamples; '
            'needs at least one value and one resample, and a level in (0, 1)'
        )
    if below.min() <= 0:
        raise ValueError(f'bootstrap: denominator {below.min()} must be above 0; leave it out')
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(above), size=(num_resamples, len(above)))
    ratios = above[chosen].sum(axis=1) / below[chosen].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(above.sum() / below.sum()), float(low), float(high))


def check_same_length(values: Sequence, others: Sequence, name: str) -> None:
    """Raises ValueError if `others`, called `name`, has not one entry per value."""
    if len(others) != len(values):
        raise ValueError(f'{len(others)} {name} for {len(values)} values')


def _check_k(k: int, num_samples: int) -> None:
    if not 1 <= k <= num_samples:
        raise ValueError(f'k={k} must be in [1, {num_samples}], the number of samples')
