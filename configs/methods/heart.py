"""HEART: feedback on a wrong answer has a tone, and the tone changes from round to round.

A model that is told the same thing again stays on its wrong path. Short phrases after the six basic
emotions follow the feedback, another one in each round, so that it leaves the path.

Formula: y_r+1 ~ pi(x, y_r, c_r + phrase of emotion r mod 6), while y_r is called wrong.
Source: arXiv 2509.22876; no code was found. The phrases are ours.
Differs: the critic's critique stands before the phrase and its verdict decides who goes on; where
the authors' verifier knows the truth, `oracle` here refines once. On the lab, which has no words
for emotions, the phrases are six of its own words.
"""

from elenchus.configs import method

EMOTIONS = {
    'joy': 'You are close, and it will feel great to get this right.',
    'sadness': 'It is a pity that this answer did not work out.',
    'fear': 'Be careful: much depends on this answer, and it may fail again.',
    'anger': 'This is not acceptable. Do it properly this time.',
    'surprise': 'What an unexpected answer! Look at it with fresh eyes.',
    'disgust': 'That reasoning is sloppy. Clean it up.',
}
WORDS = ('wrong', 'answer', 'wrong ?', 'answer ?', 'wrong wrong', 'answer wrong')


def phrase(problem, notes):
    """The phrase of the round's emotion."""
    texts = WORDS if problem.source == 'lab' else tuple(EMOTIONS.values())
    return f'\n {texts[notes.number % len(texts)]}'


CHANGES = {
    'evaluate.feedback': 'elenchus.configs.methods.heart:phrase',
    'evaluate.num_rounds': 6,
    'evaluate.refine': 'wrong',
    'evaluate.uptake.num_problems': 0,
}
LAB = {'evaluate.num_rounds': 3}
get_config = method.of(CHANGES, stages=method.EVALUATE, lab_changes=LAB)
