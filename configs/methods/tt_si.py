"""TT-SI: a model that is unsure of a test question writes others like it and trains on them first.

Its own candidate answers tell whether it is unsure. What it writes trains small adapters for this
one question; they are dropped behind it, and the model is what it was.

Formula: p = softmax of the candidates' log-likelihoods; unsure iff p_(1) - p_(2) < tau;
y ~ pi_{theta + d}(x), d = argmin loss(G(x)) from 0.
Source: arXiv 2510.07841 (formula from summaries); no code was found, nor its constants.
Differs: candidates are the distinct answers of the attempts, each with its likeliest one; tau, four
problems, eight steps and the prompt are ours; TT-D, where a stronger model writes, is not here. On
the lab the others have other digits, by rule.
"""

import re

import numpy as np

from elenchus.configs import method

TAU, COUNT = 0.95, 4
ASK = (
    'Write another task like this one, then `Solution:` and its solution, ending `#### answer`.\n{}'
)


def margin(likelihoods):
    """Difference of the two largest shares in a softmax of log-likelihoods; 1 for a single one."""
    shares = np.exp(np.array(likelihoods) - max(likelihoods))
    return float(np.diff(np.sort([0.0, *shares / shares.sum()])[-2:])[0])


def unsure(group):
    """Whether the margin of the question's candidate answers is small, or there is none."""
    attempts = sorted((sum(e.attempt.logprobs), e.attempt.facts.answer or '') for e in group)
    best = {answer: total for total, answer in attempts if answer}  # the last is the likeliest
    return not best or margin([*best.values()]) < TAU


def similar(problem, notes):
    """Other problems, with solutions that the model writes."""
    on_lab, count = problem.source == 'lab', len(notes.written)

    def moved(i):
        return re.sub(r'\d', lambda d: str((int(d[0]) + i + 1) % 10), problem.question)

    if count < COUNT:
        return [moved(count) if on_lab else ASK.format(problem.question)]
    if on_lab:
        return [(moved(i), text) for i, text in enumerate(notes.written)]
    return [text.partition('Solution:')[::2] for text in notes.written]


CHANGES = {
    'evaluate.adapt.make': 'elenchus.configs.methods.tt_si:similar',
    'evaluate.adapt.when': 'elenchus.configs.methods.tt_si:unsure',
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
