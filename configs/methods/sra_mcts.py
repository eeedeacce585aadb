"""SRA-MCTS: a model searches for reasoning paths, judges its own steps, and learns the best path.

No teacher and no label: steps are proposed and scored by the model itself, tree search goes on
where scores are high, and the best path of a question is what the model is trained on.

Formula: child = argmax V + c sqrt(2 ln N / n), c = 0.5 of scores from 0 to 10; 3 children at once;
V of a node = sum n_i V_i / sum n_i over its children; the path of the highest V is trained.
Source: arXiv 2411.11053; MCTS/mcts.py and MCTS/task.py of github.com/yuanye1010/SRA-MCTS, d8f2bae.
Differs: scores are divided by 10; a node counts as its first visit, where the authors try each
child first; no reflection before a step and no look-ahead of one step; a path ends where the model
ends it, not at a score of 8.8; paths are attempts, which no program is written from; 8 expansions,
the authors' script has 2. The lab has no words for a score: there it is the critic's lowest.
"""

import re

from elenchus.configs import method


def score(problem, notes):
    """What the model says of its steps so far, from 0 to 10; 5 where it says no number."""
    if not notes.written:
        return [
            f'Problem: {problem.question}\nSteps so far: {notes.text}\n'
            'How likely do these steps lead to a right solution? Answer with "Score: " and an '
            'integer from 0 to 10.'
        ]
    found = re.search(r'[Ss]core:\s*(\d+)', notes.written[-1])
    return min(10, int(found[1]) if found else 5) / 10


score.num_requests = 1


def weighted(node, children, new):
    """The mean of the children by their visits."""
    visits = sum(child.visits for child in children)
    return sum(child.visits * child.value for child in children) / visits


CHANGES = {
    'sampling.tree.select': 'uct',
    'sampling.tree.exploration': 0.05 * 2**0.5,
    'sampling.tree.values': (('elenchus.configs.methods.sra_mcts:score', 1.0),),
    'sampling.tree.backup': 'elenchus.configs.methods.sra_mcts:weighted',
    'sampling.tree.expansions': 3,
    'sampling.tree.children': 3,
    'sampling.tree.num_nodes': 24,
    'improve.explore.num_attempts': 1,
    'improve.explore.keep': 1,
    'improve.explore.accept': 'critic',
}
LAB = {'sampling.tree.values': (('min', 1.0),)}
STAGES = (*method.CRITIC, 'tree_search', 'evaluate')
get_config = method.of(CHANGES, stages=STAGES, lab_changes=LAB)
