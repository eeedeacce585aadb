"""DeepCritic: a critic that is trained by where it finds the first error.

The critic is fine-tuned on critiques of every step, then reinforced: a critique earns 1 if it names
the very step that went wrong first, or says truly that none did. The step labels come from
rollouts: a step is wrong if hardly any continuation after it reaches the answer.

Formula: r = [first step called wrong = first wrong step, or both none].
Source: arXiv 2505.00662; scripts/run_rollout.sh of github.com/RUCBM/DeepCritic, 6a0cde9.
Differs: the labels of the reinforcement are the lab's own truth of each line, since rollout labels
reach the critic's fine-tuning alone; on text the verdict is rewarded. No critiques of critiques.
"""

from elenchus.configs import method

CHANGES = {
    'critique.annotator': 'monte_carlo',
    'reinforce.critic_rewards.helpful': 0.0,
}
LAB = {'reinforce.critic_rewards.verdict': 0.0, 'reinforce.critic_rewards.located': 1.0}
get_config = method.of(CHANGES, stages=method.REINFORCE_CRITIC, lab_changes=LAB)
