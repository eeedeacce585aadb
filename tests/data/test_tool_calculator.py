"""The tool `calculator`: exact values of what it can read, and words for what it cannot."""

import fractions

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data.critiques.calculator import expressions, tokens
from elenchus.data.tools import calculator


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('48/2', '24'),
        ('20% of 50', '10'),
        ('(3 + 4)*2^3', '56'),
        ('10-3-2', '5'),
        ('-7+2', '-5'),
        ('1,000*3', '3000'),
        ('$5*2', '10'),
        ('5 apples * 2', '10'),
        ('2(3+4)', '14'),
        ('0.1+0.2', '0.3'),
        ('1/8', '0.125'),
        ('1/3', '0.3333'),
        ('-2/3', '-0.6667'),
        ('1/30000000', '0.00000003333'),
        ('1/1024', '0.0009765625'),
        ('7', '7'),
        ('3 times 4', '12'),
        ('\\frac{1}{2} + 1', '1.5'),
        ('3\\frac{1}{2} + 1', '4.5'),
        ('-3 \\dfrac{1}{2} * 2', '-7'),
    ],
)
def test_a_value_is_exact_or_rounded_where_it_has_no_end(text, value):
    assert calculator.calculate(text) == (value, 'answered')


@pytest.mark.parametrize(
    'text',
    [
        *('', 'abc', '3 4', '3 +', '+', '(3', '1/0', '2^100', '9^12^12', '1e5*2', '3 = 3', '2 < 3'),
        *('2.5\\frac{1}{2}', '3ab + 1', '12 + 3pi', '5 feet 3 inches + 4 inches'),
        *("__import__('os')", '(' * 99 + '1', '-' * 99 + '1', '1' + '+1' * 200, '9' * 201, '\0'),
    ],
)
def test_what_is_no_expression_has_an_answer_in_words(text):
    answer = calculator.calculate(text)
    assert answer.outcome in ('error', 'refused')
    assert answer.text.startswith(('error: ', 'refused: '))


@given(st.text(max_size=60))
def test_any_text_has_an_answer(text):
    assert calculator.calculate(text).text
    calculator.before_equals(text)


numbers = st.fractions(-(10**6), 10**6, max_denominator=1000)


@given(numbers, numbers, st.sampled_from('+-*/'))
def test_an_answer_is_within_its_digits_of_the_value(first, second, sign):
    value = expressions.evaluate((sign, 0, 1), [first, second])
    answer = calculator.calculate(f'(({first}){sign}({second}))')
    if value is None:
        assert answer.outcome == 'error'
        return
    written = fractions.Fraction(answer.text)
    assert abs(written - value) <= max(abs(value) / 1000, 0) / 2
    if calculator.written(value) == str(value):
        assert written == value


@pytest.mark.parametrize(
    ('line', 'expression'),
    [
        ('eve 7 - 4 ', '7-4'),
        ('so it is 3 * (2 + 1)', '3*(2+1)'),
        ('3 + 4 = 7 ; 2 + 2', '2+2'),
        ('first 5\n 3+4', '3+4'),
        ('the total is 5', None),
        ('7', None),
        ('', None),
        ('x', None),
    ],
)
def test_the_expression_before_an_equals_sign_is_what_is_computed(line, expression):
    assert calculator.before_equals(line) == expression


@pytest.mark.parametrize('prefix', ['', 'x\n', 'a' * 300 + ' we have 5 and '])
@pytest.mark.parametrize('spread', ['{} + 1', '({} + 1) + 1', '1000 - ({}) + 2'])
@pytest.mark.parametrize('piece', [' + 1234', ' * (1 + 1)', ' + 2 big apples'])
def test_a_long_expression_has_its_own_value_or_none(prefix, spread, piece):
    for count in (3, 190 // len(piece), 200 // len(piece), 230 // len(piece)):
        expression = spread.format('1000' + piece * count)
        whole = expressions.Parser(tokens.tokenize(expression), 0).expression()
        assert calculator.before_equals(prefix + expression + ' ') in (whole.text, None)


def test_an_expression_is_computed_up_to_its_greatest_length_and_behind_any_line():
    assert calculator.before_equals('1000' + ' + 1' * 60) == '1000' + '+1' * 60
    assert calculator.before_equals('1' + '+1' * 200) is None
    assert calculator.before_equals('1000' + ' \\times 1' * 400 + ') + 5 + 6') is None
    assert calculator.before_equals('so we add 3 more - ' * 400 + 'and have 5 + 6') == '5+6'
