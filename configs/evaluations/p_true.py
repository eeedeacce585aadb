"""P(True): does a model know which of its answers are right?

The probability that an answer is right is read off as the probability of a verdict, not stated in
words. It is useful if it tells right answers from wrong ones, and honest if it is calibrated.

Formula: AUROC = P(score of a right answer > of a wrong one), ties half; Brier = mean (p - y)^2.
Source: arXiv 2207.05221.
Differs: the critic's verdict after its critique; P(IK), which is asked before any attempt, is not
here.
"""

import numpy as np

from elenchus.configs import method


def p_true(groups, read):
    """AUROC and Brier score of the critic's probability, over attempts that have one."""
    facts = [
        e.attempt.facts for group in groups for e in group if e.attempt.facts.score is not None
    ]
    right = np.array([f.score for f in facts if f.correct])
    wrong = np.array([f.score for f in facts if not f.correct])
    difference = right[:, None] - wrong[None, :]
    errors = [f.score - bool(f.correct) for f in facts]
    return {
        'AUROC': np.mean((difference > 0) + 0.5 * (difference == 0)) if difference.size else np.nan,
        'Brier': np.mean(np.square(errors)) if errors else np.nan,
    }


CHANGES = {'evaluate.measures': ('elenchus.configs.evaluations.p_true:p_true',)}
get_config = method.of(CHANGES, stages=method.EVALUATE)
