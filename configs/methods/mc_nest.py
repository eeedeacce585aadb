"""MC-NEST: a tree of refined answers, whose next answer is drawn by UCT times a Nash strategy.

A node is a whole answer, its children are refinements. The model scores answers itself.

Formula: u = Q + c sqrt(ln(N + 1) / (n + e)), c = 1; weight = u / m of the m children of the root,
0 of others (all 0: uniform); candidates have < 2 children, none of them better; a node above a new
one: Q = (Q + best child) / 2; reward in [-100, 100], above 95 less 5. The best Q answers.
Source: arXiv 2411.15645 (id not confirmed); the authors' script for AIME 2025.
Differs: rewards are mapped to [0, 1]; a node is not scored again each time it is chosen; the root
is no answer ("I don't know"), its children are attempts. Greedy and pairwise policies are those of
`sampling.tree.select`, over all nodes. The lab's rewards, for want of words, are the critic's.
"""

import math
import re

from elenchus.configs import method


def nash(nodes, exploration, draw):
    """Draws a node by UCT times the Nash strategy (importance sampling)."""
    opened = [i for i, node in enumerate(nodes) if node.is_open]
    worse = [i for i in opened if all(nodes[c].value <= nodes[i].value for c in nodes[i].children)]
    chosen, logarithm = worse or opened, math.log(nodes[0].visits + 1)
    place = draw * sum(weights := [_weight(nodes[i], exploration, logarithm) for i in chosen])
    for i, weight in zip(chosen, weights, strict=True):
        if place < weight:
            return i
        place -= weight
    return chosen[int(draw * len(chosen))]


def _weight(node, exploration, logarithm):
    """UCT of a child of the root; 0 of others. That there are m of them makes no difference."""
    uct = node.value + exploration * math.sqrt(logarithm / (node.visits + 1e-10))
    return uct if node.parent == 0 else 0.0


def halfway(node, children, new):
    """Between the value so far and that of the best child."""
    return (node.value + max(child.value for child in children)) / 2


def reward(problem, notes):
    """What the model says of an answer, from -100 to 100, as a number in [0, 1]."""
    if not notes.written:
        return [f'{problem.question}\nAnswer: {notes.text}\n\nScore it, -100 to 100 (Score: 50).']
    number = int((re.findall(r'score: *(-?\d+)', notes.written[-1].lower()) or ['-100'])[-1][:5])
    return (min(100, max(-100, number - 5 * (number > 95))) + 100) / 200


reward.num_requests, NAME = 1, 'elenchus.configs.methods.mc_nest:'
TREE = {'grow': 'refinement', 'select': NAME + 'nash', 'exploration': 1.0}
TREE |= {'backup': NAME + 'halfway', 'num_nodes': 8, 'expansions': 1, 'children': 2}
TREE |= {'values': ((NAME + 'reward', 1.0),)}
CHANGES = {f'sampling.tree.{name}': value for name, value in TREE.items()}
CHANGES |= {'evaluate.tree_problems': lambda c: c.evaluate.num_problems}
LAB = {'sampling.tree.values': (('min', 1.0),)}
get_config = method.of(CHANGES, stages=method.EVALUATE, lab_changes=LAB)
