"""Critiques that work a step out before they judge it: the calculator's in the grammar `worked`."""

import random

import pytest

from elenchus.data.critiques import counterfactual, grammars
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


SHOP = Problem(
    'shop', 'A shop has $4,800 and earns $300. How much has it then?', '5100',
    '4,800+300=5,100\n#### 5,100', 1, 'x',
)  # fmt: skip


@pytest.mark.parametrize('line', ['4,800+300=5,100', '4,800-300=4,500', '4,800+300=5,200'])
def test_numbers_are_written_like_those_of_the_step(line):
    said, _ = judged(SHOP, f'{line}\n#### {line.partition("=")[2]}')
    assert said == {'Itshouldbe4,800+300=5,100.', 'Thisshouldbe4,800+300=5,100.'}


def explanations(problem, attempt, *, step=0):
    return {grammars.WORKED.parse(t).steps[step].explanation for t in texts(problem, attempt)}


@pytest.mark.parametrize('second', ['8-3=6\n#### 6', '8-3=5\n#### 5'])
def test_a_slip_on_a_wrong_operand_is_worked_out_with_the_right_one(second):
    attempt = f'2+1+4=8\n{second}'
    problem = Problem('b', BOOKS.question, '4', '2+1+4=7\n7-3=4\n#### 4', 1, 'x')
    for text in explanations(problem, attempt, step=1):
        assert text.replace(' ', '').endswith('be7-3=4.')


def test_an_operand_without_a_last_digit_is_a_fraction():
    problem = Problem('p', 'What is 10/3 times 3?', '10', '10/3=3.33\n3.33*3=10\n#### 10', 1, 'x')
    for text in explanations(problem, '10/3=5\n5*3=15\n#### 15', step=1):
        assert text.replace(' ', '').endswith('10/3*3=10.')


def test_money_is_split_into_operations_in_right_and_wrong_steps():
    problem = Problem(
        'p', 'What are 2.25, 1.25 and 1?', '4.50', '2.25+1.25+1=$4.50\n#### 4.50', 1, 'x'
    )
    for last in ('$4.50', '$4.60'):
        said, _ = judged(problem, f'2.25+1.25+1={last}\n#### {last}')
        assert {text.partition('be')[2] for text in said} == {
            '2.25+1.25+1:2.25+1.25=3.5;3.5+1=4.50.'
        }


@pytest.mark.parametrize(
    ('problem', 'attempt', 'is_falsified'),
    [
        (BOOKS, '2+1+4-3=5\n#### 5', False),  # its result, 4, is an operand too
        (SHOP, '4,800+300=5,200\n#### 5200', True),
    ],
)
def test_a_falsified_value_is_the_result_of_the_work(problem, attempt, is_falsified):
    for text in texts(problem, attempt):
        false = counterfactual.falsify(text, grammar=grammars.WORKED, rng=random.Random(0))
        assert (false is not None) == is_falsified
        if false is not None:
            words = grammars.WORKED.parse(false.text).steps[0].explanation
            assert words.replace(' ', '').endswith(f'4,800+300={false.value}.')
