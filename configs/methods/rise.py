"""RISE: one model learns to solve and to verify its own solutions, in the same iterations.

A model that is rewarded for answers alone does not learn to check them. Here it also verifies
solutions that it has just sampled, and both kinds of samples train it, by the same rule.

Formula: r = 1 if right, -0.5 if wrong but readable, else -1; of an answer, and of a verdict against
the truth of the answer that it is about (1.5 [right] + 0.5 [readable] - 1). KL in the reward: 0.01.
Source: arXiv 2505.13445; verl_utils/reward/reward_func.py and scripts/train of
github.com/xyliu-cs/RISE, 3837783.
Differs: GRPO's advantages, where the authors use PPO with a value model; solutions and
verifications take one update each, as many of both, where the authors mix 128 verifications into a
batch; verified solutions are sampled for it; the model first learns both tasks by imitation, on the
lab by that of its base.
"""

from elenchus.configs import method

CHANGES = {
    'critic.start': 'actor',
    'reinforce.one_model': True,
    'reinforce.rewards.correct': 1.5,
    'reinforce.rewards.format': 0.5,
    'reinforce.critic_rewards.verdict': 1.5,
    'reinforce.critic_rewards.format': 0.5,
    'reinforce.critic_rewards.helpful': 0.0,
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.objective.kl': 'k1',
    'reinforce.objective.kl_coef': 0.01,
}
LAB = {'reinforce.critic_start': 'base'}  # which does both; a critic has forgotten to solve
get_config = method.of(CHANGES, stages=method.REINFORCE_BOTH, lab_changes=LAB)
