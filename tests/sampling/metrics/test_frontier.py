"""The best way to answer for a budget: known frontiers, honest estimates, partial coverage."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.sampling.metrics import cost_curves, frontier, statistics
from elenchus.sampling.metrics.cost_curves import Point

interval_of = functools.partial(statistics.bootstrap_ratio, num_resamples=500, seed=0, level=0.95)


def make_point(right, processed, size=1):
    """A point of questions with these accuracies; each costs the same or has its own cost."""
    costs = [float(processed)] * len(right) if np.isscalar(processed) else list(processed)
    return Point(size, list(right), [cost / 2 for cost in costs], [{}] * len(right), costs)


def make(levels, **arms):
    points = {name: [make_point(*arm)] for name, arm in arms.items()}
    return frontier.make_candidates(points, [f'q{i}' for i in range(len(levels))], levels)


def name_of(candidates, choice):
    return [candidates.names[a].partition('@')[0] for a in choice]


# Level 1: questions 0 to 3, level 2: 4 to 7. `cheap` is right on the first, `dear` on both.
LEVELS = [1] * 4 + [2] * 4
CHEAP = ([1.0] * 4 + [0.0] * 4, 10)
MIDDLE = ([0.5] * 8, 20)
DEAR = ([0.75] * 4 + [1.0] * 4, 40)
THREE = functools.partial(make, LEVELS, cheap=CHEAP, middle=MIDDLE, dear=DEAR)


# Candidates


def test_candidates_are_all_arms_at_all_sizes_but_the_oracle():
    points = {
        'majority': [make_point([1.0] * 2, 5), make_point([1.0] * 2, 10, size=2)],
        cost_curves.ORACLE: [make_point([1.0] * 2, 7)],
        'beam search': [make_point([1.0] * 2, 50, size=4)],
    }
    candidates = frontier.make_candidates(points, ['a', 'b'], [0, 0])
    assert candidates.names == ('majority@1', 'majority@2', 'beam search@4')
    assert candidates.levels == ('0',)


def test_points_without_processed_tokens_are_no_candidates():
    unknown = make_point([1.0] * 2, 5)._replace(processed=[5.0, None])
    points = {'a': [make_point([1.0] * 2, 5)], 'b': [make_point([1.0] * 2, 6)], 'c': [unknown]}
    assert frontier.make_candidates(points, ['x', 'y'], [1, 1]).names == ('a@1', 'b@1')
    del points['b']
    assert frontier.make_candidates(points, ['x', 'y'], [1, 1]) is None


def test_a_question_that_is_alone_on_its_level_is_dropped():
    candidates = make([1, 3, 1], a=([1, 0, 1], 5), b=([0, 0, 0], 6))
    assert candidates.levels == ('1',) and candidates.questions.tolist() == [0, 2]
    assert make([1, 2, 3], a=([1, 0, 1], 5), b=([0, 0, 0], 6)) is None


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.randoms())
def test_halves_are_even_on_every_level_and_do_not_depend_on_the_order(levels, rng):
    names = [f'problem {i}' for i in range(len(levels))]
    half = frontier.halve(names, levels)
    for level in set(levels):
        of_level = half[np.array(levels) == level]
        assert (of_level == 0).sum() - (of_level == 1).sum() in (0, 1)
    order = list(range(len(levels)))
    rng.shuffle(order)
    again = frontier.halve([names[i] for i in order], [levels[i] for i in order])
    assert again.tolist() == [half[i] for i in order]


# Choices


def test_the_single_choice_is_the_best_that_fits():
    candidates = THREE()
    chosen = {
        budget: frontier.fits_at(candidates, budget).single for budget in (9, 10, 19.9, 20, 39, 40)
    }
    assert chosen[9] is None
    names = {b: name_of(candidates, fit.choice) for b, fit in chosen.items() if fit}
    # Cheap and middle have the same accuracy over all levels, 0.5: the cheaper is taken.
    assert {b: n[0] for b, n in names.items()} == {
        10: 'cheap', 19.9: 'cheap', 20: 'cheap', 39: 'cheap', 40: 'dear',
    }  # fmt: skip
    assert all(len(set(n)) == 1 for n in names.values())


def test_levels_share_the_budget_of_all_questions():
    """Cheap on level 1 and dear on level 2 cost 25 on average and are always right."""
    candidates = THREE()
    shared = {b: frontier.fits_at(candidates, b).by_level for b in (10, 15, 24.9, 25, 1000)}
    assert {b: name_of(candidates, fit.choice) for b, fit in shared.items()} == {
        10: ['cheap', 'cheap'],
        15: ['cheap', 'middle'],
        24.9: ['cheap', 'middle'],
        25: ['cheap', 'dear'],
        1000: ['cheap', 'dear'],
    }
    assert frontier.weighted_mean(candidates, shared[25].estimate.right) == 1.0
    assert frontier.weighted_mean(candidates, shared[25].estimate.processed) == 25.0
    assert frontier.weighted_mean(candidates, shared[25].estimate.tokens) == 12.5


def test_a_level_by_itself_has_its_own_cost():
    costs = [10.0] * 4 + [30.0] * 4
    candidates = make(LEVELS, a=([0.5] * 8, costs), b=([1.0] * 8, [2 * c for c in costs]))
    for budget, names in {9: [None, None], 20: ['b', None], 30: ['b', 'a'], 60: ['b', 'b']}.items():
        levels = frontier.fits_at(candidates, budget).levels
        assert list(levels) == ['1', '2']
        assert [f and name_of(candidates, f.choice)[0] for f in levels.values()] == names


def test_problems_of_unknown_level_have_one_row():
    candidates = make([0] * 4, a=([1.0] * 4, 1), b=([0.0] * 4, 2))
    fits = frontier.fits_at(candidates, 5)
    assert name_of(candidates, fits.single.choice) == ['a']
    assert fits.by_level is None and fits.levels == {}


tables = st.integers(1, 3).flatmap(
    lambda num_levels: st.lists(
        st.tuples(*[st.tuples(st.integers(0, 8), st.integers(1, 20))] * num_levels),
        min_size=1,
        max_size=5,
    )
)


@given(tables, st.integers(1, 25))
def test_the_shared_choice_is_the_best_of_all_combinations(rows, budget):
    values = np.array(rows, float)  # [A, L, 2]
    num_levels = values.shape[1]
    share = np.arange(1, num_levels + 1) / sum(range(1, num_levels + 1))
    table = frontier.Table(values[..., 0] / 8, values[..., 1], share)

    def sums(choice):
        at = range(num_levels)
        return tuple(share @ [array[a, i] for a, i in zip(choice, at, strict=True)]
                     for array in (table.accuracy, table.cost))  # fmt: skip

    every = [sums(choice) for choice in itertools.product(range(len(rows)), repeat=num_levels)]
    best = max((right for right, cost in every if frontier.fits(cost, budget)), default=None)
    choice = frontier.shared_choice(table, budget)
    if best is None:
        assert choice is None
    else:
        assert sums(choice)[0] == pytest.approx(best)
        assert frontier.fits(sums(choice)[1], budget)
        one = frontier.one_choice(table, budget)
        assert one is None or sums(one)[0] <= sums(choice)[0] + 1e-9


def test_budgets_are_powers_of_two_from_the_cheapest_to_the_dearest():
    assert frontier.budgets(THREE()) == [10.0, 20.0, 40.0]
    assert frontier.cheapest(THREE()) == 10.0
    assert frontier.budgets(make([1, 1], a=([1, 1], 3), b=([1, 1], 13))) == [3.0, 6.0, 12.0, 24.0]
    assert frontier.budgets(make([1, 1], a=([1, 1], 3), b=([0, 1], 3))) == [3.0]


# Cross-fitting


def test_one_half_chooses_and_the_other_measures():
    """`a` is right on the first half only, `b` on the second: each is chosen where it is right."""
    levels, ids = [1] * 6, [f'q{i}' for i in range(6)]
    half = frontier.halve(ids, levels)
    candidates = make(levels, a=(1.0 - half, 5), b=(1.0 * half, 5))
    fit = frontier.fits_at(candidates, 5).single
    assert [name_of(candidates, choice) for choice in fit.halves] == [['a'], ['b']]
    assert fit.estimate.right.tolist() == [0.0] * 6


def noise(seed, num_candidates=30, num_questions=100):
    """Candidates of one cost that are all right with probability 0.5 at every question."""
    rng = np.random.default_rng(seed)
    arms = {
        f'arm {i}': (rng.integers(0, 2, num_questions).astype(float), 7)
        for i in range(num_candidates)
    }
    return make([1 + i % 2 for i in range(num_questions)], **arms)


def test_cross_fitting_is_not_optimistic_and_choosing_on_the_same_questions_is():
    crossed, same = [], []
    for seed in range(200):
        candidates = noise(seed)
        for fit in (fits := frontier.fits_at(candidates, 7)).single, fits.by_level:
            crossed.append(frontier.weighted_mean(candidates, fit.estimate.right))
            at = list(fit.choice)
            same.append(candidates.accuracies[-1][at, range(2)] @ candidates.shares)
    # The mean of 400 estimates, of which pairs share questions, has a standard error of 0.004.
    assert abs(np.mean(crossed) - 0.5) < 0.012
    assert np.mean(same) > 0.58


def test_the_interval_of_cross_fitting_contains_the_truth_as_often_as_it_says():
    inside = 0
    for seed in range(200):
        candidates = noise(seed)
        fit = frontier.fits_at(candidates, 7).single
        _, low, high = frontier.mean_interval(candidates, fit.estimate.right, interval_of)
        inside += low <= 0.5 <= high
    assert 0.88 < inside / 200 <= 1.0


# Candidates of a part of the questions


def test_a_search_of_some_questions_stands_for_its_levels_in_their_shares():
    """The search has all of level 1 and six of eight of level 2; each level counts half."""
    levels = [1] * 8 + [2] * 8
    points = {
        'a': [make_point([0.0] * 16, 1)],
        'search': [make_point([1.0] * 8 + [0.5] * 6, 4)],
    }
    candidates = frontier.make_candidates(points, [f'q{i}' for i in range(16)], levels)
    search = candidates.accuracies[-1][1]
    assert search.tolist() == [1.0, 0.5]
    fit = frontier.fits_at(candidates, 4).single
    assert name_of(candidates, fit.choice) == ['search', 'search']
    # The plain mean over the 14 questions would be 11 / 14.
    assert frontier.weighted_mean(candidates, fit.estimate.right) == pytest.approx(0.75)
    assert frontier.mean_interval(candidates, fit.estimate.right, interval_of)[0] == pytest.approx(
        0.75
    )
    assert np.isnan(fit.estimate.right).sum() == 2


def test_a_search_without_questions_of_a_level_is_no_choice_there():
    points = {'a': [make_point([0.0] * 8, 1)], 'b': [make_point([0.0] * 8, 2)],
              'search': [make_point([1.0] * 4, 4)]}  # fmt: skip
    candidates = frontier.make_candidates(points, [f'q{i}' for i in range(8)], LEVELS)
    fits = frontier.fits_at(candidates, 10)
    assert name_of(candidates, fits.single.choice) == ['a', 'a']
    assert name_of(candidates, fits.by_level.choice) == ['search', 'a']
    assert {n: name_of(candidates, f.choice) for n, f in fits.levels.items()} == {
        '1': ['search'], '2': ['a'],
    }  # fmt: skip
    assert frontier.budgets(candidates) == [1.0, 2.0]
