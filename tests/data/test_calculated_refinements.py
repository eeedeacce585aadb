"""Refinements after critiques by calculation follow the value that their critique names."""

import random

import pytest

from elenchus.data.critiques import calculated_refinements, grammars, mistakes
from elenchus.data.critiques.calculator import equations, falsification
from elenchus.data.grading import answers
from elenchus.data.records import Problem
from tests.support import problem_lines

SOLUTION = '7 boxes have 7*12 = 84 pens.\n84-5 = 79 are left.\n#### 79'
PENS = Problem(
    'p', '7 boxes have 12 pens each. 5 are lost. How many are left?', '79', SOLUTION, 2, 'x'
)
CAKES = Problem(
    'c', 'There are 50 cakes and 21 pies. How many in all?', '71', '50+21=71\n#### 71', 1, 'x'
)


def first_error(example):
    return grammars.first_error(grammars.RELEASED.parse(example.critique))


@pytest.mark.parametrize('grammar', [grammars.RELEASED, grammars.WORKED])
@pytest.mark.parametrize('problem', [PENS, CAKES])
def test_a_refinement_states_what_its_critique_names_and_many_values_are_false(problem, grammar):
    num_false = 0
    for seed in range(300):
        example = calculated_refinements.refine(problem, rng=random.Random(seed), grammar=grammar)
        assert example.critique == grammar.write(grammar.parse(example.critique))
        at = first_error(example)
        lines, right = example.refinement.split('\n'), problem.solution.split('\n')
        assert lines[:at] == example.attempt.split('\n')[:at] == right[:at]
        stated = set(
            answers.numbers(grammars.RELEASED.parse(example.critique).steps[at].explanation)
        )
        (result,) = {str(equation.result) for equation in equations.find(lines[at])}
        assert result in stated and example.attempt != example.refinement
        is_false = lines[-1] != right[-1]
        assert is_false == (result not in answers.numbers(right[at]))
        num_false += is_false
        for line in lines[at + 1 : -1]:  # all that follows
            assert all(equation.holds for equation in equations.find(line))
        assert lines[-1] == f'#### {answers.numbers(lines[-2])[-1 if problem is CAKES else 2]}'
    assert 100 < num_false < 200


def test_only_the_critique_tells_a_false_value():
    for seed in range(300):
        example = calculated_refinements.refine(PENS, rng=random.Random(seed))
        if example.refinement.endswith('79'):
            continue
        at = first_error(example)
        (value,) = {str(e.result) for e in equations.find(example.refinement.split('\n')[at])}
        assert value not in answers.numbers(f'{PENS.question}\n{example.attempt}\n{SOLUTION}')


@pytest.mark.parametrize('solution', ['25/7=3 r4\n#### 4', 'It is Jim.\n#### Jim', '#### 3'])
def test_a_solution_without_a_computation_has_no_refinement(solution):
    problem = Problem('n', 'Who of 25 in 7 rows?', '4', solution, 1, 'x')
    with pytest.raises(mistakes.NoMistakeError, match='n: no mistake that can be calculated'):
        calculated_refinements.refine(problem, rng=random.Random(0))


def test_another_result_of_a_line_is_carried_on():
    changed = falsification.restate(PENS, 0, falsification.Fraction(90))
    assert changed.text == '7 boxes have 7*12 = 90 pens.\n90-5 = 85 are left.\n#### 85'
    assert changed.result == 84
    assert falsification.restate(PENS, 2, falsification.Fraction(90)) is None  # the answer's line


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'least'), [('asdiv/test', 0.6), ('gsm8k/train', 0.8)])
def test_real_problems_are_refined(shared_data, name, least):
    source = name.split('/')[0]
    lines = (shared_data / f'{name}.jsonl').read_text(encoding='utf-8').splitlines()[:1000]
    refined, false = 0, 0
    for i, line in enumerate(lines):
        problem = problem_lines.parse(source, line, id=str(i))
        try:
            example = calculated_refinements.refine(problem, rng=random.Random(problem.id))
        except mistakes.NoMistakeError:
            continue
        refined += 1
        false += example.refinement != problem.solution
        answer = answers.extract_answer(example.refinement)
        assert answer != answers.extract_answer(example.attempt)
    print(f'{name}: {refined} of {len(lines)} refined, {false} after a false value')
    assert refined >= least * len(lines) and 0.4 * refined < false < 0.6 * refined
