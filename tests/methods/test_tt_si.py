"""TT-SI: the margin of candidates, the questions that it chooses, and what is trained on."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import tt_si
from elenchus.data import records
from elenchus.data.lab import task
from elenchus.sampling.writing import Notes
from tests.support import fake_engine, method_cases

(PROBLEM,) = fake_engine.problems(1)


def group(*candidates):
    """Attempts of (answer, log-probabilities)."""
    return method_cases.group(
        *(
            method_cases.talk(
                records.Turn(
                    'attempt', (1,), (2,) * len(p), p, facts=records.TurnFacts(answer=answer)
                )
            )
            for answer, p in candidates
        )
    )


def test_the_margin_is_the_difference_of_the_two_largest_shares():
    assert tt_si.margin([-1.0, -1.0]) == 0.0 and tt_si.margin([-3.0]) == 1.0
    assert tt_si.margin([math.log(0.1), math.log(0.3), math.log(0.6)]) == pytest.approx(0.3)
    assert tt_si.margin([-1000.0, -1001.0]) == pytest.approx((math.e - 1) / (math.e + 1))


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=6), st.floats(-1000, 0))
def test_the_margin_is_a_share_and_depends_on_differences_alone(values, shift):
    margin = tt_si.margin(values)
    assert 0 <= margin <= 1
    assert tt_si.margin([v + shift for v in values[::-1]]) == pytest.approx(margin, abs=1e-6)


def test_only_questions_with_close_candidates_are_unsure():
    sure = (('7', (-0.1, -0.2)), ('3', (-4.0, -2.0)))  # 5.7 nats: 0.993
    assert not tt_si.unsure(group(*sure))
    assert tt_si.unsure(group(*sure, ('3', (-1.0, -1.0))))  # its likeliest attempt counts
    assert not tt_si.unsure(group(('7', (-9.0,)), ('7', (-1.0,)), (None, (-0.1,))))
    assert tt_si.unsure(group((None, (-0.1,))))  # no candidate at all


def written(problem):
    """Runs the function as `write` does, with numbered answers; returns requests and result."""
    requests, notes = [], Notes()
    while True:
        result = tt_si.similar(problem, notes)
        if not (len(result) == 1 and isinstance(result[0], str)):
            return requests, result
        requests += result
        text = f'Q{len(requests)} Solution: S{len(requests)}'
        notes = notes._replace(written=(*notes.written, text))


def test_the_lab_moves_all_digits_and_the_model_solves():
    requests, pairs = written(PROBLEM)
    assert len(set(requests) - {PROBLEM.question}) == tt_si.COUNT
    assert [question for question, _ in pairs] == requests and all(map(task.solve, requests))
    assert [text for _, text in pairs] == [f'Q{i} Solution: S{i}' for i in range(1, 5)]


def test_a_text_asks_for_question_and_solution():
    requests, pairs = written(dataclasses.replace(PROBLEM, source='jsonl'))
    assert all(PROBLEM.question in request and 'Solution:' in request for request in requests)
    assert [tuple(map(str.strip, p)) for p in pairs] == [(f'Q{i}', f'S{i}') for i in range(1, 5)]
