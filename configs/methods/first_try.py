"""First Try Matters: a response ends at its first candidate answer.

What follows a candidate answer mostly confirms it, and seldom corrects it. So sampling stops after
the line with the first one, which saves the tokens of the reflection.

Formula: y_<= the line of candidate 1; an answer is the text behind '####' or in a box.
Source: arXiv 2510.08308.
Differs: candidates are found by line and not by sentence; every question stops at the first
candidate, where the authors' predictor lets some go on to the third.
"""

from elenchus.configs import method


def first_answer(text, pause):
    """Goes on while no line has an answer."""
    return '####' not in text and '\\boxed{' not in text


CHANGES = {
    'sampling.pause': 'line',
    'sampling.after_pause': 'elenchus.configs.methods.first_try:first_answer',
}
get_config = method.of(CHANGES, stages=(*method.EVALUATE, 'self_talk'))
