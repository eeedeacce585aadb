"""Equations in many spellings are judged exactly, and what has another reading is not judged."""

import fractions

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data.critiques.calculator import equations, expressions, sources

Fraction = fractions.Fraction

TRUE = [
    'Two plus three is five', 'Eight trays - Five trays = 3 trays', 'twenty-five * 2 = fifty',
    '48/2 = 24', '48 divided by 2 is 24', '$5 x 3 = $15', '20% of 50 is 10', '3 hours * 60 = 180',
    'It takes 3 hours * 60 minutes/hour = 180 minutes.', '1,000 + 2,500 = 3,500', '2/3 of 12 = 8',
    r'\(\frac{1}{3} \times 18 = 6\)', r'5 \cdot 4 = 20', '12 ÷ 4 = 3', '10 − 4 = 6', '5 – 3 = 2',
    '(5+3)*2 = 16', '5(3) = 15', '(2)(3) = 6', '-5 + 3 = -2', '2^3 = 8', '3**2 = 9', '24 = 48/2',
    'She sold 48/2 = <<48/2=24>>24 clips.', 'Total: 5 + 3 = 8.', 'Total = 5 + 3 = 8', '5/20 = 25%',
    '100% - 20% = 80%', '50 * 20% = 10', '10/3 = 3.33', '2/3 = 0.667', '20 / 0.5 = 40', '.5*4=2',
    '5 apples + 3 apples = 8 apples', '5 plus 3 equals 8', '5 times 3 is 15', '7 minus 2 makes 5',
    '5 multiplied by 3 is equal to 15', '5 + 3 is a total of 8', '1/2 * 1/2 = 1/4', '3 × 4 = 12',
    '25% + 25% = 50', '25% + 25% = 50%', '20/50*100 = 40%', '1/3 = 33.3%', '2cm * 3 = 6cm',
    r'3\frac{1}{2} + 1 = 4.5', r'2 \times 3\dfrac{1}{2} = 7', r'5 - 3 \frac{1}{2} = 1.5',
    '5 - 3 = 2 apples and 3 pears', 'It is 5 because 2 + 3 = 5', '4 + 2 = 6 for 2 tubs',
    '15-10 = 5',
    '**5 + 3 = 8**', '- 5 + 3 = 8', '1. 5 + 3 = 8', 'The cost is $2.50 * 4 = $10.00', '3*4==12',
]  # fmt: skip

FALSE = [
    'Two plus three is six', 'Eight trays - Five trays = 4 trays', 'twenty-five * 2 = 52',
    '48/2 = 22', '48 divided by 2 is 22', '$5 x 3 = $16', '20% of 50 is 11',
    '1,000 + 2,500 = 3,600',
    'It takes 3 hours * 60 minutes/hour = 190 minutes.', r'\(\frac{1}{3} \times 18 = 7\)',
    'She sold 48/2 = <<48/2=22>>22 clips.', 'Total = 5 + 3 = 9', '5 apples + 3 oranges = 9 fruits',
    '10/3 = 3.43', '(5+3)*2 = 13', '5(3) = 18', '-5 + 3 = 2', '2^3 = 6', '87-24-45=19',
    '8 - 5 = 13',
    'The cost is $2.50 * 4 = $10.50', '2.25 * 3 = 6.85', '5 times 3 is 18', '12 ÷ 4 = 4',
    '**5 + 3 = 9**', r'3\frac{1}{2} + 1 = 5.5', '10-15 = -6', '15-10 = 6', '2cm * 3 = 7cm',
    '87-24 = 62',
    'Then 7*8=54, so 54 are left.', 'So 2 * 3 + 4 = 14', '100% - 20% = 70',
]  # fmt: skip

