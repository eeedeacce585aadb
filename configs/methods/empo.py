"""EMPO: agreement with the group in place of a label.

A response is rewarded by the share of its group that has the same answer, so no reference answer is
read. Nothing is earned without an answer, or where all answers differ.

Formula: r_i = |answers equal to i's| / G, or 0.
Source: arXiv 2504.05812; trl/src/open_r1/rewards.py of github.com/QingyangZhang/EMPO, c5eccd4.
Differs: answers are equal if their canonical forms are; the authors ask a verifier.
"""

import collections

from elenchus.configs import method


def agreement(turns):
    """Share of the group with the same answer as each response."""
    answers = [turn.turn.facts.answer for turn in turns]
    counts = collections.Counter(answer for answer in answers if answer is not None)
    if not counts or max(counts.values()) == 1:
        return [0.0] * len(answers)
    return [counts[answer] / len(answers) for answer in answers]


CHANGES = {
    'reinforce.rewards.correct': 0.0,
    'reinforce.rewards.functions': (('elenchus.configs.methods.empo:agreement', 1.0),),
    'reinforce.advantage.step_coef': 0.0,
}
get_config = method.of(CHANGES, stages=method.REINFORCE)
