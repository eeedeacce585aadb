"""Choices among attempts: perfect scores give pass@n, constant scores the majority."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.evaluations import self_prm
from tests.support import method_cases

ANSWERS = st.lists(st.sampled_from(['1', '2', '3', None]), min_size=1, max_size=6)


def rankers(answers, scores):
    facts = [
        {'answer': a, 'correct': a == '1', 'score': s} for a, s in zip(answers, scores, strict=True)
    ]
    return self_prm.rankers(method_cases.groups(facts), str)


@given(ANSWERS)
def test_perfect_scores_find_a_right_answer_and_constant_ones_add_nothing(answers):
    perfect = rankers(answers, [float(a == '1') for a in answers])
    if '1' in answers:
        assert perfect['best of n'] == perfect['weighted majority'] == perfect['any'] == 1.0
    constant = rankers(answers, [0.5] * len(answers))
    assert constant['weighted majority'] == constant['majority'] == constant['best of n']
    assert constant['majority'] <= constant['any']


def test_worked_choices():
    figures = rankers(['2', '1', '1', '2'], [0.9, 0.6, 0.7, None])
    assert figures['majority'] == 0.5  # a tie is shared
    assert figures['best of n'] == 0.0 and figures['weighted majority'] == 1.0
    assert figures['first'] == 0.0 and figures['any'] == pytest.approx(1.0)