OPEN = [
    '30 minutes * 2 = 1 hour', '25 cents * 4 = $1', '50 - 20% = 40', '17/5 = 3', '17/5 = 4',
    '20/3 = 6.66', '25 / 1/3 = 75', '1/2 cup = 4 ounces', '5 * 3 = $15,000', 'Half of 10 + 2 = 6',
    '5 dozen + 12 = 72', 'On day 1 * 2 = 20', '17/5 = 2 remainder 7', 'About 5*3 = 16', '5*3 ≈ 16',
    'aged 45-54 is 145', 'pages 10-15 = 6 pages', 'From 2010-2015 = 5 years',
    '8% * 50 = $400', '$40 * 15% = $600', '30%*30%=900%', '20% of 50 = 1000', '15% * 200 = 3000',
    '12% * 30 + 5 = 365', '5% of 33 = 165.0', r'9/2 = 4\frac{1}{2}', r'2.5\frac{1}{2} + 1 = 3',
    'the square of 5 + 3 = 28', '2/5 is equal to 12', 'It is not 5 + 3 = 9',
]  # fmt: skip

NONE = [
    'x + 3 = 5', '2x + 3 = 7', '3x = 12', 'y = 6', '5 = 5',
    'He left at 6:00+18 = 12:00', '2:3 = 8:12',
    '5 times 3 is 15 more than 2', 'Let n be 5', '25 classmates + his 1 teacher + 1 himself = 27',
    '5 feet = 60 inches', 'ages 5-10', 'LCM[2,9]=18', '0900-0130 = 0730', 'a4 + 3 = 9',
    '', '=', '5 +', '49 - 3ab = 6', '65 + 2xy = 105', '20 - 4ac = 9', '12 + 3pi = 21',
    '3ab + 4 = 7',
    '5 feet 3 inches + 4 inches = 5 feet 7 inches', '3 weeks 5 days - 1 day = 3 weeks 4 days',
    '20 + 47 = 5 feet 7 inches', '60 + 7 = 5 feet and 7 inches', '8 AM + 5 hours = 1 PM',
    "11 o'clock + 2 hours = 1 o'clock", '11 am + 2 = 1 pm', '5 feet 3 inches + 4 inches = 7 feet',
    f'{"1" * 41} + 1 = 5', f'1 + 1 = {"9" * 4400}',
    '5 + = 3', '+ . 84 + .82 = 2.46', 'f(3) = 9', '5! = 120', '5 + x = 9', '8.333... * 3 = 25',
    'x*(5+3) = 9', '5 < 3 + 4', '3 + 4 > 5',
]  # fmt: skip


def judged(line, **options):
    return [equation.holds for equation in equations.find(line, **options)]


@pytest.mark.parametrize('line', TRUE)
def test_true_equations_hold(line):
    assert judged(line) == [True]


@pytest.mark.parametrize('line', FALSE)
def test_false_equations_do_not_hold(line):
    assert judged(line) == [False]


@pytest.mark.parametrize('line', OPEN)
def test_what_has_another_reading_is_never_called_false(line):
    assert False not in judged(line)


@pytest.mark.parametrize('line', NONE)
def test_what_is_no_equation_of_numbers_has_none(line):
    assert not judged(line)


def test_a_chain_is_judged_link_by_link():
    assert judged('5 + 3 = 8 * 2 = 16') == [True, True]
    assert judged('2*3+4 = 6+4 = 10') == [True, True]
    assert judged('2*3+4 = 6+4 = 11') == [False, False]


def test_decimals_that_may_have_lost_digits_are_not_exact():
    assert judged('0.33 * 900 = 300') == [False]
    assert judged('0.33 * 900 = 300', exact_values={Fraction(900)}) == [None]
    assert judged('0.33 * 900 = 300', exact_values={Fraction(33, 100)}) == [False]


OPERATIONS = {
    '+': (' + ', '+', ' plus '),
    '-': (' - ', '-', ' − ', ' minus '),
    '*': (' * ', '*', ' x ', ' × ', ' times ', r' \times ', ' multiplied by '),
    '/': (' / ', '/', ' ÷ ', ' divided by '),
}
EQUALS = (' = ', '=', ' is ', ' equals ', ' is equal to ')


def spelled(number, draw):
    """A number in one of its spellings."""
    decimals = draw(st.sampled_from(('', '.0', '.00'))) if number.denominator == 1 else ''
    text = f'{float(number):g}' if number.denominator > 1 else str(number)
    if number >= 1000 and number.denominator == 1 and draw(st.booleans()):
        text = f'{int(number):,}'
    unit = draw(st.sampled_from(('', ' apples', ' miles', ' red balls')))
    money = '$' if not unit and draw(st.booleans()) else ''
    return f'{money}{text}{decimals}{unit}'


