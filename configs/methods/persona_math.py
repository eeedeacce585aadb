"""PersonaMath: problems rewritten for other persons, and reflection on those that are failed.

A strong model rewrites each problem from the life of a person, by occupation, and solves it; that
is many more problems of the same kind. What is then answered wrongly is harder and worth more: it
is reflected on and solved again.

Formula: D = {(x', y'): x' = rewrite(x, person)}, y' a right attempt or, where attempts are wrong, a
right refinement after a critique.
Source: arXiv 2410.01504; no code was found. The persons and the words of the prompt are ours.
Differs: the critic writes problems and solutions, where the authors ask closed models; what is
trained are the actor's solutions that agree with them; ten persons of eleven groups of occupations,
each problem with one. On the lab persons are exchanged by rule.
"""

import re

from elenchus.configs import method

PERSONS = ('a nurse', 'a farmer', 'a bus driver', 'a shop manager', 'a teacher', 'an electrician')
PERSONS += ('a soldier', 'a cook', 'an engineer', 'a clerk')
ASK = (
    'Rewrite this problem so that it is from the life of {}, then solve it step by step. '
    'Write the solution behind a line `Solution:` and end it with `#### answer`.\n{}'
)
NAMES = ('ada', 'ben', 'cal', 'dan', 'eve', 'fay', 'gus', 'hal', 'ida', 'jim', 'kim', 'lea')
NAMES += ('max', 'ned', 'oda', 'pam')


def rewritten(problem, notes):
    """The problem with another person, and its solution."""
    seed = sum(map(ord, problem.id)) + notes.number
    if problem.source == 'lab':
        shift = 1 + seed % (len(NAMES) - 1)
        other = dict(zip(NAMES, (*NAMES[shift:], *NAMES[:shift]), strict=True))
        text = re.sub(r'[a-z]+', lambda word: other.get(word[0], word[0]), problem.question)
        return [(text, '')]
    if not notes.written:
        return [ASK.format(PERSONS[seed % len(PERSONS)], problem.question)]
    question, _, solution = notes.written[0].partition('Solution:')
    return [(question, solution)]


rewritten.writer = 'critic'
CHANGES = {'improve.make': 'elenchus.configs.methods.persona_math:rewritten'}
STAGES = (*method.CRITIC, 'critique_in_the_loop', 'evaluate')
get_config = method.of(CHANGES, stages=STAGES)
