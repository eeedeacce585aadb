"""Estimates over samples, questions and training runs: pass@k, intervals, tests of contrasts."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np

T = TypeVar('T')


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


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """Returns at most `count` items, evenly spaced over all."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


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


MIN_QUESTIONS = 50
"""Fewest questions of a percentile bootstrap.

Below them its coverage is not its level: at 12 questions a 95 % interval of a difference covers 89
to 91 %, from 50 on 94 to 95 %. Rare events need more: of a share of 3 % it covers 29 % at 12
questions, 78 % at 50 and 94 to 96 % from 100 on (docs/log.md).
"""


class Interval(NamedTuple):
    """A mean and the bounds of its confidence interval; None where no interval is known."""

    mean: float
    low: float | None
    high: float | None


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
    values - against. `level` is the confidence, such as 0.95. Below MIN_QUESTIONS the bounds are
    None.
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
    question depend on each other, so questions are resampled and not items. Below MIN_QUESTIONS the
    bounds are None. Raises ValueError if a denominator is not positive.
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
    if len(above) < MIN_QUESTIONS:
        return Interval(float(above.sum() / below.sum()), None, None)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(above), size=(num_resamples, len(above)))
    ratios = above[chosen].sum(axis=1) / below[chosen].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(above.sum() / below.sum()), float(low), float(high))


Design = Literal['crossed', 'nested']
"""How questions belong to training runs: all runs answer the same ones, or each has its own."""


def crossed_bootstrap(
    values: Sequence[Sequence[float]],
    against: Sequence[Sequence[float]] | None = None,
    *,
    design: Design,
    num_resamples: int,
    seed: int,
    level: float,
) -> Interval:
    """Percentile bootstrap of the mean over training runs and questions, resampled together.

    An interval over questions describes one trained model; the order of the training data alone
    moves an accuracy as much. values [R, Q], of R runs of Q questions each; with `against` [R, Q]
    of the same runs and questions, the interval is that of values - against. 'crossed': the runs
    share their questions, so a resample draws R runs and, for all of them, the same Q questions.
    'nested': each drawn run draws from its own questions. Of few nested runs the interval is too
    narrow, by about sqrt((R - 1) / R): report `t_interval` beside it. The bounds are None for one
    run and below MIN_QUESTIONS. Source: Owen 2007, "The pigeonhole bootstrap", doi
    10.1214/07-AOAS122.
    """
    sample = np.asarray(values, float)
    if against is not None:
        check_same_length(values, against, 'against')
        sample = sample - np.asarray(against, float)
    num_runs, num_questions = sample.shape
    mean = float(sample.mean())
    if num_runs < 2 or num_questions < MIN_QUESTIONS:
        return Interval(mean, None, None)
    rng = np.random.default_rng(seed)
    runs = rng.integers(num_runs, size=(num_resamples, num_runs))
    if design == 'crossed':
        questions = rng.integers(num_questions, size=(num_resamples, 1, num_questions))
    else:
        questions = rng.integers(num_questions, size=(*runs.shape, num_questions))
    means = sample[runs[:, :, None], questions].mean(axis=(1, 2))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def t_interval(values: Sequence[float], *, level: float) -> Interval:
    """Student's t interval of the mean over training runs; values [R], such as paired differences.

    Where runs share their questions it speaks of these questions only: what a question adds to all
    runs is not in their spread. The bounds are None for one run.
    """
    mean, error = _mean_and_error(values)
    if error is None:
        return Interval(mean, None, None)
    width = t_quantile((1 + level) / 2, len(values) - 1) * error
    return Interval(mean, mean - width, mean + width)


def t_test(values: Sequence[float]) -> float | None:
    """Returns the two-sided p-value of a mean of 0 over runs; values [R].

    None for one run, and for equal values (but for rounding), whose t is not defined.
    """
    mean, error = _mean_and_error(values)
    return t_tail(mean / error, len(values) - 1) if error else None


def t_tail(t: float, degrees: int) -> float:
    """Returns P(|T| >= |t|) for Student's t with a whole number of degrees of freedom.

    Source: Abramowitz and Stegun, 26.7.3 and 26.7.4, which are finite sums.
    """
    theta = math.atan(abs(t) / math.sqrt(degrees))
    cosine, odd = math.cos(theta), degrees % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    for n in range(2 + odd, degrees - 1, 2):
        term *= cosine**2 * (n - 1) / n
        total += term
    if not odd:
        return 1.0 - math.sin(theta) * total
    inner = math.sin(theta) * total if degrees > 1 else 0.0
    return 1.0 - (theta + inner) * 2 / math.pi


def t_quantile(probability: float, degrees: int) -> float:
    """Returns the quantile of Student's t for a probability in [0.5, 1), by bisection."""
    low, high, tail = 0.0, 1.0, 2 * (1 - probability)
    while t_tail(high, degrees) > tail:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, degrees) > tail else (low, middle)
    return high


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns the p-values of a family of tests, adjusted by Holm's step-down procedure.

    The i-th smallest of m is multiplied by m - i + 1 and is at least the one before. A test whose
    p-value is unknown (None) still counts in m. Source: Holm 1979.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted, highest = [None] * len(p_values), 0.0
    for place, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(p_values) - place) * p))
        adjusted[i] = highest
    return adjusted


def _mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns mean and standard error of the mean; no error for a single value.

    Values that differ by rounding alone are equal: their error is 0.
    """
    sample = np.asarray(values, float)
    if len(sample) < 2:
        return float(sample.mean()), None
    if np.ptp(sample) <= 1e-9 * max(1.0, np.abs(sample).max()):
        return float(sample.mean()), 0.0
    return float(sample.mean()), float(sample.std(ddof=1) / math.sqrt(len(sample)))


def check_same_length(values: Sequence, others: Sequence, name: str) -> None:
    """Raises ValueError if `others`, called `name`, has not one entry per value."""
    if len(others) != len(values):
        raise ValueError(f'{len(others)} {name} for {len(values)} values')


def _check_k(k: int, num_samples: int) -> None:
    if not 1 <= k <= num_samples:
        raise ValueError(f'k={k} must be in [1, {num_samples}], the number of samples')
