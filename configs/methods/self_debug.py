"""Self-debug with explanation: explanation and refinement are rewarded for the outcome.

The model explains what is wrong with an attempt, then refines it. Trajectories that end right are
imitated; then both parts are reinforced: the explanation by what its refinements become, the
refinement by its own outcome.

Formula: r(explanation) = mean of (right after - before) + [verdict right] / 2;
r(refinement) = right after.
Source: arXiv 2405.18649.
Differs: explanation and refinement are written by two players, critic and actor, in turn; the
verifier stands for the execution of tests.
"""

from elenchus.configs import method

CHANGES = {
    'critique.filter_samples': 4,
    'critique.filter_successes': 1,
    'reinforce.turns.episode': 'critique',
    'reinforce.turns.attempt': 0.0,
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.critic_rewards.helpful': 1.0,
    'reinforce.critic_rewards.verdict': 0.5,
    'reinforce.length': lambda config: config.train.length,
}
get_config = method.of(CHANGES, stages=method.REINFORCE_BOTH)
