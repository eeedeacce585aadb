"""PSR: as many rounds of self-reflection as the input is complex, none for simple ones.

A model checks its output and corrects it, round by round. More rounds help where there is much to
go wrong and are wasted elsewhere, so a light predictor reads the input and says how many to allow.

Formula: round r refines what is called wrong iff r <= N(x), N(x) = min(3, numbers in x / 3).
Source: arXiv 2510.01270 (abstract); the authors' trained predictor was not found, N is ours.
Differs: their outputs are checked for harm while they are written, and go back to before it; here
whole answers are checked for mistakes by the critic, and the predictor is a count, not trained.
"""

import re

from elenchus.configs import method

MOST, NUMBERS_A_ROUND = 3, 3


def num_rounds(question):
    """Rounds of reflection that a question is allowed."""
    return min(MOST, len(re.findall(r'\d+', question)) // NUMBERS_A_ROUND)


def by_complexity(groups, number):
    """Refines what the critic does not call correct, in the rounds that the question is allowed."""
    return [
        [
            number <= num_rounds(group.problem.question)
            and episode.critique.facts.verdict is not True
            for episode in group
        ]
        for group in groups
    ]


CHANGES = {
    'evaluate.refine': 'elenchus.configs.methods.psr:by_complexity',
    'evaluate.num_rounds': MOST,
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
