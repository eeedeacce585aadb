"""Is a process reward model necessary: ranking by scores against plain voting.

Of several attempts at a question one answer is chosen: by majority, by the highest score, or by the
sum of scores of an answer. A ranker is worth its tokens where it beats the majority.

Formula: share right of each choice; ties share. Self-PRM: the ranker is the actor itself.
Source: arXiv 2505.11227.
Differs: the ranker is the run's critic; with evaluate.critic_start='actor' the actor ranks its own
attempts, for which it must have learnt to write verdicts.
"""

import collections

from elenchus.configs import method


def chosen_right(answers, weights, right):
    """Share right of the answer of the highest total weight; answers that tie share it."""
    totals = collections.Counter()
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None and weight is not None:
            totals[answer] += weight
    if not totals:
        return 0.0
    best = [answer for answer, total in totals.items() if total == max(totals.values())]
    return sum(answer in right for answer in best) / len(best)


def rankers(groups, read):
    """Accuracy of the first attempt, the majority, the best score and the weighted majority."""
    figures = collections.defaultdict(float)
    for group in groups:
        facts = [episode.attempt.facts for episode in group]
        answers, scores = [f.answer for f in facts], [f.score for f in facts]
        right = {f.answer for f in facts if f.correct}
        best = max((s for s in scores if s is not None), default=None)
        only_best = [1.0 if s is not None and s == best else None for s in scores]
        figures['first'] += bool(facts[0].correct)
        figures['majority'] += chosen_right(answers, [1.0] * len(facts), right)
        figures['best of n'] += chosen_right(answers, only_best, right)
        figures['weighted majority'] += chosen_right(answers, scores, right)
        figures['any'] += bool(right)
    return {name: value / len(groups) for name, value in figures.items()}


CHANGES = {'evaluate.measures': ('elenchus.configs.evaluations.self_prm:rankers',)}
get_config = method.of(CHANGES, stages=method.EVALUATE)
