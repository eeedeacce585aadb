"""PTR: earlier thoughts are read, the last answer alone is learnt, and test time goes on refining.

A weak model's thought, a better one, and the best answer form a chain. The thoughts are masked in
the loss, so that what is learnt is how to improve on a thought, not the thought.

Formula: max sum over the last answer of log pi(y_n | x, y_1, ..., y_(n-1)); weight 0 before it.
Source: arXiv 2410.13413; its further terms and their weights were not found.
Differs: chains of two thoughts, a flawed one with a critique, in place of a weak and a strong
model's; solutions alone are trained too, with the weight of refinements.
"""

from elenchus.configs import method

CHANGES = {
    'actor.refinements_per_problem': 3,
    'evaluate.refine': 'always',
    'evaluate.num_rounds': 3,
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
