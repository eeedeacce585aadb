"""PeRFICS: the score by hand; it grows with what is gained and falls with what it costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.evaluations import perfics
from elenchus.train.config import build, players
from elenchus.train.config.run_settings import RunSettings
from tests.support import method_cases

SHARE = st.floats(0, 1)


def test_one_of_two_wrong_attempts_is_mended_at_three_times_the_tokens():
    """Attempt, critique and refinement have one token each."""
    mended = ({'correct': False}, {'verdict': False}, {'correct': True})
    failed = ({'correct': False}, {'verdict': False}, {'correct': False})
    figures = perfics.perfics(method_cases.groups([mended, failed]), str)
    assert figures == pytest.approx(
        {'score': 0.5 * 1.5 / 3, 'performance': 0.5, 'refinement': 0.5, 'cost': 3.0}
    )


def test_an_attempt_that_stays_costs_nothing_more():
    figures = perfics.perfics(method_cases.groups([{'correct': True}, {'correct': False}]), str)
    assert figures == {'score': 0.5, 'performance': 0.5, 'refinement': 0.0, 'cost': 1.0}


@given(SHARE, SHARE, SHARE, st.floats(1, 50), st.floats(1, 50))
def test_it_is_monotone_in_gain_and_cost(before, after, better, cost, dearer):
    score = perfics.score(before, after, cost)
    assert 0 <= score <= 2
    assert perfics.score(before, max(after, better), cost) >= score
    assert perfics.score(before, after, max(cost, dearer)) <= score


def test_the_actor_criticises_itself():
    s = build.build(RunSettings, perfics.get_config('default'))
    players.check_stages(s)
    assert [players.start_of(s, 'evaluate', p) for p in ('actor', 'critic')] == ['actor', 'actor']
