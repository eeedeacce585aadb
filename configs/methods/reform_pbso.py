"""ReForm's PBSO: rewards at every position, with bounded returns.

Each turn has a reward of its own, and its return adds what follows. The return is kept within the
bounds of the rewards, so that a turn cannot earn more than the best outcome by coming early. All
turns of all samples are then compared with each other.

Formula: G_t = clip(r_t + gamma G_{t+1}, r_min, r_max); A = (G - mean) / std over all positions.
Source: arXiv 2510.24592.
Differs: the turns are attempt and refinement of the same question, where the authors interleave
formal statements with checks of them; gamma = 1, which the paper does not state.
"""

import numpy as np

from elenchus.configs import method

LEAST, MOST = 0.0, 1.0


def bounded(returns, context):
    """Advantages of the bounded returns, normalised over all turns of the group."""
    following = np.zeros(len(returns))
    values = np.zeros_like(returns)
    for turn in range(returns.shape[1] - 1, -1, -1):
        following = np.clip(context.rewards[:, turn] + context.discount * following, LEAST, MOST)
        values[:, turn] = following
    mean = values[0, 0] if np.ptp(values) == 0 else values.mean()  # exactly 0 of equal ones
    return (values - mean) / (values.std() + context.settings.epsilon)


CHANGES = {
    'reinforce.turns.episode': 'correction',
    'reinforce.turns.discount': 1.0,
    'reinforce.advantage.outcome': 'elenchus.configs.methods.reform_pbso:bounded',
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.length': lambda config: config.train.length,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
