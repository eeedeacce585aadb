"""CPL's Step-APO: DPO on single steps, whose margin must exceed the gap of their advantages.

Two steps after one prefix of a tree are a pair if one is good and one is bad; the better the one
and the worse the other, the larger the margin that is asked for.

Formula: - log sigmoid(beta D + alpha (q_rejected - q_chosen)), q > 0 of the chosen step, q < 0 of
the other; q of a last step times 0.3; beta 0.3, alpha 1.
Source: arXiv 2409.08642; trainer.py:352 and gen_data of github.com/keesh0410/CPL-Reasoning.
Differs: q is 2 v - 1, v the mean value of a node: the share of continuations below it that are
right. Steps are lines of attempts, not plans; only paths that ended give pairs; at most 4 children
and 32 nodes, the authors' searches have 200 and 100 iterations.
"""

import collections
import dataclasses

from elenchus.configs import method

ALPHA, LAST = 1.0, 0.3


def cut(episode, end):
    """The episode up to token `end` of its last turn."""
    turn = episode.turns[-1]
    steps = tuple(step for step in turn.steps if step.end <= end)
    cut_off = {'tokens': turn.tokens[:end], 'logprobs': turn.logprobs[:end], 'steps': steps}
    last = dataclasses.replace(turn, **cut_off)
    return dataclasses.replace(episode, turns=(*episode.turns[:-1], last))


def siblings(groups):
    """The best and the worst step after each prefix of a group, if one is good and one bad."""
    pairs = []
    for group in groups:
        after = collections.defaultdict(list)  # prefix -> steps (q, end, episode)
        for episode in group:
            turn, start = episode.turns[-1], 0
            for step in turn.steps:
                if step.score is not None:
                    scale = LAST if step.end == len(turn.tokens) else 1.0
                    q = scale * (2 * step.score - 1)
                    after[turn.tokens[:start]].append((q, step.end, episode))
                start = step.end
        for nodes in after.values():
            best, worst = (pick(nodes, key=lambda node: node[0]) for pick in (max, min))
            if best[0] > 0 > worst[0]:
                sides = (cut(node[2], node[1]) for node in (best, worst))
                pairs.append((*sides, ALPHA * (best[0] - worst[0])))
    return pairs


CHANGES = {
    'sampling.tree.values': (('rollouts', 1.0),),
    'prefer.pairs': 'elenchus.configs.methods.step_apo:siblings',
    'prefer.explorer': 'tree_search',
    'prefer.mask_common': True,
    'prefer.loss.beta': 0.3,
}
get_config = method.of(CHANGES, stages=method.PREFER)
