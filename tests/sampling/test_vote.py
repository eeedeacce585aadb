import itertools

import numpy as np
import pytest

from sampling import vote


def test_majority_counts_votes():
    assert vote.majority(['3', '7', '7']) == '7'


def test_ties_go_to_the_first_to_occur():
    assert vote.majority(['7', '3', '3', '7']) == '7'
    assert vote.majority(['3', '7', '7', '3']) == '3'


def test_none_never_wins_unless_all_are_none():
    assert vote.majority([None, None, None, '3']) == '3'
    assert vote.majority([None, None, '3'], [5.0, 5.0, 0.0]) == '3'
    assert vote.majority([None, None]) is None
    assert vote.majority([]) is None


def test_weights_outvote_counts():
    assert vote.majority(['3', '7', '7'], [0.9, 0.2, 0.3]) == '3'


def test_best_of_n_takes_the_highest_score_of_an_answer():
    assert vote.best_of_n(['3', '7', None], [0.1, 0.5, 0.9]) == '7'
    assert vote.best_of_n(['3', '7'], [0.5, 0.5]) == '3'
    assert vote.best_of_n([None], [1.0]) is None


def test_lengths_must_agree():
    with pytest.raises(ValueError, match='1 weights for 2'):
        vote.majority(['3', '7'], [1.0])
    with pytest.raises(ValueError, match='1 scores for 2'):
        vote.best_of_n(['3', '7'], [1.0])


@pytest.mark.parametrize('n, c, k', [(5, 2, 1), (5, 2, 3), (5, 2, 5), (5, 0, 3), (5, 4, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n, c, k):
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert vote.pass_at_k(n, c, k=k) == pytest.approx(np.mean([any(s) for s in subsets]))


def test_k_beyond_the_samples_is_an_error():
    with pytest.raises(ValueError, match=r'k=6 must be in \[1, 5\]'):
        vote.pass_at_k(5, 2, k=6)
    with pytest.raises(ValueError, match='k=0'):
        vote.maj_at_k(['3'], '3', k=0, num_draws=1, seed=0)


def test_maj_at_all_is_the_majority_and_maj_at_1_the_accuracy():
    answers = ['3', '7', '7', None]
    assert vote.maj_at_k(answers, '7', k=4, num_draws=1, seed=0) == 1.0
    assert vote.maj_at_k(answers, '3', k=4, num_draws=1, seed=0) == 0.0
    assert vote.maj_at_k(answers, '7', k=1, num_draws=4000, seed=0) == pytest.approx(0.5, abs=0.03)


def test_bootstrap_covers_the_mean_and_repeats_by_seed():
    values = np.random.default_rng(0).normal(0.3, 1.0, 400)
    one = vote.bootstrap(values, num_resamples=500, seed=1, level=0.95)
    assert one == vote.bootstrap(values, num_resamples=500, seed=1, level=0.95)
    assert one.low < one.mean < one.high
    assert one.high - one.low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_paired_differences_are_narrower_than_either_mean():
    rng = np.random.default_rng(0)
    before = rng.normal(0.0, 5.0, 200)
    after = before + rng.normal(0.5, 0.1, 200)
    paired = vote.bootstrap(after, before, num_resamples=200, seed=0, level=0.9)
    alone = vote.bootstrap(after, num_resamples=200, seed=0, level=0.9)
    assert paired.mean == pytest.approx(0.5, abs=0.03)
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)


@pytest.mark.parametrize('given', [{'level': 1.0}, {'num_resamples': 0}])
def test_bootstrap_refuses_what_has_no_interval(given):
    with pytest.raises(ValueError, match='bootstrap of 2 values'):
        vote.bootstrap([0.0, 1.0], **({'num_resamples': 10, 'seed': 0, 'level': 0.9} | given))
