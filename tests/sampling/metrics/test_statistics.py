"""Estimates over samples and questions against their definitions."""

import itertools

import numpy as np
import pytest

from elenchus.sampling.metrics import statistics


@pytest.mark.parametrize('n, c, k', [(5, 2, 1), (5, 2, 3), (5, 2, 5), (5, 0, 3), (5, 4, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n, c, k):
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert statistics.pass_at_k(n, c, k=k) == pytest.approx(np.mean([any(s) for s in subsets]))


def test_k_beyond_the_samples_is_an_error():
    with pytest.raises(ValueError, match=r'k=6 must be in \[1, 5\]'):
        statistics.pass_at_k(5, 2, k=6)
    with pytest.raises(ValueError, match='k=0'):
        statistics.subsets(1, 0, num_draws=1, seed=0)


def test_sets_are_all_there_are_where_they_are_few():
    assert statistics.subsets(4, 4, num_draws=1, seed=0) == [(0, 1, 2, 3)]
    assert statistics.subsets(4, 1, num_draws=4, seed=0) == [(0,), (1,), (2,), (3,)]
    assert sorted(statistics.subsets(5, 3, num_draws=10, seed=0)) == list(
        itertools.combinations(range(5), 3)
    )


@pytest.mark.parametrize(('n', 'k'), [(64, 32), (5, 2)])
def test_drawn_sets_have_k_different_samples_each_and_repeat_by_seed(n, k):
    drawn = statistics.subsets(n, k, num_draws=9, seed=3)
    assert drawn == statistics.subsets(n, k, num_draws=9, seed=3)
    assert len(drawn) == 9
    for one in drawn:
        assert len(set(one)) == k and list(one) == sorted(one) and set(one) <= set(range(n))


def test_drawn_sets_take_every_sample_alike():
    drawn = statistics.subsets(8, 4, num_draws=69, seed=0)
    counts = np.bincount([i for one in drawn for i in one], minlength=8)
    assert counts.min() > 20 and counts.max() < 49


def test_bootstrap_covers_the_mean_and_repeats_by_seed():
    values = np.random.default_rng(0).normal(0.3, 1.0, 400)
    one = statistics.bootstrap(values, num_resamples=500, seed=1, level=0.95)
    assert one == statistics.bootstrap(values, num_resamples=500, seed=1, level=0.95)
    assert one.low < one.mean < one.high
    assert one.high - one.low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_paired_differences_are_narrower_than_either_mean():
    rng = np.random.default_rng(0)
    before = rng.normal(0.0, 5.0, 200)
    after = before + rng.normal(0.5, 0.1, 200)
    paired = statistics.bootstrap(after, before, num_resamples=200, seed=0, level=0.9)
    alone = statistics.bootstrap(after, num_resamples=200, seed=0, level=0.9)
    assert paired.mean == pytest.approx(0.5, abs=0.03)
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)


@pytest.mark.parametrize('changes', [{'level': 1.0}, {'num_resamples': 0}])
def test_bootstrap_refuses_what_has_no_interval(changes):
    with pytest.raises(ValueError, match='bootstrap of 2 values'):
        statistics.bootstrap(
            [0.0, 1.0], **({'num_resamples': 10, 'seed': 0, 'level': 0.9} | changes)
        )


def test_a_ratios_interval_is_over_questions_not_over_what_they_have():
    """A hundred critiques of ten questions that agree within a question are ten, not a hundred."""
    agree = [10 * (i % 2) for i in range(10)]
    options = {'num_resamples': 500, 'seed': 0, 'level': 0.95}
    by_question = statistics.bootstrap_ratio(agree, [10] * 10, **options)
    by_critique = statistics.bootstrap([float(i % 20 >= 10) for i in range(100)], **options)
    assert by_question.mean == by_critique.mean == 0.5
    assert by_question.high - by_question.low > 2 * (by_critique.high - by_critique.low)


def test_a_ratio_weighs_questions_by_what_they_have():
    interval = statistics.bootstrap_ratio([1, 0], [1, 3], num_resamples=10, seed=0, level=0.9)
    assert interval.mean == 0.25
    with pytest.raises(ValueError, match=r'denominator 0\.0 must be above 0'):
        statistics.bootstrap_ratio([0, 0], [1, 0], num_resamples=10, seed=0, level=0.9)
