"""RL^V: one model solves by reinforcement and, in the same iterations, learns to verify.

Reinforcement without a value model leaves nothing that can rank solutions at test time. The
solutions that it samples and grades anyway are data for a verifier, which the same model becomes.

Formula: J = J_RL + lambda E[log p(true verdict | question, sampled solution)]. Here lambda is
`critic_rewards.verdict` = 1; the authors' value is not confirmed.
Source: arXiv 2505.04842; no code was found.
Differs: verdicts take an update of their own behind that of the solutions, on solutions sampled for
it, where the authors add both losses; a verdict is a critique without steps in the critic's grammar
in place of "Yes" or "No", and all of its tokens are trained, with their mean as the likelihood; the
model first learns both tasks by imitation.
"""

from elenchus.configs import method

CHANGES = {
    'critic.start': 'actor',
    'reinforce.one_model': True,
    'reinforce.critiques': 'true',
    'reinforce.samples_per_row': 1,
    'reinforce.advantage.outcome': 'rloo',
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.critic_rewards.verdict': 1.0,
    'reinforce.critic_rewards.helpful': 0.0,
}
LAB = {'reinforce.critic_start': 'base'}  # which does both; a critic has forgotten to solve
get_config = method.of(CHANGES, stages=method.REINFORCE_BOTH, lab_changes=LAB)
