"""CPL's Step-APO: DPO on single steps, whose margin must exceed the gap of their advantages.

Plans are searched in a tree. Two steps after one prefix form a pair if one is good and one is bad;
the better the one and the worse the other, the larger the margin that is asked for.

Formula: - log sigmoid(beta D + alpha (q_rejected - q_chosen)), q > 0 of the chosen step, q < 0 of
the other; q of a last step times 0.3; beta 0.3, alpha 1.
Source: arXiv 2409.08642; trainer.py:352 and gen_data of github.com/keesh0410/CPL-Reasoning.
Differs: the tree is that of independent responses which begin alike, and q is 2 score - 1 of the
critic's step score, where the authors search with Monte Carlo tree search over plans.
"""

import collections
import dataclasses

from elenchus.configs import method

ALPHA, LAST = 1.0, 0.3


def cut(episode, end):
    """The episode up to token `end` of its last turn."""
    turn = episode.turns[-1]
    steps = tuple(step for step in turn.steps if step.end <= end)
    last = dataclasses.replace(
        turn, tokens=turn.tokens[:end], logprobs=turn.logprobs[:end], steps=steps
    )
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
                    node = (scale * (2 * step.score - 1), step.end, episode)
                    after[turn.tokens[:start]].append(node)
                start = step.end
        for nodes in after.values():
            best, worst = (pick(nodes, key=lambda node: node[0]) for pick in (max, min))
            if best[0] > 0 > worst[0]:
                offset = ALPHA * (best[0] - worst[0])
                pairs.append((cut(best[2], best[1]), cut(worst[2], worst[1]), offset))
    return pairs


siblings.reads_scores = True
CHANGES = {
    'prefer.pairs': 'elenchus.configs.methods.step_apo:siblings',
    'prefer.explorer': 'vanilla',
    'prefer.mask_common': True,
    'prefer.loss.beta': 0.3,
}
get_config = method.of(CHANGES, stages=method.PREFER)
