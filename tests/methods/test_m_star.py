"""M-STaR: the temperature at which one of the two best by reward is right most often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import m_star
from elenchus.sampling.exploration import controller
from elenchus.sampling.exploration.round_changes import RoundContext
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support.method_cases import talk, written


def attempts(problem, rows):
    return [
        talk(written('attempt', (i,), score=score, correct=right), problem=problem)
        for i, (score, right) in enumerate(rows)
    ]


SPREAD = [(0.9, False), (0.8, True), (0.7, False)]  # right is second
HIDDEN = [(0.9, False), (0.8, False), (0.1, True)]  # right is third
UNSCORED = [(None, True), (None, False)]


def test_two_of_three_questions():
    groups = [attempts('a', SPREAD), attempts('b', HIDDEN), attempts('c', UNSCORED)]
    assert m_star.reward_pass(groups) == pytest.approx(2 / 3)
    assert m_star.reward_pass(groups, k=1) == pytest.approx(1 / 3)
    assert m_star.reward_pass(groups, k=3) == 1.0


@given(st.lists(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=5), min_size=1))
def test_more_samples_never_lower_it_and_all_of_them_are_coverage(rows):
    groups = [attempts(str(i), row) for i, row in enumerate(rows)]
    values = [m_star.reward_pass(groups, k=k) for k in range(1, 6)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(sum(any(r for _, r in row) for row in rows) / len(rows))


def test_the_candidates_have_this_figure_and_the_best_is_chosen():
    s = build.build(RunSettings, m_star.get_config('smoke')).improve.candidates
    cold, warm = attempts('a', HIDDEN), attempts('a', SPREAD)
    tried = {0.5: cold, 0.7: warm, 1.0: warm}
    candidates = controller.score_candidates(tried, s, m_star.reward_pass)
    assert [(c['temperature'], c['worth']) for c in candidates] == [(0.5, 0), (0.7, 1), (1.0, 1)]
    changes = m_star.balance([], RoundContext(1, {}, candidates))
    assert changes == {'sampling.temperature': 0.7}
    assert 'worth' not in controller.score_candidates(tried, s)[0]
