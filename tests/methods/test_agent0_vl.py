"""Agent0-VL: the verifier pays the solver, its agreement with itself pays the verifier."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import agent0_vl
from elenchus.train.config import build, players
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import rewards
from tests.support import method_cases

SETTINGS = build.build(RunSettings, agent0_vl.get_config('default'))
VERDICTS = st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=6)


def test_two_of_four_agree():
    turns = method_cases.turns(*({'verdict': v} for v in (True, True, False, None)))
    assert agent0_vl.consistent(turns) == pytest.approx([1 / 3, 1 / 3, 0, 0])


@given(VERDICTS, st.booleans())
def test_agreement_does_not_know_the_truth(verdicts, correct):
    facts = [{'verdict': v, 'correct': correct} for v in verdicts]
    values = agent0_vl.consistent(method_cases.turns(*facts))
    swapped = [{'verdict': None if v is None else not v} for v in verdicts]
    assert values == agent0_vl.consistent(method_cases.turns(*swapped))
    assert all(0 <= value <= 1 for value in values)
    assert all(value == 0 for value, v in zip(values, verdicts, strict=True) if v is None)


@pytest.mark.parametrize('correct', [True, False])
def test_a_solution_is_paid_by_its_verification_alone(correct):
    s = SETTINGS.reinforce.rewards
    turn = method_cases.written('attempt', (1, 2), scores=(0.8, 0.4), score=0.7, correct=correct)
    judged = rewards.JudgedTurn(turn, turn, method_cases.PROBLEM, 9, 4, str)
    (values,) = rewards.terms(s, [judged])
    assert rewards.total(s, values) == pytest.approx(0.6 + 0.7)


def test_both_roles_are_one_model():
    players.check_stages(SETTINGS)
    assert players.is_one_model(SETTINGS, 'reinforce_both')
    assert players.start_of(SETTINGS, 'critic', 'critic') == 'actor'
