"""LLaVA-Critic-R1: preferences put as problems, whose answer is the preferred response."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import llava_critic_r1
from elenchus.data import records
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.run import problems

SOLUTION = 'Tom has 3.\nHe buys 4.\n3 + 4 = 7\n#### 7'


def problem(id, solution=SOLUTION, source='gsm8k'):
    return records.Problem(id, 'How many has Tom?', '7', solution, 2, source)


ALL = [problem(str(i)) for i in range(400)]
ASK = llava_critic_r1.ASK
JUDGED = [new for new in map(llava_critic_r1.preference, ALL) if ASK in new.question]


def test_about_half_of_the_problems_are_judged_and_the_others_stay():
    assert abs(len(JUDGED) / 400 - 0.5) < 3 * 0.5 / 20
    kept = [p for p in ALL if p.id not in {new.id for new in JUDGED}]
    assert [llava_critic_r1.preference(p) for p in kept] == kept


def test_the_answer_names_the_reference_at_either_place():
    assert {new.answer for new in JUDGED} == {'1', '2'}
    for new in JUDGED:
        question, *responses, ask = new.question.split('\n\n')
        assert (question, ask) == ('How many has Tom?', llava_critic_r1.ASK)
        texts = [text.split('\n', 1)[1] for text in responses]
        assert texts[int(new.answer) - 1] == SOLUTION
        other = texts[2 - int(new.answer)]
        assert other != SOLUTION and other.split('\n')[:2] == SOLUTION.split('\n')[:2]
        assert new.solution.endswith(f'#### {new.answer}') and new.level == 2


@pytest.mark.parametrize('solution', ['', 'no number', 'the last\nline has 3\nnone'])
def test_without_a_number_to_change_a_problem_stays(solution):
    for i in range(9):
        assert llava_critic_r1.preference(problem(str(i), solution)).solution == solution


def test_problems_of_the_lab_stay():
    kept = [problem(str(i), source='lab') for i in range(20)]
    assert [llava_critic_r1.preference(p) for p in kept] == kept


@given(st.integers(0, 10**6), st.integers(0, 99))
def test_the_flawed_result_is_another_one_in_both_lines(number, seed):
    text = f'So it is.\n1 x {number} = {number}\n#### {number}'
    wrong = llava_critic_r1.flawed(text, random.Random(seed))
    assert wrong.startswith('So it is.\n') and not wrong.endswith(f' {number}')
    assert wrong.split('= ')[1].split('\n')[0] == wrong.split('#### ')[1]


def test_the_slot_takes_what_the_function_returns():
    settings = build.build(RunSettings, llava_critic_r1.get_config('gsm8k:tiny'))
    assert problems.REWRITES[settings.data.rewrite](ALL[0]) == llava_critic_r1.preference(ALL[0])
