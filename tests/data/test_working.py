"""Critiques that work a step out before they judge it: the calculator's in the grammar `worked`."""

import pytest

from elenchus.data.critiques import grammars
from elenchus.data.critiques.calculator import annotator
from elenchus.data.critiques.oracle import ConstructedAttempt
from elenchus.data.records import Problem

BOOKS = Problem(
    'books', '2 green, 1 blue and 4 orange books; 3 are taken. How many are left?', '4',
    '2+1+4-3=4\n#### 4', 1, 'asdiv',
)  # fmt: skip
SHARE = Problem(
    'share', 'Ten dollars and 30 dollars are shared by 3. What does each get?', '13.33',
    '(10+30)/3=13.33\n#### 13.33', 1, 'asdiv',
)  # fmt: skip


def texts(problem, attempt, *, seeds=20, form='full_pass'):
    item = ConstructedAttempt(problem, attempt, 'RG1', None, None)
    options = {'form': form, 'grammar': grammars.WORKED}
    return {annotator.annotate(item, seed=seed, **options) for seed in range(seeds)}


def judged(problem, attempt):
    """The first step's explanations, without spaces, and its verdicts, over several seeds."""
    steps = [grammars.WORKED.parse(text).steps[0] for text in texts(problem, attempt)]
    said = {step.explanation.replace(' ', '') for step in steps}
    return said, {step.correct for step in steps}


WORK = '2+1+4-3:2+1=3;3+4=7;7-3=4.'
NEEDED = {f'Itshouldbe{WORK}', f'Thisshouldbe{WORK}'}


@pytest.mark.parametrize(
    ('attempt', 'verdict'),
    [
        ('2+1+4-3=4\n#### 4', True),
        ('2+1+4-3=5\n#### 5', False),  # a slip
        ('2+1+4=7\n#### 7', False),  # another computation is needed
    ],
)
def test_nothing_before_the_verdict_tells_it_but_the_calculation(attempt, verdict):
    assert judged(BOOKS, attempt) == (NEEDED, {verdict})


def test_arithmetic_that_is_not_needed_is_worked_out_without_a_claim():
    unsolved = Problem('unsolved', BOOKS.question, '4', '', 1, 'asdiv')
    said, verdicts = judged(unsolved, '2*1*4*3=25\n#### 25')
    work = '2*1*4*3:2*1=2;2*4=8;8*3=24.'
    assert said == {work, f'Here{work}'} and verdicts == {False}


def test_a_wrong_result_that_is_carried_on_is_replaced_in_the_work():
    attempt = '2+1+4=8\n8-3=5\n#### 5'
    for text in texts(BOOKS, attempt):
        first, second = grammars.WORKED.parse(text).steps
        assert first.correct is second.correct is False
        assert first.explanation.replace(' ', '').endswith('2+1+4:2+1=3;3+4=7.')
        assert second.explanation.replace(' ', '').endswith('be7-3=4.')


def test_a_result_that_is_rounded_is_not_worked_out_in_parts():
    said, verdicts = judged(SHARE, '(10+30)/3=13.33\n#### 13.33')
    assert said == {
        f'{start}shouldbe(10+30)/3,whichisabout13.33.' for start in ('It', 'This')
    } and verdicts == {True}


@pytest.mark.parametrize(
    ('formula', 'result', 'operations'),
    [
        ('12-5+3', '10', '12-5=7;7+3=10'),
        ('3.50+1.25+1', '5.75', '3.50+1.25=4.75;4.75+1=5.75'),
        ('(2+3)*(9-7)', '10', '2+3=5;9-7=2;5*2=10'),
        ('2*3^2', '18', '3^2=9;2*9=18'),
        ('8+2', '10', ''),  # one operation
        ('7-9+4', '2', ''),  # 7-9 is below 0
        ('10/3*6', '20', ''),  # 10/3 has no last digit
    ],
)
def test_operations_are_written_in_order_if_their_results_are_exact(formula, result, operations):
    solution = f'{formula}={result}\n#### {result}'
    problem = Problem('p', f'What is {formula}?', result, solution, 1, 'x')
    said, verdicts = judged(problem, solution)
    work = f'{formula}:{operations}.' if operations else f'{formula}={result}.'
    assert {text.partition('be')[2] for text in said} == {work} and verdicts == {True}
