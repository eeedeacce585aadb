"""FBI: does an evaluator notice a mistake, and of which kinds?

Each kind of mistake is told apart: an evaluator may catch arithmetic and miss a wrong premise.

Formula: share of attempts of a kind that the critic calls wrong; and of right ones it calls right.
Source: the essence of "Finding Blind Spots in Evaluator LLMs", arXiv 2406.13439.
Differs: the mistakes are the actor's own, of the lab's five kinds, where the authors write 22 kinds
of perturbations into right answers; without the lab all wrong attempts are one kind.
"""

import collections

from elenchus.configs import method


def noticed(groups, read):
    """Share of each kind of mistake that the critic calls wrong."""
    by_kind = collections.defaultdict(list)
    for episode in (episode for group in groups for episode in group):
        facts = episode.attempt.facts
        kind = 'none' if facts.correct else facts.kind or 'unknown kind'
        by_kind[kind].append(episode.critique.facts.verdict is bool(facts.correct))
    return {kind: sum(values) / len(values) for kind, values in sorted(by_kind.items())}


CHANGES = {'evaluate.measures': ('elenchus.configs.evaluations.fbi:noticed',)}
get_config = method.of(CHANGES, stages=method.EVALUATE)
