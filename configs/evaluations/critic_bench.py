"""CriticBench: how often a critic's verdict is right, against how uncertain the actor is.

Critique is hardest where the actor itself is unsure. So the accuracy of verdicts is told for
questions that the actor answers alike and for those that it answers in many ways.

Formula: share of attempts whose verdict is that of the answer, by the group's share of right ones.
Source: arXiv 2310.04815.
Differs: uncertainty is the group's share of right answers, which the critic is not told.
"""

import numpy as np

from elenchus.configs import method


def verdicts(groups, read):
    """Accuracy of verdicts on easy, middling and hard questions; no verdict is a wrong one."""
    bins = {'hard': [], 'middling': [], 'easy': []}
    for group in groups:
        share = np.mean([bool(e.attempt.facts.correct) for e in group])
        name = 'hard' if share < 1 / 3 else 'easy' if share > 2 / 3 else 'middling'
        bins[name] += [e.critique.facts.verdict is bool(e.attempt.facts.correct) for e in group]
    figures = {name: np.mean(values) if values else float('nan') for name, values in bins.items()}
    return figures | {'all': np.mean([value for values in bins.values() for value in values])}


CHANGES = {'evaluate.measures': ('elenchus.configs.evaluations.critic_bench:verdicts',)}
get_config = method.of(CHANGES, stages=method.EVALUATE)
