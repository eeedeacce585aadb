"""The stability gap: what a model can do is lowest while it learns, so its worst round counts too.

A model that learns something new first loses some of what it could do, and then recovers. An
evaluation at the end does not see it. So all rounds are evaluated, and the lowest accuracy on
earlier tasks is reported beside the last one.

Formula: min-ACC = mean over earlier tasks i of min over rounds of A_i; WC-ACC = A_k / k +
(1 - 1 / k) min-ACC, k tasks, task k the newest, both A_k and A_i by the models so far.
Source: arXiv 2205.13452.
Differs: the tasks are the levels, the newest is the highest of them, and all are trained at once;
models are evaluated after each round, where the authors do it after each update; the gap, the mean
of last less lowest accuracy, is ours. The two formulas are from memory.
"""

from elenchus.configs import method


def worst_case(rounds):
    """Lowest accuracies over the rounds, and how far the last round is above them."""
    tables = [summary['accuracy']['attempt'] for summary in rounds]
    levels = sorted((level for level in tables[-1] if level != 'all'), key=int)
    by_level = {level: [table[level][0] for table in tables] for level in levels}
    *earlier, newest = levels
    lowest = [min(by_level[level]) for level in earlier]
    count, last = len(levels), by_level[newest][-1]
    minimum = sum(lowest) / len(lowest) if lowest else last
    final = [by_level[level][-1] for level in earlier]
    return {
        'min_acc': minimum,
        'wc_acc': last / count + (1 - 1 / count) * minimum,
        'gap': sum(final) / len(final) - minimum if final else 0.0,
    }


CHANGES = {
    'improve.num_rounds': 4,
    'improve.restart': 'last',
    'improve.demonstrations': False,
    'improve.measures': ('elenchus.configs.methods.stability_gap:worst_case',),
}
LAB = {'improve.num_rounds': 2}
get_config = method.of(CHANGES, stages=(*method.CRITIC, 'vanilla', 'evaluate'), lab_changes=LAB)
