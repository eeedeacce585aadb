"""SMART: the strategy of the first attempt is learnt from what later ones had to try.

A model begins a solution with the name of its strategy. Where the first attempt fails, others are
tried. What is trained is the strategy that worked as if it had been the first choice, so that next
time no second attempt is needed.

Formula: max log pi(s*, y | x), s* the first strategy of the sequence whose y is right; a question
that the model's own first attempt solves keeps that attempt.
Source: arXiv 2410.16128; github.com/kumar-shridhar/SMART, af814b6, has no code yet.
Differs: after a failure the strategies are tried in turn, where the authors' model is asked for
another one; an attempt after a failure does not see it. The lab has no words for strategies:
there all attempts are plain.
"""

from elenchus.configs import method

STRATEGIES = (
    'Strategy: chain of thought, one step after the other.',
    'Strategy: split the question into easier questions and answer them in order.',
    'Strategy: write a short program and follow what it computes.',
)


def strategy(problem, notes):
    """The name of a strategy, another one in each round."""
    return '' if problem.source == 'lab' else STRATEGIES[notes.number % len(STRATEGIES)]


CHANGES = {
    'improve.num_rounds': 3,
    'improve.restart': 'last',
    'improve.explore.num_attempts': 1,
    'improve.explore.num_guided_rounds': len(STRATEGIES),
    'improve.explore.min_correct': 1,
    'improve.explore.keep': 1,
    'improve.explore.opening': 'elenchus.configs.methods.smart:strategy',
}
LAB = {'improve.num_rounds': 2}
STAGES = (*method.CRITIC, 'self_guided', 'evaluate')
get_config = method.of(CHANGES, stages=STAGES, lab_changes=LAB)
