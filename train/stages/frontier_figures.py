"""Computes the figures of compute-optimal test time: the frontier, and the choice for a budget."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from elenchus.data.records import Problem
from elenchus.sampling.metrics import frontier, statistics
from elenchus.sampling.metrics.cost_curves import Point
from elenchus.sampling.metrics.frontier import BudgetFits, Candidates, Choice, Fit, IntervalOf
from elenchus.train.config.run_settings import EvaluateSettings


def summarise(
    s: EvaluateSettings,
    problems: Sequence[Problem],
    points: Mapping[str, Sequence[Point]],
    *,
    plain: Callable[[int], Point],
) -> dict[str, Any]:
    """Returns `frontier` and, with a budget, `budget`; {} without two candidates to choose from.

    plain: number of attempts -> point of their majority vote, with which a budget's choices are
    compared. A budget that pays for no candidate has the figure None, and a warning is printed:
    costs are known only after sampling.
    """
    levels = [problem.level for problem in problems]
    candidates = frontier.make_candidates(points, [p.id for p in problems], levels)
    if candidates is None:
        return {'budget': None} if s.budget else {}
    interval_of = functools.partial(
        statistics.bootstrap_ratio, num_resamples=s.num_resamples, seed=0, level=s.confidence
    )
    summary = {'frontier': frontier_figures(candidates, interval_of)}
    if not s.budget:
        return summary
    least = frontier.cheapest(candidates)
    if s.budget < least:
        print(
            f'warning: evaluate.budget={s.budget} pays for no way to answer; '
            f'the cheapest processes {least:.1f} tokens a question',
            flush=True,
        )
        return summary | {'budget': None}
    figures = budget_figures(candidates, s, interval_of=interval_of, plain=plain)
    return summary | {'budget': figures}


def frontier_figures(candidates: Candidates, interval_of: IntervalOf) -> dict[str, Any]:
    """Returns the figures of the best choices at all budgets of the frontier."""
    fits = [frontier.fits_at(candidates, b) for b in frontier.budgets(candidates)]
    return {
        'questions': len(candidates.level),
        'candidates': len(candidates.names),
        'rows': [_fits_figures(candidates, f, interval_of=interval_of) for f in fits],
    }


def budget_figures(
    candidates: Candidates,
    s: EvaluateSettings,
    *,
    interval_of: IntervalOf,
    plain: Callable[[int], Point],
) -> dict[str, Any]:
    """Returns the figures of `s.budget`, each choice beside the largest majority that it pays for.

    `majority` has the size of that vote, its accuracy and cost, and the difference of the choice to
    it, paired by question. The size is chosen by cost alone, so no halves are needed.
    """

    def with_majority(fit: Fit) -> dict[str, Any]:
        at = candidates.questions[np.isin(candidates.level, fit.levels)]
        means = {
            size: np.mean(np.array(plain(size).processed)[at])
            for size in range(1, s.num_attempts + 1)
        }
        sizes = [size for size, cost in means.items() if frontier.fits(cost, s.budget)]
        if not sizes:
            return {'majority': None}
        right = np.array(plain(sizes[-1]).right)[candidates.questions]
        right = np.where(np.isin(candidates.level, fit.levels), right, np.nan)
        difference = fit.estimate.right - right
        return {
            'majority': {
                'size': sizes[-1],
                'accuracy': frontier.mean_interval(candidates, right, interval_of),
                'processed': float(means[sizes[-1]]),
                'difference': frontier.mean_interval(candidates, difference, interval_of),
            }
        }

    fits = frontier.fits_at(candidates, s.budget)
    return _fits_figures(candidates, fits, interval_of=interval_of, more=with_majority)


def _fits_figures(
    candidates: Candidates,
    fits: BudgetFits,
    *,
    interval_of: IntervalOf,
    more: Callable[[Fit], dict[str, Any]] = lambda fit: {},
) -> dict[str, Any]:
    """Returns the figures of a budget: `all` (one candidate), `by_level` and each of `levels`.

    The `difference` of `by_level` is to `all`, paired by question: the worth of knowing the level.
    """

    def by_name(choice: Choice) -> dict[str, str]:
        return dict(zip(candidates.levels, map(candidates.names.__getitem__, choice), strict=True))

    def one_name(choice: Choice) -> str:
        return candidates.names[choice[0]]

    def figures(fit: Fit | None, name: Callable[[Choice], Any]) -> dict[str, Any] | None:
        if fit is None:
            return None
        return {
            'choice': name(fit.choice),
            'halves': [name(choice) for choice in fit.halves],
            'accuracy': frontier.mean_interval(candidates, fit.estimate.right, interval_of),
            'processed': frontier.weighted_mean(candidates, fit.estimate.processed),
            'tokens': frontier.weighted_mean(candidates, fit.estimate.tokens),
        } | more(fit)

    by_level = figures(fits.by_level, by_name)
    if by_level is not None:
        difference = fits.by_level.estimate.right - fits.single.estimate.right
        by_level['difference'] = frontier.mean_interval(candidates, difference, interval_of)
    return {
        'budget': fits.budget,
        'all': figures(fits.single, one_name),
        'by_level': by_level,
        'levels': {level: figures(fit, one_name) for level, fit in fits.levels.items()},
    }
