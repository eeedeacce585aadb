"""Choosing among several answers: majority vote and best of n."""

import collections
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from elenchus.sampling.metrics import statistics

Aggregate = Literal['min', 'product', 'last']
"""Reduction of an attempt's step rewards to one score: the worst step, their product, the last."""
_AGGREGATES = {'min': min, 'product': math.prod, 'last': lambda scores: scores[-1]}


def aggregate(step_scores: Sequence[float | None], how: Aggregate) -> float:
    """Reduces the scores of an attempt's steps to one score; 0 without steps.

    It ranks attempts, and an unknown step counts as 0 in it: an attempt that the critic passed is
    chosen before one that it did not judge.
    """
    scores = [score or 0.0 for score in step_scores]
    return float(_AGGREGATES[how](scores)) if scores else 0.0


Shares = Mapping[str, float]
"""Answer -> the probability that a rule chooses it; empty if there is no answer to choose."""


def majority(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> Shares:
    """Returns the answers with most votes, or with most weight; ties are shared equally.

    Samples are exchangeable, so a rule such as "the first of equals" would let a sample's place
    decide: a majority of two different answers is worth as much as one of them. None stands for
    "no answer" and has no vote.
    """
    weights = [1.0] * len(answers) if weights is None else weights
    statistics.check_same_length(answers, weights, 'weights')
    votes_of = collections.defaultdict(list)
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            votes_of[answer].append(weight)
    # fsum rounds once, so that equal totals are equal whatever the order of their weights.
    return _shared_by_highest({a: math.fsum(votes) for a, votes in votes_of.items()})


def latest_majority(answers: Sequence[str | None], rounds: Sequence[float]) -> Shares:
    """Returns the majority of chains' answers; of tied answers the one that occurs latest wins.

    rounds: the round of each answer. Answers that are tied and equally late share.
    """
    statistics.check_same_length(answers, rounds, 'rounds')
    tied, latest = majority(answers), {}
    for answer, number in zip(answers, rounds, strict=True):
        if answer in tied:
            latest[answer] = max(number, latest.get(answer, number))
    return _shared_by_highest(latest)


def _shared_by_highest(values: Mapping[str, float]) -> Shares:
    highest: Collection[str] = [a for a, value in values.items() if value == max(values.values())]
    return dict.fromkeys(highest, 1.0 / len(highest)) if highest else {}


def best_of_n(answers: Sequence[str | None], scores: Sequence[float]) -> str | None:
    """Returns the answer with the highest score, the first of equals; None if all are None."""
    statistics.check_same_length(answers, scores, 'scores')
    candidates = [i for i, answer in enumerate(answers) if answer is not None]
    return answers[max(candidates, key=scores.__getitem__)] if candidates else None
