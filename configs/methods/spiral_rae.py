"""SPIRAL's role-conditioned advantage estimation (RAE): one running baseline a role.

Where several roles are trained together, a group's mean mixes their rewards. Here a return is
compared with the average of its own role's earlier returns.

Formula: A = R - b_role; afterwards b_role <- 0.95 b_role + 0.05 R, from b = 0, return by return.
Source: arXiv 2506.24119; train_spiral.py of github.com/spiral-rl/spiral, a02d0ed.
Differs: the roles are the actor's attempt and the critic's critique in place of players of a game,
and the baseline is updated after an iteration, not after each of its games.
"""

from elenchus.configs import method

DECAY = 0.95


def roles(context):
    """The role of each turn, [G][K]; that of an attempt again where it is not refined."""
    return [[turn.turn.role for turn in row] for row in zip(*context.turns, strict=True)]


def baseline(returns, context):
    """Returns minus the baseline of each turn's role."""
    return returns - [[context.state.get(role, 0.0) for role in row] for row in roles(context)]


def update(returns, context):
    """Baselines after these returns."""
    state = dict(context.state)
    for row, values in zip(roles(context), returns, strict=True):
        first = dict(zip(row[::-1], values[::-1], strict=True))  # of each role
        for role, value in first.items():
            state[role] = DECAY * state.get(role, 0.0) + (1 - DECAY) * float(value)
    return state


baseline.update = update

CHANGES = {
    'reinforce.advantage.outcome': 'elenchus.configs.methods.spiral_rae:baseline',
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.critic_rewards.helpful': 1.0,
}
get_config = method.of(CHANGES, stages=method.REINFORCE_BOTH)
