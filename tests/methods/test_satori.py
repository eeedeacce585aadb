"""Satori: where talks restart, and what a restart earns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import satori
from elenchus.train.config import build, checks
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import rewards
from tests.support.method_cases import group, talk, turns, written


@pytest.mark.parametrize(
    ('restarted', 'correct', 'bonus', 'reward'),
    [
        (None, True, 0.0, 1.0),
        (None, False, 0.0, 0.0),
        (False, True, 1.0, 1.5),  # from a wrong state to the right answer
        (False, False, 0.0, 0.0),
        (True, True, 0.0, 1.0),
        (True, False, -1.0, -0.5),
    ],
)
def test_the_table_of_the_bonus(restarted, correct, bonus, reward):
    group_turns = turns({'restarted': restarted, 'correct': correct}, {'correct': True})
    assert satori.bonus(group_turns)[0] == bonus
    settings = build.build(RunSettings, satori.get_config('default')).reinforce
    terms = rewards.terms(settings.rewards, group_turns)[0]
    # The authors' constant -1 is in the mean of the group, too.
    assert rewards.total(settings.rewards, terms) == pytest.approx(reward)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.integers(0, 9))
def test_the_second_half_restarts_behind_whole_lines_of_the_first(sizes, seed):
    rows = group(*(talk(written('attempt', (5,) * n, scores=(None,) * n)) for n in sizes))
    plan = satori.middles(rows, np.random.default_rng(seed))
    half = len(sizes) // 2
    assert len(plan) == len(sizes) and plan[:half] == [None] * half
    for item in filter(None, plan):
        source, tokens, text = item
        assert source < half and 1 <= tokens < sizes[source] and text == ''
    assert sum(item is not None for item in plan[half:]) == sum(1 for item in plan[half:] if item)


def test_talks_of_one_line_have_no_middle():
    rows = group(*(talk(written('attempt', (5,), scores=(None,))) for _ in range(4)))
    assert satori.middles(rows, np.random.default_rng(0)) == [None] * 4


@pytest.mark.parametrize('variant', ['default', 'smoke'])
def test_talks_fit_wherever_attempts_did(variant):
    checks.check_lengths(build.build(RunSettings, satori.get_config(variant)), 63)
