"""DR. SAF: rewards by the group's accuracy, the stated boundary and the length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import dr_saf
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support import method_cases


def rewards(correct, tokens, texts=None):
    facts = [{'correct': ok} for ok in correct]
    group = method_cases.turns(*facts, tokens=tokens, texts=texts)
    return pytest.approx(list(dr_saf.boundary(group)))


def test_an_easy_group_is_paid_for_brevity_and_for_saying_so():
    # 12 responses, as in the authors' script, of 1 to 12 tokens: six are below the median.
    texts = ['Difficulty: [CFRB]', 'Difficulty: [PFRB]', *[''] * 10]
    expected = [0.01 * (1 + 2 + 5), 0.01 * (1 + 5), *[0.05] * 4, *[0.0] * 6]
    assert rewards([True] * 12, list(range(1, 13)), texts) == expected


def test_a_hard_group_is_paid_for_going_on_and_a_middling_one_for_neither():
    texts = ['PFRB', 'CFRB', '', '']
    assert rewards([False] * 4, [2, 4, 6, 8], texts) == [0.03, 0.01, 0.05, 0.05]
    assert rewards([True, True, False, False], [2, 4, 6, 8], texts) == [0.03, 0.01, 0.0, 0.0]
    # The median is that of right responses where there are any: one of four is right here.
    assert rewards([True, False, False, False], [5, 4, 6, 8], [''] * 4) == [0.0, 0.0, 0.05, 0.05]


@pytest.mark.parametrize(
    ('text', 'mark'),
    [
        ('so <think>Difficulty: [PFRB] ... </think> CFRB', 'PFRB'),
        ('I think\nDifficulty: CFRB then PFRB', 'CFRB'),
        ('</think> CFRB', None),
        ('UNPFRBED', None),
        ('', None),
    ],
)
def test_the_first_statement_of_the_thinking_counts(text, mark):
    assert dr_saf.stated(text) == mark


GROUP = st.lists(st.tuples(st.booleans(), st.integers(1, 90)), min_size=2, max_size=12)


@given(GROUP, st.sampled_from(['', 'CFRB', 'PFRB']))
def test_no_wrong_response_overtakes_a_right_one(group, text):
    correct, tokens = zip(*group, strict=True)
    facts = [{'correct': ok} for ok in correct]
    values = dr_saf.boundary(
        method_cases.turns(*facts, tokens=list(tokens), texts=[text] * len(facts))
    )
    assert all(0.0 <= value <= 0.08 + 1e-9 for value in values)
    totals = [value + ok for value, ok in zip(values, correct, strict=True)]
    wrong = [t for t, ok in zip(totals, correct, strict=True) if not ok]
    right = [t for t, ok in zip(totals, correct, strict=True) if ok]
    assert not wrong or not right or max(wrong) < min(right)


def test_it_adds_one_term_to_the_reward():
    s = build.build(RunSettings, dr_saf.get_config('default')).reinforce
    assert s.rewards.correct == 1.0 and len(s.rewards.functions) == 1
    assert not s.reward_rules('actor').needs_step_scores
