"""MAgICoRe: refinement for hard problems alone; easy ones are decided by a vote.

A problem is hard if its majority answer has low scores and the vote on it is unclear. Its samples
are refined after a review of their steps, and the gate is asked again. Old and new samples vote.

Formula: hard iff mean z < 0 of the majority's samples and H > ln 3 nats of either weighted vote;
z of ORM + product of PRM steps over the first sample of all problems; H by ORM, or by PRM.
Source: arXiv 2409.12147; refine.py of github.com/dinobby/MAgICoRE, 1388006.
Differs: the critic is ORM and PRM, and its critique the review; z is over a part's problems; old
and new samples vote unweighted (the arm `sequential majority (all)`), theirs by score, the k best.
"""

import collections
import math

import numpy as np

from elenchus.configs import method


def samples(episodes):
    """(answer, ORM, PRM) of the attempts whose scores are known."""
    turns = [(e.attempt.facts, e.attempt.step_scores) for e in episodes]
    return [
        (facts.answer, facts.score, math.prod(steps))
        for facts, steps in turns
        if None not in (facts.answer, facts.score, *steps)
    ]


def entropy(votes):
    """Entropy in nats of a weighted vote, of pairs (answer, weight)."""
    weights = collections.Counter()
    for answer, weight in votes:
        weights[answer] += weight
    shares = np.array([w for w in weights.values() if w > 0])
    shares = shares / shares.sum() if len(shares) else np.ones(1)
    return float(-(shares * np.log(shares)).sum())


def hard(groups, number):
    """Refines all samples of hard problems, and of those without a known score."""
    rows = [samples(group) for group in groups]
    first = [orm + prm for (_, orm, prm), *_ in filter(None, rows)] or [0.0]
    flags = []
    for group, row in zip(groups, rows, strict=True):
        top = collections.Counter(answer for answer, *_ in row).most_common(1)
        z = [(o + p - np.mean(first)) / (np.std(first) + 1e-8) for a, o, p in row if a == top[0][0]]
        unclear = max(entropy([(r[0], r[i]) for r in row]) for i in (1, 2)) > math.log(3)
        flags.append([not row or bool(np.mean(z) < 0 and unclear)] * len(group))
    return flags


CHANGES = {'evaluate.refine': 'elenchus.configs.methods.magicore:hard'}
CHANGES |= {'evaluate.num_rounds': 4, 'evaluate.num_attempts': 40}
LAB = {'evaluate.num_attempts': 8}
get_config = method.of(CHANGES, stages=method.EVALUATE, lab_changes=LAB)
