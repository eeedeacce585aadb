"""ReST-GRPO, the core of ReST-RL: only groups whose rewards differ enough are trained.

A group whose rewards hardly differ has advantages that are noise. Such groups get none, and are
replaced by those of other problems.

Formula: a group is kept if the deviation of its rewards is at least 0.05; then GRPO.
Source: arXiv 2508.19576; experiment/process_gen_data.py of github.com/THUDM/ReST-RL, b86959b.
Differs: the reward adds half of the critic's mean step score to correctness; groups are judged as
they are sampled, not before training; prefixes of the best responses are not added as new starts;
VM-MCTS, the other half of ReST-RL, is not here.
"""

import numpy as np

from elenchus.configs import method

LEAST = 0.05


def spread(returns, context):
    """GRPO's advantages, or 0 for all where the last turn's rewards differ by less than LEAST."""
    if returns[:, -1].std() < LEAST:
        return np.zeros_like(returns)
    return (returns - returns.mean(0)) / (returns.std(0) + context.settings.epsilon)


CHANGES = {
    'reinforce.advantage.outcome': 'elenchus.configs.methods.rest_grpo:spread',
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.rewards.steps': 0.5,
    'reinforce.refill_rounds': 2,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
