"""PSR: rounds of reflection by what the question holds."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import psr
from elenchus.sampling.test_time import gates
from tests.support.method_cases import PROBLEM, talk, written


@pytest.mark.parametrize(
    ('question', 'rounds'),
    [
        ('How many?', 0),
        ('2 and 3', 0),
        ('2 + 3 = 5?', 1),
        ('1 2 3 4 5 6', 2),
        ('12 ' * 30, 3),
    ],
)
def test_the_predictor_counts_numbers(question, rounds):
    assert psr.num_rounds(question) == rounds


@given(st.integers(0, 20), st.integers(1, 5), st.lists(st.sampled_from([True, False, None])))
def test_a_round_that_is_not_allowed_refines_nothing(count, number, verdicts):
    problem = dataclasses.replace(PROBLEM, question='1 ' * count)
    rows = [talk(written('attempt', (5,)), written('critique', (7,), verdict=v)) for v in verdicts]
    flags = gates.due(psr.CHANGES['evaluate.refine'], rows, [problem] * len(rows), number=number)
    usual = gates.due('wrong', rows, [problem] * len(rows), number=number)
    is_allowed = number <= psr.num_rounds(problem.question)
    assert flags == (usual if is_allowed else [False] * len(rows))
