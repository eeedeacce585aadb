"""Critique-GRPO: learn from attempts and from refinements after critiques in one group.

Scores alone leave problems at which every attempt fails. Here each attempt is criticised in words
and refined by the same policy; both turns are reinforced.

Formula: GRPO on attempt and refinement, each against the same turn of the group.
Source: arXiv 2506.03106.
Differs: attempts and refinements have separate baselines, where the authors mix them in one group;
their larger weight on unlikely tokens of refinements is not here; refinements are trained behind
the critique that they answer, not behind the bare question; that a good refinement raises the
return of its attempt, by a discount of 0.5, is ours.
"""

from elenchus.configs import method

CHANGES = {
    'reinforce.turns.episode': 'critique',
    'reinforce.turns.discount': 0.5,
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.length': lambda config: config.train.length,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
