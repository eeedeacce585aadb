"""ReST-RL: only groups whose rewards differ enough are trained, and answers are searched in a tree.

A group whose rewards hardly differ has advantages that are noise. Such groups get none, and are
replaced by those of other problems. A tree then decodes, guided by a value model (VM-MCTS).

Formula: a group is kept if the deviation of its rewards is at least 0.05; then GRPO. Tree: child =
argmax V + c sqrt((1 + ln N) / (0.1 + n)) of the 3 best; c = 0.1; 5 lines at once, 15 times.
Source: arXiv 2508.19576; experiment/process_gen_data.py, algorithms/MCTS/mcts.py of
github.com/THUDM/ReST-RL, b86959b.
Differs: the reward adds half of the critic's mean step score to correctness; groups are judged as
they are sampled, not before training; prefixes of the best responses are not added as new starts;
the critic's step scores are the value model, which is not trained on values of a tree.
"""

import math

import numpy as np

from elenchus.configs import method

LEAST, VISIBLE, EPSILON = 0.05, 3, 0.1


def spread(returns, context):
    """GRPO's advantages, or 0 for all where the last turn's rewards differ by less than LEAST."""
    if returns[:, -1].std() < LEAST:
        return np.zeros_like(returns)
    return (returns - returns.mean(0)) / (returns.std(0) + context.settings.epsilon)


def uct(nodes, exploration, draw):
    """Goes down by UCT among the children that were valued best, up to a node without children."""
    at = 0
    while not nodes[at].is_open:
        node, live = nodes[at], [i for i in nodes[at].children if nodes[i].is_live]
        explored = exploration * math.sqrt(1 + math.log(node.visits))
        at = max(
            sorted(live, key=lambda i: -nodes[i].own)[:VISIBLE],
            key=lambda i: nodes[i].value + explored / math.sqrt(EPSILON + nodes[i].visits),
        )
    return at


TREE = {'select': 'elenchus.configs.methods.rest_grpo:uct', 'exploration': 0.1, 'expansions': 5}
TREE |= {'values': (('last', 1.0),), 'children': 5, 'num_nodes': 75}
CHANGES = {
    **{f'sampling.tree.{name}': value for name, value in TREE.items()},
    'evaluate.tree_problems': lambda c: min(c.evaluate.num_problems, c.evaluate.beam.num_problems),
    'reinforce.advantage.outcome': 'elenchus.configs.methods.rest_grpo:spread',
    'reinforce.advantage.step_coef': 0.0,
    'reinforce.rewards.steps': 0.5,
    'reinforce.refill_rounds': 2,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
