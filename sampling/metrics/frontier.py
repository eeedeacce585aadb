"""Finds the most accurate test-time strategy for a budget of processed tokens a question.

A candidate is an arm of cost_curves.py at one size. The accuracy of the best of many candidates is
biased upwards by its selection. Cross-fitting removes the bias: a candidate is chosen on one half
of the questions and its accuracy is measured on the other, both ways. Costs need no reference
answers, so they are means over all questions. docs/methods.md, "Compute-optimal test time", has the
definitions and sources.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elenchus.sampling.metrics import cost_curves
from elenchus.sampling.metrics.cost_curves import Point
from elenchus.sampling.metrics.statistics import Interval

Choice = tuple[int, ...]
"""One candidate for each level of a table."""

IntervalOf = Callable[[Sequence[float], Sequence[float]], Interval]
"""(numerators, denominators), one each a question -> their ratio; statistics.bootstrap_ratio."""


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The candidates of one evaluation; NaN where a candidate was not sampled at a question.

    A beam search may cover the first questions only. Means are then over the questions that it has,
    level by level, so that the levels keep their shares.
    """

    names: tuple[str, ...]  # such as 'refined majority@2', A of them
    right: np.ndarray  # [A, Q], probability of a correct answer
    processed: np.ndarray  # [A, Q], expected number of processed tokens
    tokens: np.ndarray  # [A, Q], expected number of sampled tokens
    levels: tuple[str, ...]  # names of the L levels
    level: np.ndarray  # [Q], index into `levels`
    half: np.ndarray  # [Q], 0 or 1
    questions: np.ndarray  # [Q], index of the question in the evaluation

    @functools.cached_property
    def shares(self) -> np.ndarray:
        """Share of the questions of each level, [L]."""
        return np.bincount(self.level, minlength=len(self.levels)) / len(self.level)

    @functools.cached_property
    def costs(self) -> np.ndarray:
        """Mean number of processed tokens of each candidate at each level, [A, L].

        NaN where `accuracies` are.
        """
        means = self._means(self.processed, self.half >= 0)
        return np.where(np.isnan(self.accuracies[-1]), np.nan, means)

    @functools.cached_property
    def accuracies(self) -> np.ndarray:
        """Mean accuracy on the first half, on the second and on all questions, [3, A, L].

        NaN where one half lacks the candidate: it cannot be both chosen and checked.
        """
        members = (self.half == 0, self.half == 1, self.half >= 0)
        means = np.stack([self._means(self.right, some) for some in members])
        return np.where(np.isnan(means[0] + means[1]), np.nan, means)

    def _means(self, values: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Means over the members of each level that were sampled, [A, L]."""
        sampled = ~np.isnan(self.right) & members
        of_level = np.eye(len(self.levels))[self.level]
        counts = sampled @ of_level
        sums = np.where(sampled, values, 0.0) @ of_level
        return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


class Table(NamedTuple):
    """Accuracy and cost of each candidate at the levels of a choice, and the levels' weights."""

    accuracy: np.ndarray  # [A, L]; NaN = not available
    cost: np.ndarray  # [A, L]
    share: np.ndarray  # [L], sums to 1


class Estimate(NamedTuple):
    """Choices applied to questions, each array [Q]; NaN outside their levels or not sampled."""

    right: np.ndarray
    processed: np.ndarray
    tokens: np.ndarray


class Fit(NamedTuple):
    """The best choice for a budget, and its cross-fitted estimate."""

    levels: list[int]  # indices of the levels that it covers
    choice: Choice  # made on all questions; the one to use
    halves: tuple[Choice, Choice]  # made on each half; only for the estimate
    estimate: Estimate  # of halves[0] on the second half, and of halves[1] on the first


class BudgetFits(NamedTuple):
    """The best choices for a budget; None where no candidate fits it."""

    budget: float
    single: Fit | None  # one candidate for all levels
    by_level: Fit | None  # one for each level, which share the budget; None also with one level
    levels: dict[str, Fit | None]  # one for each level, whose own mean cost fits; {} with one level


# Candidates


def make_candidates(
    points: Mapping[str, Sequence[Point]], problem_ids: Sequence[str], levels: Sequence[int]
) -> Candidates | None:
    """Builds the candidates from the points of all arms; problem_ids and levels are by question.

    Left out are the oracle, which is not a way to answer, and points whose processed tokens are
    unknown. A level with a single question cannot be halved, so the question is left out. Returns
    None if fewer than two candidates or no question remain.
    """
    kept = [i for i, level in enumerate(levels) if levels.count(level) > 1]
    methods = {
        f'{arm}@{point.size}': point
        for arm, arm_points in points.items()
        if arm != cost_curves.ORACLE
        for point in arm_points
        if None not in point.processed
    }
    if len(methods) < 2 or not kept:
        return None
    right, processed, tokens = (
        np.array([_pad(getattr(p, field), len(levels)) for p in methods.values()])[:, kept]
        for field in ('right', 'processed', 'tokens')
    )
    distinct = sorted({levels[i] for i in kept})
    level = np.array([distinct.index(levels[i]) for i in kept])
    half = halve([problem_ids[i] for i in kept], level)
    names = tuple(map(str, distinct))
    return Candidates(
        tuple(methods), right, processed, tokens, names, level, half, questions=np.array(kept)
    )


def halve(problem_ids: Sequence[str], level: Sequence[int]) -> np.ndarray:
    """Assigns each question to half 0 or 1, [Q], alternately within a level.

    The order is that of a hash of the ids, so it does not depend on the order in a file. The halves
    of a level differ by at most one question.
    """
    digests = [hashlib.sha256(name.encode()).digest() for name in problem_ids]
    half, counts = np.zeros(len(problem_ids), int), dict.fromkeys(level, 0)
    for i in sorted(range(len(problem_ids)), key=digests.__getitem__):
        half[i] = counts[level[i]] % 2
        counts[level[i]] += 1
    return half


def _pad(values: Sequence[float], length: int) -> list[float]:
    return [*values, *[math.nan] * (length - len(values))]


# Choices


def one_choice(table: Table, budget: float) -> Choice | None:
    """Returns the most accurate single candidate whose mean cost over the levels fits the budget.

    Ties go to the cheapest, then to the first. The candidate is repeated for every level. Returns
    None if none fits.
    """
    # Rounding: equal means that were added in another order must be equal.
    accuracy = np.round(table.accuracy @ table.share, 12)
    cost = table.cost @ table.share
    usable = [a for a in range(len(cost)) if not np.isnan(accuracy[a]) and fits(cost[a], budget)]
    if not usable:
        return None
    return (max(usable, key=lambda a: (accuracy[a], -cost[a])),) * len(table.share)


def shared_choice(table: Table, budget: float) -> Choice | None:
    """Returns one candidate for each level: the highest mean accuracy whose mean cost fits.

    Levels share the budget: an easy level may leave tokens to a hard one. The search is exact
    dynamic programming over levels: it keeps only the Pareto-optimal combinations of the levels so
    far, because further levels add the same to all. Returns None if no combination fits.
    """
    combinations: list[tuple[float, float, Choice]] = [(0.0, 0.0, ())]
    for accuracy, cost, share in zip(table.accuracy.T, table.cost.T, table.share, strict=True):
        known = np.flatnonzero(~np.isnan(accuracy))
        options = _undominated([(cost[a], accuracy[a], (int(a),)) for a in known])
        combinations = _undominated(
            [
                (spent + share * cost, right + share * accuracy, chosen + choice)
                for spent, right, chosen in combinations
                for cost, accuracy, choice in options
                if fits(spent + share * cost, budget)
            ]
        )
    return combinations[-1][-1] if combinations else None


def _undominated(options: Sequence[tuple[float, float, Choice]]) -> list:
    """Returns the Pareto-optimal options (cost, accuracy, choice), sorted by cost."""
    best, kept = -math.inf, []
    for option in sorted(options, key=lambda o: (o[0], -o[1])):
        if round(option[1], 12) > best:
            best = round(option[1], 12)
            kept.append(option)
    return kept


def fits(cost: float, budget: float) -> bool:
    """Returns True if a cost is at most the budget, up to rounding."""
    return cost <= budget * (1 + 1e-9)


# Cross-fitting


def fit(
    candidates: Candidates,
    budget: float,
    *,
    levels: Sequence[int],
    choose: Callable[[Table, float], Choice | None] = one_choice,
) -> Fit | None:
    """Chooses for a budget at these levels, on all questions and by cross-fitting.

    Returns None if nothing fits the budget.
    """
    share = candidates.shares[levels] / candidates.shares[levels].sum()
    first, second, both = (
        choose(Table(accuracy[:, levels], candidates.costs[:, levels], share), budget)
        for accuracy in candidates.accuracies
    )
    # Costs and gaps are the same in the three tables, so either all have a choice or none has.
    if both is None:
        return None
    return Fit(levels, both, (first, second), _estimate(candidates, (second, first), levels))


def _estimate(candidates: Candidates, choices: Sequence[Choice], levels: Sequence[int]) -> Estimate:
    """Applies choices[h] to the questions of half h, at these levels."""
    values = Estimate(*(np.full(len(candidates.level), np.nan) for _ in Estimate._fields))
    for half in (0, 1):
        for level, chosen in zip(levels, choices[half], strict=True):
            at = (candidates.half == half) & (candidates.level == level)
            for field, array in zip(Estimate._fields, values, strict=True):
                array[at] = getattr(candidates, field)[chosen, at]
    return values


def fits_at(candidates: Candidates, budget: float) -> BudgetFits:
    """Returns the best choices for a budget of processed tokens a question."""
    every = list(range(len(candidates.levels)))
    single = fit(candidates, budget, levels=every)
    if len(every) == 1:
        return BudgetFits(budget, single, None, {})
    by_level = fit(candidates, budget, levels=every, choose=shared_choice)
    levels = {candidates.levels[i]: fit(candidates, budget, levels=[i]) for i in every}
    return BudgetFits(budget, single, by_level, levels)


def cheapest(candidates: Candidates) -> float:
    """Returns the smallest mean cost of a candidate over all questions: no budget is below it."""
    return float(np.nanmin(candidates.costs @ candidates.shares))


def budgets(candidates: Candidates) -> list[float]:
    """Returns powers of two times the cheapest cost, up to the first that fits every cost."""
    low = cheapest(candidates)
    high = float(np.nanmax(candidates.costs @ candidates.shares))
    return [low * 2**i for i in range(math.ceil(math.log2(high / low) - 1e-9) + 1)]


# Means over questions


def mean_interval(
    candidates: Candidates, values: np.ndarray, interval_of: IntervalOf
) -> list[float | None]:
    """Returns the mean of values [Q] with its interval over questions; see `weighted_mean`."""
    known = ~np.isnan(values)
    weights = _weights(candidates, known)[known]
    return list(interval_of(values[known] * weights, weights))


def weighted_mean(candidates: Candidates, values: np.ndarray) -> float:
    """Returns the mean of values [Q]; NaN entries do not count.

    Where a candidate covers a part of the questions, those that it has stand for all of their level
    and half.
    """
    known = ~np.isnan(values)
    return float(np.average(values[known], weights=_weights(candidates, known)[known]))


def _weights(candidates: Candidates, known: np.ndarray) -> np.ndarray:
    """Weight of each question, [Q]: the questions of its level and half, by the known ones."""
    cell = 2 * candidates.level + candidates.half
    known_counts = np.bincount(cell, known)
    return (np.bincount(cell) / np.maximum(known_counts, 1))[cell]
