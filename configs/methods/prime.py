"""PRIME: process rewards of a model that learns online, from outcomes alone.

A copy of the policy is trained to tell right responses from wrong ones by its log-ratio to the
reference. That ratio is a sum over tokens, so each part of a response has a reward, although no
part was ever labelled. The policy is trained on outcomes and on these rewards.

Formula: r_t = beta log(pi_phi / pi_ref); loss of pi_phi: cross-entropy of sigmoid(sum_t r_t);
A_t = outcome's RLOO + 5 sum_{s >= t} (r_s n / (n - 1) - sum_i mean(r_i) / (n - 1)), n responses.
Source: arXiv 2502.01456; training/verl (core_algos.py, workers/actor/dp_prime.py) and the script
run_prime_main.sh of github.com/PRIME-RL/PRIME, 18ad596: beta 0.05, groups of 20 to 80 % right.
Differs: a reward is that of a line, not of a token; rewards are scaled by their largest sum in the
group, where the authors take that of the batch; advantages are not whitened over the batch.
"""

import numpy as np

from elenchus.configs import method

LEAST, MOST = 0.2, 0.8


def is_solvable(context):
    """Whether the group's share of right attempts is within the bounds."""
    return LEAST <= np.mean([bool(t.turn.facts.correct) for t in context.turns[0]]) <= MOST


def outcome(returns, context):
    """Leave-one-out advantages of the returns; 0 for a group that is too easy or too hard."""
    n = len(returns)
    return (returns - returns.mean(0)) * n / (n - 1) * is_solvable(context)


def process(scores, context):
    """Leave-one-out advantages of steps: rewards less the baseline, summed to the end."""
    n, rewards = len(scores), [np.asarray(row, np.float64) for row in scores]
    sums = [np.abs(row[::-1].cumsum()).max(initial=0.0) for row in rewards]
    rewards = [row / (max(sums) + 1e-6) * is_solvable(context) for row in rewards]
    baseline = sum(row.mean() for row in rewards if len(row)) / (n - 1)
    return [(row * n / (n - 1) - baseline)[::-1].cumsum()[::-1] for row in rewards]


CHANGES = {
    'reinforce.implicit.beta': 0.05,
    'reinforce.implicit.learning_rate': lambda c: 2 * c.reinforce.optimizer.learning_rate,
    'reinforce.advantage.outcome': 'elenchus.configs.methods.prime:outcome',
    'reinforce.advantage.steps': 'elenchus.configs.methods.prime:process',
    'reinforce.advantage.step_coef': 5.0,
    'reinforce.objective.average': 'token',
    'reinforce.refill_rounds': 2,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
