"""SCoRe: reinforcement of self-correction in two stages.

The actor attempts, is asked to correct itself, and is trained on both turns. Stage I trains the
correction alone and holds the attempt close to the reference; else both turns would become equal.
Stage II rewards both, and adds a bonus for what the correction gains over the attempt.

Formula: I: max E[r2] - beta2 KL(attempt); II: attempt r1, correction r2 + alpha (r2 - r1); alpha =
10, beta2 = 0.1.
Source: arXiv 2409.12917, equations 3 and 4; constants from train.py of github.com/BY571/SCoRe.
Differs: GRPO's advantages in place of REINFORCE with a baseline; in stage I attempts return r2,
where that code gives them no return; sizes are the lab's.
"""

from elenchus.configs import method

CHANGES = {
    'reinforce.turns.episode': 'correction',
    'reinforce.turns.progress': 10.0,
    'reinforce.turns.discount': 0.0,
    'reinforce.turns.attempt_kl_coef': 0.1,
    'reinforce.turns.first_phase_steps': 6,
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.objective.kl': 'k3',
    'reinforce.objective.kl_coef': 0.01,
    'reinforce.length': lambda config: config.train.length,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
