"""RefineBench: self-refinement against guided refinement, turn by turn.

A model that is told what is wrong refines well; one that must find it itself often does not. Both
are refined for several turns from the same attempts.

Formula: accuracy after turn t of self-refinement, and of refinement after the truth, t = 0..5.
Source: the essence of "RefineBench".
Differs: an answer is right or wrong, where the benchmark scores a checklist; guided refinement is
one turn, after the oracle's critique (the arm `oracle`); the other refinements follow the run's
critic, or the actor's own critiques with evaluate.critic_start='actor'.
"""

from elenchus.configs import method

CHANGES = {'evaluate.num_rounds': 5, 'evaluate.oracle': True, 'evaluate.refine': 'always'}
get_config = method.of(CHANGES, stages=method.EVALUATE)
