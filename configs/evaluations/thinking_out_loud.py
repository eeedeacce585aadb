"""Thinking Out Loud: are stated confidences true, and how often is no answer given?

A response may state how sure it is ("confidence: 80", or 8/10), or say that it does not know. The
expected calibration error compares what is stated with how often it is right.

Formula: ECE = sum over bins (n_b / n) |mean stated confidence - share right|, ten bins.
Source: the essence of "Thinking Out Loud"; ECE as in Guo et al., arXiv 1706.04599.
Differs: the paper's prompts are not fixed here: set prompts.attempt.instruction to ask for it.
"""

import re

import numpy as np

from elenchus.configs import method

STATED = re.compile(
    r'confidence\W*(?:is|of)?\W*(\d+(?:\.\d+)?)\s*(%|/\s*10\b|out of 10\b)?', re.IGNORECASE
)
UNKNOWN = re.compile(r"\bI (?:do not|don't) know\b|\bnot sure\b", re.IGNORECASE)


def stated_confidence(text):
    """The last stated confidence in [0, 1], or None."""
    matches = STATED.findall(text)
    if not matches:
        return None
    value, unit = float(matches[-1][0]), matches[-1][1]
    scale = 10.0 if unit[:1] in ('/', 'o', 'O') else 100.0 if unit == '%' or value > 1 else 1.0
    return value / scale if value <= scale else None


def stated(groups, read):
    """Calibration error of stated confidences, and the rates of stating one and of abstaining."""
    attempts = [episode.attempt for group in groups for episode in group]
    texts = [read(turn) for turn in attempts]
    values = [stated_confidence(text) for text in texts]
    known = [
        (value, float(turn.facts.correct))
        for value, turn in zip(values, attempts, strict=True)
        if value is not None
    ]
    error = 0.0
    for b in range(10):
        inside = [pair for pair in known if min(int(pair[0] * 10), 9) == b]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            error += len(inside) / len(known) * abs(confidence - right)
    return {
        'ece': error if known else float('nan'),
        'states a confidence': len(known) / len(texts),
        'abstains': sum(bool(UNKNOWN.search(text)) for text in texts) / len(texts),
    }


CHANGES = {'evaluate.measures': ('elenchus.configs.evaluations.thinking_out_loud:stated',)}
get_config = method.of(CHANGES, stages=method.EVALUATE)
