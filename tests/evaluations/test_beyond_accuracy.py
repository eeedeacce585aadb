"""Beyond Accuracy: the plan has the steps and none of the values."""

import re

from elenchus.configs.evaluations import beyond_accuracy
from elenchus.data import records
from elenchus.sampling.metrics import measures
from tests.support.rollout_cases import PROBLEMS


def test_a_plan_keeps_the_words_and_drops_every_number_and_the_answer():
    solution = 'Add 3 and 4,500: 3 + 4,500 = 4,503.\nHalve it: 2251.5\n#### 2251.5'
    problem = records.Problem('p', 'q', '2251.5', solution, 1, 'gsm8k')
    assert beyond_accuracy.plan(problem) == 'Add and: + =.\nHalve it:'


def test_plans_of_the_lab_have_no_value():
    for problem in PROBLEMS:
        assert not re.search(r'\d', beyond_accuracy.plan(problem))


def test_the_whole_solution_is_a_built_in_condition():
    assert measures.CONDITIONS['solution'](PROBLEMS[0]) == PROBLEMS[0].solution
    assert beyond_accuracy.CHANGES['evaluate.conditions'][1] == 'solution'
