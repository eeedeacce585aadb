"""DeepCritic: a critic that is trained by where it finds the first error.

The critic is fine-tuned on critiques of every step, then reinforced: a critique earns 1 if it names
the very step that went wrong first, or says truly that none did. The step labels come from
rollouts: a step is wrong if hardly any continuation after it reaches the answer.

Formula: r = [first step called wrong = first wrong step, or both none]; 8 rollouts a step.
Source: arXiv 2505.00662; scripts/run_rollout.sh of github.com/RUCBM/DeepCritic, 6a0cde9.
Differs: the first wrong step is the first after which fewer than 40 % of the rollouts are right,
since the authors' curation of their counts is not published; labels are of the actor that is
criticised, not of a stronger one; on the lab the truth of each line is known and is the label. No
critiques of critiques.
"""

from elenchus.configs import method

CHANGES = {
    'critique.annotator': 'monte_carlo',
    'critique.num_rollouts': 8,
    'reinforce.num_rollouts': 8,
    'reinforce.rollout_threshold': 0.4,
    'reinforce.critic_rewards.helpful': 0.0,
    'reinforce.critic_rewards.verdict': 0.0,
    'reinforce.critic_rewards.located': 1.0,
}
LAB = {'reinforce.num_rollouts': 0}
get_config = method.of(CHANGES, stages=method.REINFORCE_CRITIC, lab_changes=LAB)
