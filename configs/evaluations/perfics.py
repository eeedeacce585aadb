"""PeRFICS: performance, refinement and inference cost in one score, to choose a model by.

A model attempts, criticises its own attempt without being told what to look for, and refines it. A
small model that gains much from this may be the better choice than a large one, at the same cost.

Formula: P (1 + R) / C; P accuracy after refinement, R what refinement gained (accuracy after less
before), C tokens with critique and refinement / tokens of the attempt alone.
Source: arXiv 2310.07611; the weights of its score were not found, so this product is ours.
Differs: accuracy in place of a judge's grade; cost in tokens of one model, where the authors count
memory and time across models: compare runs by P, R and C too. One round of refinement.
"""

from elenchus.configs import method

WRITTEN = ('attempt', 'critique', 'refinement')


def score(before, after, cost):
    """Performance times what refinement gained, for its cost; higher is better."""
    return after * (1 + after - before) / cost


def perfics(groups, read):
    """The score and its three parts, over all attempts that were refined once."""
    episodes = [episode for group in groups for episode in group]
    before = sum(bool(e.attempt.facts.correct) for e in episodes) / len(episodes)
    after = sum(bool(e.response.facts.correct) for e in episodes) / len(episodes)
    alone = sum(len(e.attempt.tokens) for e in episodes)
    written = [turn for e in episodes for turn in e.turns if turn.role in WRITTEN]
    cost = sum(len(turn.tokens) for turn in written) / alone
    return {
        'score': score(before, after, cost),
        'performance': after,
        'refinement': after - before,
        'cost': cost,
    }


CHANGES = {
    'evaluate.refine': 'always',
    'evaluate.critic_start': 'actor',
    'evaluate.measures': ('elenchus.configs.evaluations.perfics:perfics',),
}
get_config = method.of(CHANGES, stages=method.EVALUATE)
