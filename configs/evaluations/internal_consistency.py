"""Internal consistency: do the responses to one question agree, and does agreement mean right?

Of the three layers of the survey (latent, decoding, response) the last can be read off samples: the
entropy of the answers, and accuracy where they agree.

Formula: H = - sum_a p_a ln p_a / ln n over the n answers to a question; 0 all agree, 1 none does.
Source: arXiv 2407.14507.
Differs: the response layer alone; latent states and token distributions are not compared.
"""

import collections
import math

import numpy as np

from elenchus.configs import method


def entropy(answers):
    """Entropy of the answers in [0, 1]; an attempt without an answer counts as one of its own."""
    counts = collections.Counter(a if a is not None else i for i, a in enumerate(answers))
    shares = [count / len(answers) for count in counts.values()]
    return (
        -sum(p * math.log(p) for p in shares) / math.log(len(answers)) if len(answers) > 1 else 0.0
    )


def agreement(groups, read):
    """Mean entropy, and the accuracy of attempts in the surer and in the less sure half."""
    values = [entropy([e.attempt.facts.answer for e in group]) for group in groups]
    right = [np.mean([bool(e.attempt.facts.correct) for e in group]) for group in groups]
    order = np.argsort(values, kind='stable')
    half = len(order) // 2
    return {
        'entropy': np.mean(values),
        'accuracy of the surer half': np.mean([right[i] for i in order[:half]]),
        'accuracy of the other half': np.mean([right[i] for i in order[half:]]),
    }


CHANGES = {'evaluate.measures': ('elenchus.configs.evaluations.internal_consistency:agreement',)}
get_config = method.of(CHANGES, stages=method.EVALUATE)
