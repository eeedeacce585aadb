"""AgenticLU: clarifications that lead to the answer are preferred to those that do not.

A long question is answered through a chain of self-made clarifications, found by a search. The
paths that end right are imitated; then, at each step, the clarification that leads to the answer is
preferred to its siblings, so that one pass does what took a search.

Formula: DPO on (clarification of the highest, of the lowest share of right answers after it).
Source: arXiv 2502.15920.
Differs: the clarification is a critique of an attempt, by the critic, and the chain has one of
them; its worth is what refinements after it gain. No retrieval and no long contexts.
"""

from elenchus.configs import method

CHANGES = {
    'prefer.pairs': 'best_worst',
    'prefer.num_attempts': 2,
    'prefer.num_critiques': 8,
    'prefer.num_refinements': 2,
    'prefer.length': lambda config: 2 * config.train.length,
}
get_config = method.of(CHANGES, stages=method.PREFER_CRITIC)
