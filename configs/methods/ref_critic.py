"""RefCritic: a critic rewarded for its verdict and for the refinements it leads to.

A verdict can be guessed. A critique that says something useful also raises how often refinements
after it are right, so both are rewarded, the second over several refinements of each critique.

Formula: r = [verdict right] + share of right refinements after it, of attempts called wrong.
Source: arXiv 2507.15024.
Differs: the second term is the share of right refinements less that before, so that a critique of a
right attempt can lose it; weights of the terms are ours. At test time `evaluate` has votes among
attempts that the critic accepts (the arm weighted by its scores).
"""

from elenchus.configs import method

CHANGES = {
    'reinforce.num_refinements': 4,
    'reinforce.refine': 'wrong',
    'reinforce.critic_rewards.verdict': 1.0,
    'reinforce.critic_rewards.helpful': 1.0,
}
get_config = method.of(CHANGES, stages=method.REINFORCE_CRITIC)
