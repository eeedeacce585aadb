"""ThinkLite-VL: problems are chosen by how many attempts it takes to solve them.

Easy problems teach reinforcement little, and how hard one is for this very model shows in the
attempts until the first right one. Problems that take too few are left out.

Formula: a group is trained iff its first right response is behind the first K; then GRPO.
Source: arXiv 2504.07934; mcts.py of github.com/si0wang/ThinkLite-VL, 37fb148, which counts the
iterations of a search until one is right, of at most 50; the bound was not found there, K is ours.
Differs: text without images; independent attempts in place of a tree search; problems are judged by
the model of the iteration, not once before training; unsolved ones have no advantage either way.
"""

import numpy as np

from elenchus.configs import method

EASY = 0.25  # share of a group's attempts within which an easy problem is solved


def attempts_to_solve(turns):
    """Number of the first right attempt, from 1; infinite if there is none."""
    right = [i for i, turn in enumerate(turns, 1) if turn.turn.facts.correct]
    return right[0] if right else np.inf


def hard(returns, context):
    """GRPO's advantages, or 0 for all samples of an easy problem, which is then replaced."""
    if attempts_to_solve(context.turns[0]) <= EASY * len(returns):
        return np.zeros_like(returns)
    return (returns - returns.mean(0)) / (returns.std(0) + context.settings.epsilon)


CHANGES = {
    'reinforce.advantage.outcome': 'elenchus.configs.methods.thinklite_vl:hard',
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.refill_rounds': 2,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
