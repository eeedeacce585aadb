"""Free-text refinements follow the number that their critique states."""

import random

import pytest

from elenchus.data.critiques import grammars, mistakes, text_refinements
from elenchus.data.grading import answers
from elenchus.data.records import Problem
from tests.support import problem_lines

SOLUTION = 'Each box has 12 pens.\n7 boxes have 7 * 12 = 84 pens.\n84 - 5 = 79 are left.\n#### 79'
PROBLEM = Problem('p', 'How many pens are left?', '79', SOLUTION, 0, 'gsm8k')


def refine(seed):
    return text_refinements.refine(PROBLEM, rng=random.Random(seed))


def test_a_refinement_states_the_number_of_its_critique_and_many_of_them_are_false():
    num_false = 0
    for seed in range(400):
        example = refine(seed)
        critique = grammars.RELEASED.parse(example.critique)
        at = grammars.first_error(critique)
        (stated,) = answers.numbers(critique.steps[at].explanation)
        lines, right = example.refinement.split('\n'), SOLUTION.split('\n')
        assert lines[:at] == example.attempt.split('\n')[:at] == right[:at]
        assert stated in answers.numbers(lines[at])
        assert stated not in answers.numbers(example.attempt.split('\n')[at]) or stated in SOLUTION
        is_false = example.refinement != SOLUTION
        assert is_false == (stated not in answers.numbers(right[at]))
        num_false += is_false
    assert 120 < num_false < 240


def test_all_that_follows_from_a_false_number_follows_in_the_refinement():
    changed = [e for e in map(refine, range(400)) if e.refinement != SOLUTION]
    for example in changed:
        critique = grammars.RELEASED.parse(example.critique)
        at = grammars.first_error(critique)
        lines = example.refinement.split('\n')
        assert lines[-1] != SOLUTION.split('\n')[-1]
        for line in lines[at + 1 : -1]:
            assert all(map(mistakes.holds, mistakes.EQUATION.finditer(line)))
        answer = next(iter(reversed(answers.numbers(lines[-2].split('=')[1]))))
        assert lines[-1] == f'#### {answer}'
    assert {grammars.first_error(grammars.RELEASED.parse(e.critique)) for e in changed} == {0, 1, 2}


def test_the_attempt_is_wrong_where_the_critique_says():
    for seed in range(100):
        example = refine(seed)
        at = grammars.first_error(grammars.RELEASED.parse(example.critique))
        assert example.attempt.split('\n')[at] != SOLUTION.split('\n')[at]
        assert grammars.RELEASED.parse(example.critique).final_correct is False


@pytest.mark.parametrize(
    'source, every, impossible',
    [
        ('math', 8, 3),
        pytest.param('math', 1, 10, marks=pytest.mark.slow),
        ('svamp', 1, 0),
        ('asdiv', 1, 0),
    ],
)
def test_real_solutions_are_refined_or_have_no_number(shared_data, source, every, impossible):
    count = 0
    lines = (shared_data / source / 'test.jsonl').read_text(encoding='utf-8').splitlines()
    for index in range(0, len(lines), every):
        problem = problem_lines.parse(source, lines[index], id=str(index))
        try:
            texts = text_refinements.refine(problem, rng=random.Random(problem.id))
        except mistakes.NoMistakeError:
            count += 1
        else:
            assert texts.attempt != problem.solution
    assert count == impossible
