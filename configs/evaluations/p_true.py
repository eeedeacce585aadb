"""P(True) and P(IK): does a model know which of its answers are right, and which it can give?

P(True), that an answer is right, is read off as the probability of a verdict, not stated in words.
P(IK), that the model will know, is predicted before any attempt, from its state alone. Both are
useful if they tell right from wrong, and honest if they are calibrated.

Formula: AUROC = P(score of a right answer > of a wrong one), ties half; Brier = mean (p - y)^2;
P(IK) = sigmoid(w h(x) + b), fitted to the share of right attempts by cross-entropy.
Source: arXiv 2207.05221.
Differs: P(True) is the critic's verdict after its critique; P(IK) a linear probe of the state
behind the question, fitted on the other half of the questions; the authors train all weights.
"""

import numpy as np

from elenchus.configs import method

DECAY, STEPS = 0.1, 300


def figures(scores, right):
    """AUROC and Brier score of probabilities; NaN where one kind of answer is missing."""
    scores, right = np.array(scores, float), np.array(right, bool)
    difference = scores[right][:, None] - scores[~right][None, :]
    return {
        'AUROC': np.mean((difference > 0) + 0.5 * (difference == 0)) if difference.size else np.nan,
        'Brier': np.mean(np.square(scores - right)) if scores.size else np.nan,
    }


def p_true(groups, read):
    """AUROC and Brier score of the critic's probability, over attempts that have one."""
    facts = [e.attempt.facts for group in groups for e in group]
    facts = [f for f in facts if f.score is not None]
    return figures([f.score for f in facts], [bool(f.correct) for f in facts])


def p_ik(groups, read, states):
    """AUROC and Brier score of P(IK), which a probe predicts before the attempts."""
    right = np.array([[bool(e.attempt.facts.correct) for e in group] for group in groups])
    x = (states - states.mean(0)) / (states.std(0) + 1e-6) / np.sqrt(states.shape[1])
    x, p = np.hstack([x, np.ones((len(x), 1))]), np.full(len(x), np.nan)
    for half in (0, 1):
        seen, shares = x[1 - half :: 2], right[1 - half :: 2].mean(1)
        w = np.zeros(x.shape[1])
        for _ in range(STEPS if len(seen) else 0):
            w -= seen.T @ (1 / (1 + np.exp(-seen @ w)) - shares) / len(seen) + DECAY / len(seen) * w
        p[half::2] = 1 / (1 + np.exp(-x[half::2] @ w))
    return figures(np.repeat(p, right.shape[1]), right.ravel())


p_ik.reads_states = True
HERE = 'elenchus.configs.evaluations.p_true'
CHANGES = {'evaluate.measures': (f'{HERE}:p_true', f'{HERE}:p_ik')}
get_config = method.of(CHANGES, stages=method.EVALUATE)
