"""ThinkLite-VL: easy groups have no advantages, so that others take their place."""

import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import thinklite_vl
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import credit
from tests.support import method_cases, rollout_cases
from tests.support.fake_engine import CHAT
from tests.train.rl.test_replay import group_of


def advantages(rights):
    turns = method_cases.turns(*[{'correct': right} for right in rights])
    context = types.SimpleNamespace(settings=types.SimpleNamespace(epsilon=1e-6), turns=[turns])
    returns = np.array(rights, np.float64)[:, None]
    return thinklite_vl.hard(returns, context)


@pytest.mark.parametrize(
    ('rights', 'attempts'), [((1, 0, 0, 0), 1), ((0, 0, 1, 1), 3), ((0,) * 4, np.inf)]
)
def test_attempts_to_solve(rights, attempts):
    turns = method_cases.turns(*[{'correct': bool(right)} for right in rights])
    assert thinklite_vl.attempts_to_solve(turns) == attempts


@given(st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_group_is_trained_iff_its_first_right_one_is_late(rights):
    values = advantages(rights)
    if True in rights[:2] or True not in rights:  # within a quarter of 8
        assert not values.any()
    else:
        r = np.array(rights, np.float64)[:, None]
        np.testing.assert_allclose(values, (r - r.mean()) / r.std(), rtol=1e-4)


def test_an_easy_group_counts_as_one_without_variance_and_is_replaced():
    settings = build.build(RunSettings, thinklite_vl.get_config('default')).reinforce
    rules, options = settings.reward_rules('actor'), {**rollout_cases.CREDIT, 'read': CHAT.text}
    value = lambda *rights: credit.assign_credit(  # noqa: E731
        group_of(0, rights), rules, first_phase=False, penalties=None, **options
    )
    assert value(True, False, False, False).zero_variance
    assert not value(False, False, True, False).zero_variance
    assert settings.refill_rounds == 2
