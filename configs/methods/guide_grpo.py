"""Guide-GRPO: hints where a whole group fails, trained as if there had been none.

A problem that all samples fail teaches nothing. It is attempted again with a hint in the context;
the ratio is taken for the prompt without the hint, so that the policy learns to do without it.

Formula: rho = pi_theta(y | x) / pi_old(y | x, hint), on groups without a right response.
Source: arXiv 2506.13923.
Differs: the hint is the first third of the reference's lines, where the authors had GPT-4o write
one, and the hinted samples replace the whole group; there is no PPO variant.
"""

from elenchus.configs import method

CHANGES = {'reinforce.turns.hint_share': 0.34, 'reinforce.advantage.step_coef': 0.0}
get_config = method.of(CHANGES, stages=method.REINFORCE)