@st.composite
def computations(draw):
    """A spelled computation and its exact value, with at most two decimals."""
    whole = st.integers(1, 20_000).map(Fraction)
    numbers = [draw(st.one_of(whole, st.sampled_from((Fraction(1, 2), Fraction(5, 2)))))]
    texts, value = [spelled(numbers[0], draw)], numbers[0]
    for _ in range(draw(st.integers(1, 2))):
        signs = '*/' if value.denominator > 4 else '+-*/'
        sign = draw(st.sampled_from(signs if len(numbers) == 1 else '+-'))
        number = draw(st.integers(1, 60).map(Fraction))
        if sign == '/':
            number = draw(st.sampled_from((Fraction(2), Fraction(4), Fraction(5))))
        value = expressions.evaluate((sign, 0, 1), [value, number])
        texts += [draw(st.sampled_from(OPERATIONS[sign])), spelled(number, draw)]
        numbers.append(number)
    return ''.join(texts), value


def written(value):
    return f'{float(value):.10f}'.rstrip('0').rstrip('.')


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(computations(), st.sampled_from(EQUALS), st.data())
def test_generated_arithmetic_is_judged_exactly(computation, equals, data):
    text, value = computation
    hypothesis.assume((value * 10**4).denominator == 1)
    before = data.draw(st.sampled_from(('', 'So ', 'She has ', 'Therefore, ', 'The total is: ')))
    after = data.draw(st.sampled_from(('', '.', ' apples.', ', which is right')))
    assert judged(f'{before}{text}{equals}{written(value)}{after}') == [True]
    wrong = value + data.draw(st.integers(1, 9)) * data.draw(st.sampled_from((1, -1)))
    hypothesis.assume(value * wrong > 0 and Fraction(1, 2) < wrong / value < 2)
    assert judged(f'{before}{text}{equals}{written(wrong)}{after}') == [False]


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(st.text(alphabet='0123456789 +-*/=x().,%$abc^<>', max_size=40))
def test_no_text_breaks_the_parser_and_what_holds_is_equal(text):
    for equation in equations.find(text):
        if equation.holds and not any('%' in e.text for e in (equation.computed, equation.right)):
            difference = abs(equation.computed.value - equation.result)
            assert difference <= Fraction(1, 2 * 10 ** equation.right.leaves[0].decimals)


@st.composite
def trees(draw, depth=3):
    """A tree of operations over four leaves."""
    if depth == 0 or (depth < 3 and draw(st.booleans())):
        return draw(st.integers(0, 3))
    return (draw(st.sampled_from('+-*/')), draw(trees(depth - 1)), draw(trees(depth - 1)))


@hypothesis.given(trees())
def test_a_written_tree_is_read_as_itself(node):
    numbers = [Fraction(n) for n in (7, 3, 11, 5)]
    text = expressions.write(node, [str(n) for n in numbers])
    value = expressions.evaluate(node, numbers)
    (equation, *_) = equations.find(f'{text} = 1000003')
    assert equation.computed.value == value


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        *(('sixty-eight snakes', 68), ('one hundred and five', 105), ('two thousand', 2000)),
        *(('1,200', 1200), ('three dozen', 12), ('half of it', Fraction(1, 2)), ('twice', 2)),
        *(('two thirds', Fraction(2, 3)), ('3/4', Fraction(3, 4)), ('2 1/2 cups', Fraction(5, 2))),
        *(('20%', Fraction(1, 5)), ('$0.50', Fraction(1, 2)), ('.5', Fraction(1, 2))),
    ],
)
def test_numbers_of_a_question_in_every_spelling(text, value):
    assert Fraction(value) in sources.numbers_of(text)


def test_a_number_of_thousands_of_digits_is_in_no_set_and_no_quote():
    text = f'She has {"7" * 4400} nuts, {"1," + ",".join(["234"] * 1500)} pears and 5 apples.'
    assert sources.numbers_of(text) == {Fraction(5), Fraction(1), Fraction(234)}
    assert sources.quote(text, Fraction(5)) is not None
