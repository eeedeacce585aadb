"""Choosing one answer: majority, weights, best of n and aggregated step rewards."""

import pytest

from elenchus.sampling.test_time import votes


def test_majority_counts_votes():
    assert votes.majority(['3', '7', '7']) == '7'


def test_ties_go_to_the_first_to_occur():
    assert votes.majority(['7', '3', '3', '7']) == '7'
    assert votes.majority(['3', '7', '7', '3']) == '3'


def test_none_never_wins_unless_all_are_none():
    assert votes.majority([None, None, None, '3']) == '3'
    assert votes.majority([None, None, '3'], [5.0, 5.0, 0.0]) == '3'
    assert votes.majority([None, None]) is None
    assert votes.majority([]) is None


def test_weights_outvote_counts():
    assert votes.majority(['3', '7', '7'], [0.9, 0.2, 0.3]) == '3'


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
