"""Sharpening: self-improvement moves mass to what the model itself scores highest.

Without any label, the response of the highest self-score is chosen among n. The self-score then
never falls; whether accuracy rises depends on score and coverage.

Formula: mean score and accuracy of argmax over n of the score, for n = 1, 2, 4, ...
Source: arXiv 2412.01951.
Differs: the score is the critic's probability of a right answer, where the paper analyses the
model's own log-likelihood; this measures the potential, training on it is `improve.weighting`.
"""

import numpy as np

from elenchus.configs import method


def sharpened(groups, read):
    """Mean self-score and accuracy of the best of the first n attempts."""
    figures, size = {}, min(map(len, groups))
    for n in [2**k for k in range(size.bit_length()) if 2**k <= size]:
        best = [
            max(group[:n], key=lambda episode: episode.attempt.facts.score or 0.0)
            for group in groups
        ]
        figures[f'score of {n}'] = np.mean([e.attempt.facts.score or 0.0 for e in best])
        figures[f'accuracy of {n}'] = np.mean([bool(e.attempt.facts.correct) for e in best])
    return figures


CHANGES = {'evaluate.measures': ('elenchus.configs.evaluations.sharpening:sharpened',)}
get_config = method.of(CHANGES, stages=method.EVALUATE)
