"""Choosing one answer: majority, weights, best of n and aggregated step rewards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.sampling.test_time import votes


def test_majority_counts_votes():
    assert votes.majority(['3', '7', '7']) == {'7': 1.0}


@given(st.permutations(['7', '3', '3', '7', '1', None]))
def test_ties_are_shared_in_every_order(answers):
    assert votes.majority(answers) == {'7': 0.5, '3': 0.5}


@given(st.permutations([('7', 0.1), ('7', 0.2), ('7', 0.3), ('3', 0.6)]))
def test_equal_weights_are_equal_in_every_order(weighted):
    """0.1 + 0.2 + 0.3 is 0.6 in some orders only; rounded once it is always."""
    answers, weights = zip(*weighted, strict=True)
    assert votes.majority(answers, weights) == {'7': 0.5, '3': 0.5}


def test_none_has_no_vote():
    assert votes.majority([None, None, None, '3']) == {'3': 1.0}
    assert votes.majority([None, None, '3'], [5.0, 5.0, 0.0]) == {'3': 1.0}
    assert votes.majority([None, None]) == {} == votes.majority([])


def test_weights_outvote_counts():
    assert votes.majority(['3', '7', '7'], [0.9, 0.2, 0.3]) == {'3': 1.0}


def test_of_tied_answers_the_latest_round_wins_and_equal_rounds_share():
    assert votes.latest_majority(['1', '7'], [0, 1]) == {'7': 1.0}
    assert votes.latest_majority(['1', '7', '1', '7', '3'], [0, 1, 2, 3, 4]) == {'7': 1.0}
    assert votes.latest_majority(['1', '7', '7', '1'], [0, 1, 0, 1]) == {'7': 0.5, '1': 0.5}
    assert votes.latest_majority(['1', '1', '7'], [0, 1, 2]) == {'1': 1.0}
    assert votes.latest_majority([None, None], [0, 1]) == {}


def test_best_of_n_takes_the_highest_score_of_an_answer():
    assert votes.best_of_n(['3', '7', None], [0.1, 0.5, 0.9]) == '7'
    assert votes.best_of_n(['3', '7'], [0.5, 0.5]) == '3'
    assert votes.best_of_n([None], [1.0]) is None


def test_lengths_must_agree():
    with pytest.raises(ValueError, match='1 weights for 2'):
        votes.majority(['3', '7'], [1.0])
    with pytest.raises(ValueError, match='1 scores for 2'):
        votes.best_of_n(['3', '7'], [1.0])


@pytest.mark.parametrize(
    ('how', 'score'), [('min', 0.2), ('product', pytest.approx(0.05)), ('last', 0.5)]
)
def test_step_rewards_become_one_score(how, score):
    assert votes.aggregate((0.5, 0.2, 0.5), how) == score
    assert votes.aggregate((), how) == 0.0
