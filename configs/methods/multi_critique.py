"""MultiCritique: several critiques of one attempt say which of them is to be preferred.

One critic errs. Where several criticise the same attempt, what most of them say is more often
true, so a critique that agrees with the others is preferred to one that does not.

Formula: agreement_i = share of the other critiques with i's verdict and first wrong line; DPO on
(largest, smallest agreement).
Source: arXiv 2410.15287.
Differs: the critiques are samples of one critic, where the authors ask several models and revise
their judgements in a meta-critique; DPO in place of their reward model and PPO.
"""

from elenchus.configs import method


def agreement(groups):
    """The critique of an attempt that agrees most with the others, and the one that does least."""
    pairs = []
    for group in groups:
        says = [(e.turns[-1].facts.verdict, e.turns[-1].facts.located) for e in group]
        counts = [says.count(said) - 1 if said[0] is not None else 0 for said in says]
        order = sorted(range(len(counts)), key=lambda i: (-counts[i], i))
        if order and counts[order[0]] > counts[order[-1]]:
            pairs.append((group[order[0]], group[order[-1]], 0.0))
    return pairs


CHANGES = {
    'prefer.pairs': 'elenchus.configs.methods.multi_critique:agreement',
    'prefer.num_attempts': 2,
    'prefer.num_critiques': 5,
    'prefer.explorer': 'vanilla',
    'prefer.num_refinements': 0,
    'prefer.length': lambda config: 2 * config.train.length,
}
get_config = method.of(CHANGES, stages=method.PREFER_CRITIC)
