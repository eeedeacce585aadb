"""SciGLM: solutions that a model writes, revises where they are wrong, and that a classifier keeps.

A model solves the problems step by step. Where its answer is wrong it reflects on the mistake,
knowing the answer, and solves the problem again. A classifier of instructions then leaves out what
is poor, and the student is trained on the rest.

Formula: y ~ pi(x); if wrong: y' ~ pi(x, y, c), c = critique(x, y, answer); kept if s(x, y) >= 0.5.
Source: arXiv 2401.07950; self_reflective_annotation of github.com/THUDM/SciGLM, 685e584.
Differs: the critic writes the reflection and its score is the classifier, where the authors ask
GPT-4 and train one on ranked responses; their third attempt, with the answer alone, is not here;
the threshold is ours.
"""

from elenchus.configs import method

CHANGES = {
    'improve.restart': 'base',
    'improve.explore.num_attempts': 1,
    'improve.explore.num_guided_rounds': 1,
    'improve.explore.min_correct': 1,
    'improve.explore.teacher': 'reference',
    'improve.weighting': 'threshold',
    'improve.threshold': 0.5,
}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'interactive', 'evaluate'))
