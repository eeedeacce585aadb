"""Sharpening: one attempt is a no-op, and the mean self-score never falls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.evaluations import sharpening
from tests.support import method_cases

ROWS = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=4, max_size=4)


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_the_mean_self_score_never_falls_with_more_attempts(rows):
    groups = method_cases.groups(*([{'score': s, 'correct': c} for s, c in row] for row in rows))
    figures = sharpening.sharpened(groups, str)
    assert figures['score of 1'] <= figures['score of 2'] <= figures['score of 4']
    assert figures['accuracy of 1'] == pytest.approx(sum(row[0][1] for row in rows) / len(rows))


def test_a_score_that_prefers_wrong_answers_sharpens_towards_them():
    groups = method_cases.groups(
        [{'score': 0.2, 'correct': True}, {'score': 0.9, 'correct': False}]
    )
    figures = sharpening.sharpened(groups, str)
    assert (figures['accuracy of 1'], figures['accuracy of 2']) == (1.0, 0.0)
