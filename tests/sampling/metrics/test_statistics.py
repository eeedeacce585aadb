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
    """600 critiques of 60 questions that agree within a question are 60, not 600."""
    agree = [10 * (i % 2) for i in range(60)]
    options = {'num_resamples': 500, 'seed': 0, 'level': 0.95}
    by_question = statistics.bootstrap_ratio(agree, [10] * 60, **options)
    by_critique = statistics.bootstrap([float(i % 20 >= 10) for i in range(600)], **options)
    assert by_question.mean == by_critique.mean == 0.5
    assert by_question.high - by_question.low > 2 * (by_critique.high - by_critique.low)


@pytest.mark.parametrize('count', [1, 12, 49, 50])
def test_too_few_questions_have_a_mean_without_an_interval(count):
    """An interval of one value would be [x, x]: a certainty that nothing supports."""
    values = [float(i % 3 == 0) for i in range(count)]
    interval = statistics.bootstrap(values, num_resamples=20, seed=0, level=0.95)
    assert interval.mean == pytest.approx(np.mean(values))
    assert (interval.low is None) == (interval.high is None) == (count < 50)


def test_a_ratio_weighs_questions_by_what_they_have():
    interval = statistics.bootstrap_ratio([1, 0], [1, 3], num_resamples=10, seed=0, level=0.9)
    assert interval.mean == 0.25
    with pytest.raises(ValueError, match=r'denominator 0\.0 must be above 0'):
        statistics.bootstrap_ratio([0, 0], [1, 0], num_resamples=10, seed=0, level=0.9)


# Training runs and questions


def crossed(values, against=None, design='crossed', **changes):
    options = {'design': design, 'num_resamples': 2000, 'seed': 0, 'level': 0.95}
    return statistics.crossed_bootstrap(values, against, **(options | changes))


def width(interval):
    return interval.high - interval.low


def test_runs_that_differ_widen_the_interval_beyond_that_of_questions():
    """Runs with a spread of 0.1 have a standard error of 0.1 / sqrt(4), questions nearly none."""
    rng = np.random.default_rng(0)
    values = rng.normal([[0.35], [0.45], [0.55], [0.65]], 0.1, (4, 200))
    pooled = statistics.bootstrap(values.ravel(), num_resamples=500, seed=0, level=0.95)
    interval = crossed(values)
    assert interval.mean == pytest.approx(values.mean())
    assert width(interval) > 5 * width(pooled)
    spread = np.std([0.35, 0.45, 0.55, 0.65]) / np.sqrt(4)
    assert width(interval) == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_shared_questions_are_not_averaged_out_by_more_runs():
    """Equal runs of one question set know one question set; runs with their own know more."""
    rng = np.random.default_rng(1)
    questions = rng.random(100)
    same = np.tile(questions, (9, 1))
    own = np.array([rng.permutation(questions) for _ in range(9)])
    one = statistics.bootstrap(questions, num_resamples=2000, seed=0, level=0.95)
    assert width(crossed(same)) == pytest.approx(width(one), rel=0.1)
    assert width(crossed(own, design='nested')) == pytest.approx(width(one) / 3, rel=0.1)


def test_crossed_differences_are_paired():
    before = np.random.default_rng(0).normal(0.0, 5.0, (3, 60))
    interval = crossed(before + 0.25, before)
    assert interval == pytest.approx((0.25, 0.25, 0.25))
    assert crossed(before) == crossed(before)


@pytest.mark.parametrize('shape', [(1, 100), (3, 49)])
def test_one_run_or_few_questions_have_no_crossed_interval(shape):
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    for design in ('crossed', 'nested'):
        assert crossed(values, design=design) == (pytest.approx(values.mean()), None, None)


@pytest.mark.parametrize(
    ('degrees', 'quantile'), [(1, 12.706205), (2, 4.302653), (3, 3.182446), (4, 2.776445),
                              (5, 2.570582), (10, 2.228139), (30, 2.042272)]
)  # fmt: skip
def test_quantiles_are_those_of_the_printed_table(degrees, quantile):
    assert statistics.t_quantile(0.975, degrees) == pytest.approx(quantile, abs=1e-6)
    assert statistics.t_tail(quantile, degrees) == pytest.approx(0.05, abs=1e-7)
    assert statistics.t_tail(-quantile, degrees) == pytest.approx(0.05, abs=1e-7)


@pytest.mark.parametrize('degrees', [1, 2, 3, 4, 7, 8, 29])
def test_student_is_that_of_scipy(degrees):
    stats = pytest.importorskip('scipy.stats')
    for t in (0.0, 0.3, 1.0, 2.5, 9.0):
        expected = 2 * stats.t.sf(t, degrees)
        assert statistics.t_tail(t, degrees) == pytest.approx(expected, abs=1e-12)


def test_t_interval_and_p_value_over_runs():
    """Differences 0.8, 3.8, 3.4 of three runs: 2.667 +- 4.303 * 1.629 / sqrt(3)."""
    interval = statistics.t_interval([0.8, 3.8, 3.4], level=0.95)
    assert interval == pytest.approx((2.6667, -1.3799, 6.7132), abs=1e-3)
    p = statistics.t_test([0.8, 3.8, 3.4])
    stats = pytest.importorskip('scipy.stats')
    assert p == pytest.approx(stats.ttest_1samp([0.8, 3.8, 3.4], 0.0).pvalue)


def test_one_run_has_neither_interval_nor_p_value():
    assert statistics.t_interval([0.5], level=0.95) == (0.5, None, None)
    assert statistics.t_test([0.5]) is None
    assert statistics.t_test([0.5, 0.5]) is None  # no spread, no t
    assert statistics.t_test([0.1, 0.1, 0.1]) is None  # whose mean is not 0.1
    assert statistics.t_test([100 * (0.615 - 0.6), 100 * (0.515 - 0.5), 1.5]) is None


def test_holm_steps_down_over_a_family():
    """0.01 * 4, 0.02 * 3, then 0.04 * 2 and 0.05 * 1, which is raised to the one before."""
    assert statistics.holm([0.04, 0.01, 0.05, 0.02]) == pytest.approx([0.08, 0.04, 0.08, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([0.02, None]) == [0.04, None]
    assert statistics.holm([]) == []
