"""AlphaLLM: a model improves on the best paths of a tree search that several critics guide.

A node is a step of several tokens. A value and continuations to the end, scored by an outcome
critic, say what it is worth. Nodes whose children differ much in value get more children.

Formula: child = argmax Q + c sqrt(ln N / n), c = 1; a node has max(3, min(10, floor(a I)))
children, I = max |Q_i - mean Q| over them; value = (V + mean outcome score of 4 continuations) / 2,
backed up as a mean; the best path of a question is trained, in 2 rounds.
Source: arXiv 2404.12253; search/mcts.py, scripts/run_mcts.sh of github.com/YeTianJHU/AlphaLLM.
Differs: one critic is all three, and V the product of its step scores; a = 20, as values are in
[0, 1], where the script has 2; the root has as many children as others, not 40; an attempt that has
ended is not visited again; equal steps are merged, similar ones are not; no fast model continues;
new prompts are not made (improve.make can); on the lab fewer nodes and continuations.
"""

import math

from elenchus.configs import method

ALPHA, LEAST, MOST = 20, 3, 10


def width(values):
    """How many children a node has, by the values of those it has."""
    if not values:
        return LEAST
    mean = sum(values) / len(values)
    return max(LEAST, min(MOST, int(ALPHA * max(abs(value - mean) for value in values))))


def adaptive(nodes, exploration, draw):
    """Goes down by UCT, up to a node that has fewer children than its width."""
    at = 0
    while True:
        node = nodes[at]
        live = [i for i in node.children if nodes[i].is_live]
        narrow = len(node.children) < width([nodes[i].value for i in node.children])
        if node.is_open and (narrow or not live):
            return at
        explored = exploration * math.sqrt(math.log(node.visits))
        at = max(live, key=lambda i: nodes[i].value + explored / math.sqrt(nodes[i].visits))


CHANGES = {
    'sampling.tree.select': 'elenchus.configs.methods.alpha_llm:adaptive',
    'sampling.tree.exploration': 1.0,
    'sampling.tree.values': (('product', 1.0), ('rollout_scores', 1.0)),
    'sampling.tree.num_rollouts': 4,
    'sampling.tree.expansions': 1,
    'sampling.tree.children': MOST,
    'sampling.tree.num_nodes': 40,
    'improve.num_rounds': 2,
    'improve.explore.keep': 1,
    'improve.explore.accept': 'critic',
}
LAB = {'sampling.tree.num_nodes': 16, 'sampling.tree.num_rollouts': 1}
STAGES = (*method.CRITIC, 'tree_search', 'evaluate')
get_config = method.of(CHANGES, stages=STAGES, lab_changes=LAB)
