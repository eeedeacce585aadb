"""Critique-RL: a critic that first learns to judge, then to help, without forgetting to judge.

Rewarding a critic for what refinements become teaches it to help but not to judge. So stage I
rewards right verdicts; stage II adds the refinements, keeps a reward of verdicts, and holds the
critic close to where stage I left it.

Formula: I: r = [verdict right]; II: r = helpful + beta1 [verdict right] - beta2 KL(critic || I).
Source: arXiv 2510.24320.
Differs: this is stage II from the supervised critic; for both, run stage I with
critic_rewards.helpful=0 and give its model as critic.checkpoint. Constants are ours.
"""

from elenchus.configs import method

CHANGES = {
    'reinforce.critic_rewards.helpful': 1.0,
    'reinforce.critic_rewards.verdict': 0.5,
    'reinforce.refine': 'wrong',
    'reinforce.objective.kl': 'k3',
    'reinforce.objective.kl_coef': 0.01,
}
get_config = method.of(CHANGES, stages=method.REINFORCE_CRITIC)
