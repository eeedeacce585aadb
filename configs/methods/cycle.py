"""CYCLE: train on faulty attempts and what is wrong with them, so that the model can refine.

The data pair a faulty attempt and feedback on it with a right one. At test time the model attempts,
is given feedback, and refines, for several rounds.

Formula: max log pi(right | question, faulty, feedback).
Source: arXiv 2403.18746.
Differs: the feedback is a critique in words, where the authors execute the program against tests;
the faulty attempt is never trained, where they mask a share of its tokens.
"""

from elenchus.configs import method

CHANGES = {
    'actor.refinements_per_problem': 2,
    'critique.filter_samples': 4,
    'critique.filter_successes': 1,
    'evaluate.num_rounds': 3,
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
