"""HRM with HNC: a step that the next one puts right is not the error of a solution.

A process reward model sees one step at a time and punishes it even where the next step corrects it.
HRM also scores pairs of steps. HNC makes such pairs by merging nodes of the search tree.

Formula: score of a line = share of its continuations that are right; a merged pair has that of its
later line; with probability 1/2 a line is merged with the next one.
Source: arXiv 2503.13551; self-training/construct_hrm_train_data.py of
github.com/tengwang0318/hierarchial_reward_model, cc638d0.
Differs: the critic says right or wrong of each line, not a score of each pair; chains of lines
stand for the tree; pairs are drawn by a hash; a right line is never called wrong by its pair.
"""

import random

from elenchus.configs import method


def merged(outcomes):
    """Labels of lines: each by itself, or together with the line behind it."""
    least = outcomes.threshold * outcomes.num_rollouts
    own = [count >= least for count in outcomes.successes]
    rng = random.Random(f'{outcomes.problem.id} {outcomes.successes}')
    pairs = zip(own, (*own, outcomes.correct)[1:], strict=True)
    return [is_right or (rng.random() < 0.5 and later) for is_right, later in pairs]


CHANGES = {
    'critique.annotator': 'monte_carlo',
    'critique.labels': 'elenchus.configs.methods.hrm:merged',
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
