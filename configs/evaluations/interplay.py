"""Interplay of pre-training, mid-training and reinforcement: where a model stands before RL.

Reinforcement gains on questions at the edge of competence: those that are solved sometimes. So for
each level the coverage of all attempts is told beside their accuracy, and the share at the edge.

Formula: pass@1, pass@n, and the share of questions with 0 < right < n, by level.
Source: the essence of "On the Interplay of Pre-Training, Mid-Training and RL".
Differs: levels that training left out are not separated; process rewards against hacking are
`reinforce.rewards.steps`.
"""

import collections

import numpy as np

from elenchus.configs import method


def edge(groups, read):
    """pass@1, pass@n and the share at the edge of competence, by level."""
    shares = collections.defaultdict(list)
    for group in groups:
        right = np.mean([bool(episode.attempt.facts.correct) for episode in group])
        shares[group.problem.level].append(right)
    figures = {}
    for level, values in sorted(shares.items()):
        right = np.array(values)
        figures[f'level {level}: pass@1'] = right.mean()
        figures[f'level {level}: pass@n'] = np.mean(right > 0)
        figures[f'level {level}: at the edge'] = np.mean((right > 0) & (right < 1))
    return figures


CHANGES = {'evaluate.measures': ('elenchus.configs.evaluations.interplay:edge',)}
get_config = method.of(CHANGES, stages=method.EVALUATE)
