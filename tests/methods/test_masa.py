"""MASA: predictions of pass rate, length and notions against the group."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import masa
from tests.support import method_cases


def rewards(predictions, correct, tokens=4, bodies=None):
    bodies = bodies or [''] * len(correct)
    texts = [
        (p if isinstance(p, str) else json.dumps(p)) + body
        for p, body in zip(predictions, bodies, strict=True)
    ]
    facts = [{'correct': ok} for ok in correct]
    return masa.meta(method_cases.turns(*facts, tokens=tokens, texts=texts))


@pytest.mark.parametrize(('rate', 'score'), [(4, 1.0), (8, 0.1), (0, 0.1), (6, 0.01**0.25)])
def test_the_pass_rate_is_scored_by_its_distance(rate, score):
    """0.01^d is 1, 0.1 and 0.01 at d = 0, 1/2 and 1."""
    values = rewards([{'pass_rate': rate}, {}], [True, False])
    assert values == pytest.approx([score / 3, 0.0])
    assert rewards([{'pass_rate': 8}, {}], [False, False])[0] == pytest.approx(0.01 / 3)


def test_the_length_lies_strictly_between_those_of_right_responses():
    tokens, correct = [10, 30, 90, 20], [True, True, False, True]
    predictions = [{'solution_length': n} for n in (11, 10, 30, 60)]
    assert rewards(predictions, correct, tokens) == pytest.approx([1 / 3, 0, 0, 0])
    assert rewards(predictions, [False] * 4, tokens) == [0, 0, 0, 0]


def test_notions_count_that_right_responses_use_and_wrong_ones_do_not():
    bodies = ['by Vieta, and by parity', 'by Vieta', 'by parity', 'no']
    predictions = [{'math_notion': ['Vieta', 'parity', 'primes']}, {'math_notion': 'Vieta'}]
    predictions += [{'math_notion': 'question, parity'}, {}]
    values = rewards(predictions, [True, True, False, False], bodies=bodies)
    # Named alone they are not used; those of the question ('question') are not predicted.
    assert values == pytest.approx([1 / 9, 1 / 3, 0, 0])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
KEYS = st.sampled_from(['pass_rate', 'solution_length', 'math_notion', 'other'])


@given(st.lists(st.dictionaries(KEYS, JSON) | st.text(max_size=20), min_size=2, max_size=4))
def test_whatever_is_written_has_a_score_between_0_and_1(predictions):
    values = rewards(predictions, [i % 2 == 0 for i in range(len(predictions))], tokens=9)
    assert len(values) == len(predictions) and all(0 <= value <= 1 for value in values)
    assert rewards(['{"pass_rate": 1e999}', '{"pass_rate": true}'], [True, False]) == [0, 0]
