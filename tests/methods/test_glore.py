"""GLoRe: SORM's labels, and the rank of drafts and refinements."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import glore
from elenchus.sampling.critique_data import step_labels
from elenchus.sampling.metrics import measures
from tests.support.method_cases import PROBLEM, group, talk, written


def labels(counts, correct=False):
    return glore.reachable(step_labels.Outcomes(tuple(counts), 8, 0.4, correct, PROBLEM))


@pytest.mark.parametrize(
    ('counts', 'correct', 'expected'),
    [
        ((8, 1, 0, 0), False, [True, True, False, False]),
        ((8, 0, 1, 0), False, [True, True, True, False]),  # a positive line makes earlier ones so
        ((0, 0), False, [False, False]),
        ((0, 0), True, [True, True]),  # its own answer was reached
        ((), False, []),
    ],
)
def test_labels_of_the_stepwise_model(counts, correct, expected):
    assert labels(counts, correct) == expected


@given(st.lists(st.integers(0, 8), max_size=8), st.booleans())
def test_labels_fall_once_at_most(counts, correct):
    new = labels(counts, correct)
    assert new == sorted(new, reverse=True)
    assert all(flag for flag, n in zip(new, counts, strict=True) if n)


def attempt(score, correct):
    return talk(written('attempt', (5,), score=score, correct=correct))


def figures(rows):
    """Figures of drafts and their refinements, each (score, right)."""
    groups = [group(*(attempt(*draft) for draft, _ in rows))]
    rounds = {i: [attempt(*refined)] for i, (_, refined) in enumerate(rows) if refined}
    name = 'elenchus.configs.methods.glore:reranked'
    return measures.measure([name], groups, str, rounds=rounds)['own_measures']['reranked']


def test_the_better_scored_of_draft_and_refinement_is_kept():
    rows = [
        ((0.2, False), (0.9, True)),
        ((0.9, True), (0.3, False)),
        ((0.4, False), None),
        ((0.6, True), (0.6, False)),  # the draft, where both are alike
    ]
    assert figures(rows) == {'draft': 0.5, 'refined': 0.25, 'reranked': 0.75}


def test_scores_that_are_not_known_do_not_rank():
    assert figures([((None, True), (0.1, False))])['reranked'] == 0.0
    assert figures([((None, True), (None, False))])['reranked'] == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_perfect_scores_keep_all_that_is_right(rows):
    values = figures([((float(a), a), (float(b), b)) for a, b in rows])
    assert math.isclose(values['reranked'], sum(a or b for a, b in rows) / len(rows))
