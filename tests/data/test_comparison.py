"""Answers against references, kind by kind: what is right, and what must never be."""

import string
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from elenchus.data.grading import answers, comparison, kinds, mutations
from elenchus.data.grading.comparison import Verdict, decide
from tests.support.answer_pairs import RIGHT, WRONG


def table(cases):
    return [pytest.param(*pair, id=f'{kind}-{pair}') for kind in cases for pair in cases[kind]]


@pytest.mark.parametrize('answer, reference', table(RIGHT))
def test_equal_answers_are_right_without_algebra(answer, reference):
    assert decide(answer, reference) is Verdict.RIGHT


@pytest.mark.parametrize('answer, reference', table(WRONG))
def test_other_answers_are_never_right_and_need_no_algebra(answer, reference):
    assert decide(answer, reference) in (Verdict.WRONG, Verdict.UNSURE)


@pytest.mark.parametrize(
    'answer, reference',
    [('(1,234)', '1234'), ('5 cm', '5 kg'), ('101', '101_2'), ('June 20', 'June 21'), ('3=7', '7')],
)
def test_a_doubt_is_unsure_and_counts_as_wrong(answer, reference):
    assert decide(answer, reference) is Verdict.UNSURE
    assert answers.compare(answer, reference) is False


@pytest.mark.parametrize('answer, reference', [('x>3', 'x<3'), ('0<x<12.5', '(0,12.5)')])
def test_relations_need_algebra(answer, reference):
    assert decide(answer, reference) is Verdict.OPEN


numbers = st.integers(-(10**12), 10**12)
words = st.text(string.ascii_letters, min_size=2, max_size=8)


@given(numbers, numbers)
def test_integers_are_right_only_if_equal(a, b):
    assert decide(str(a), str(b)) is (Verdict.RIGHT if a == b else Verdict.WRONG)
    assert decide(f'{a:,}', str(a)) is Verdict.RIGHT
    assert decide(rf'{a}\text{{ apples}}', f'{a}') is Verdict.RIGHT


@given(numbers, st.sampled_from([r'\,', '{,}', r'\ ', '~', ' ', '\u2009', '\u202f', "'", ',\\!']))
def test_every_separator_of_thousands_is_read(number, separator):
    assert decide(f'{number:,}'.replace(',', separator), str(number)) is Verdict.RIGHT


@given(words, st.randoms())
def test_the_order_of_letters_counts(word, random):
    letters = list(word)
    random.shuffle(letters)
    shuffled = ''.join(letters)
    same = shuffled.casefold() == word.casefold()
    assert (decide(shuffled, word) is Verdict.RIGHT) == same


@given(st.integers(2, 16), st.integers(2, 16), st.integers(1, 10**6))
def test_bases_count(first, second, number):
    digits = ''.join(str(number % 2**k // 2 ** (k - 1)) for k in range(20, 0, -1)).lstrip('0')
    same = decide(f'{digits}_{{{first}}}', f'{digits}_{{{second}}}') is Verdict.RIGHT
    assert same == (first == second)


@given(st.integers(1, 12), st.integers(0, 59), st.integers(1, 12), st.integers(0, 59))
def test_times_are_right_only_if_equal(hour, minute, other_hour, other_minute):
    same = (hour, minute) == (other_hour, other_minute)
    verdict = decide(f'{hour}:{minute:02}', f'{other_hour}:{other_minute:02}')
    assert verdict is (Verdict.RIGHT if same else Verdict.WRONG)


@given(st.integers(1, 99), st.integers(1, 99), st.integers(20, 400), st.integers(20, 400))
def test_tiny_numbers_compare_relatively(a, b, k, m):
    same = a * 10**m == b * 10**k
    for suffix in ('', r'\pi', 'x'):
        first, second = rf'{a}\cdot 10^{{-{k}}}{suffix}', rf'{b}\cdot 10^{{-{m}}}{suffix}'
        assert (decide(first, second) is Verdict.RIGHT) == same


@given(st.lists(st.integers(-20, 20), min_size=3, max_size=3), st.integers(-9, 9))
def test_polynomials_are_compared_exactly(coefficients, shift):
    a, b, c = coefficients
    expanded = f'{a}x^2+{b}x+{c}'.replace('+-', '-')
    nested = f'x({a}x+{b})+{c + shift}'.replace('+-', '-')
    assert decide(nested, expanded) is (Verdict.RIGHT if shift == 0 else Verdict.WRONG)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_raises_and_equality_is_reflexive(answer, reference):
    decide(answer, reference)
    if any(character.isalnum() for character in kinds.read(reference).text):
        assert decide(reference, reference) is Verdict.RIGHT


latex = st.lists(
    st.sampled_from([*'0123456789xyab+-*/^_(){}[]|!,.:=<> ', r'\frac', r'\sqrt', r'\pi', r'\sin',
                     r'\text{ cm}', r'\%', r'\degree', '$', 'e', 'i']),
    max_size=25,
).map(''.join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(latex, st.sampled_from(['7', 'x+1', r'\frac{1}{2}', '3:30', '12_5', 'ABCD', '(1,2)']))
def test_no_latex_raises(answer, reference):
    assert decide(answer, reference) in comparison.Verdict


@given(
    st.sampled_from(['-12', '3/4', r'2\sqrt{3}', 'ABCD', r'5\text{ cm}', '(3,-1)']), st.randoms()
)
def test_a_mutated_answer_is_never_right(reference, random):
    for change in mutations.CHANGES.values():
        mutated = change(reference, random)
        assume(mutated != reference)
        if mutated is not None:
            assert decide(mutated, reference) is not Verdict.RIGHT


BRANCHES = [
    ('|x+5|', 'x+5'), ('|xy|', 'xy'), ('x+5', r'\sqrt{x^2+10x+25}'), ('1', r'\frac{|xy|}{xy}'),
    (r'\ln((x+6)^2)', r'2\ln(x+6)'), ('|x+100000|', 'x+100000'), (r'\sqrt[4]{(x+7)^4}', 'x+7'),
    ('((x+6)^2)^{1/2}', 'x+6'), ('|x-0.0001|', '0.0001-x'), ('|abc|', 'abc'),
    ('|x+20|+y', 'x+20+y'), ('|x^2-500|', 'x^2-500'), ('|x-3|+|x-4|', '|2x-7|'),
    (r'\arcsin(\sin x)', 'x'),
]  # fmt: skip


@pytest.mark.parametrize('answer, reference', [*BRANCHES, *(pair[::-1] for pair in BRANCHES)])
def test_what_is_equal_only_for_some_signs_and_sizes_is_not_right(answer, reference):
    assert decide(answer, reference) is not Verdict.RIGHT


@pytest.mark.parametrize(
    'answer, reference',
    [
        *(('|5+x|', '|x+5|'), ('|xy|', '|x||y|'), (r'\sqrt{x^2}', '|x|'), ('|x-y|', '|y-x|')),
        *(
            (r'\sqrt{x^2+10x+25}', '|x+5|'),
            (r'\sqrt{x+1}', '(x+1)^{1/2}'),
            ('x^{3/2}', r'x\sqrt{x}'),
        ),
        *((r'\sqrt[3]{x}', 'x^{1/3}'), (r'\frac{\sqrt{2x}}{2}', r'\sqrt{\frac{x}{2}}')),
        *(('1+\\ln x', r'\ln x+1'), (r'\sqrt[3]{-x}', r'-\sqrt[3]{x}'), ('3|a|b', 'b|3a|')),
        *((r'\sqrt[3]{-8}', '-2'), (r'\sqrt[3]{-2}', r'-\sqrt[3]{2}'), (r'\sqrt[5]{-32}', '-2')),
        *((r'1+\sqrt[3]{-27}', '-2'), (r'\sqrt[3]{-\frac{8}{27}}', r'-\frac23')),
    ],
)
def test_roots_and_absolute_values_that_are_equal_everywhere_are_right(answer, reference):
    assert decide(answer, reference) is decide(reference, answer) is Verdict.RIGHT


@pytest.mark.parametrize(
    'answer, reference',
    [
        *(
            ('(-8)^{1/3}', '-2'),
            (r'(-27)^{\frac{2}{3}}', '9'),
            (r'(-2)^{\frac13}', r'-\sqrt[3]{2}'),
        ),
        *(('(-8)^{1/3}, 1', '-2, 1'), ('1+(-8)^{1/3}', '-1'), ('(-4)^{0.5}', '2i')),
    ],
)
def test_a_power_with_a_real_and_a_complex_reading_is_unsure(answer, reference):
    assert decide(answer, reference) is decide(reference, answer) is Verdict.UNSURE


@pytest.mark.parametrize(
    'answer',
    [
        r'\tan(10^{9000})+\tan(10^{9001})',
        '+'.join(rf'\tan(10^{{{n}}})' for n in range(9000, 9020)),
        '+'.join(rf'e^{{{n}}}-\pi^{{{n}}}' for n in range(9000, 9015)),
        '+'.join(rf'\sqrt{{{n}!}}' for n in range(4980, 5000)),
        '|x+1|' + '+|x+y+z|' * 20,
        '|x+1|' + ''.join(rf'+\sqrt{{{k}+{c}^2}}' for k, c in enumerate('abcdefgh')),
    ],
)
def test_a_comparison_in_this_process_takes_little_time(answer):
    start = time.process_time()
    decide(answer, f'1+{answer}-1')
    decide(answer, 'x+1')
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    'answer, reference',
    [
        *(
            (r'[2, +\infty)', r'[2,\infty)'),
            ('+\u221e', r'\infty'),
            ('(0, +\u221e)', r'(0,\infty)'),
        ),
        *((r'(-\infty, 3) \cup (5, +\infty)', r'(-\infty,3)\cup(5,\infty)'), ('x=+oo', 'x=+oo')),
        *((r'\{1, +\infty\}', r'\{1,\infty\}'), (r'(-\infty,+\infty)', r'(-\infty,\infty)')),
    ],
)
def test_a_plus_before_infinity_changes_nothing(answer, reference):
    assert decide(answer, reference) is decide(reference, answer) is Verdict.RIGHT


@pytest.mark.parametrize(
    'answer, reference',
    [
        *(
            (r'[2, -\infty)', r'[2,\infty)'),
            (r'(2, +\infty)', r'[2,\infty)'),
            (r'+\infty', r'-\infty'),
        ),
        *((r'1+\infty', '1'), (r'(-\infty, 3)', r'(+\infty, 3)'), (r'(3,+\infty]', r'(3,\infty)')),
    ],
)
def test_the_sign_of_infinity_and_its_bracket_count(answer, reference):
    assert decide(answer, reference) is not Verdict.RIGHT


@pytest.mark.parametrize(
    'answer, reference',
    [
        (r'\frac{1 \pm \sqrt{5}}{2}', r'\frac{1+\sqrt5}{2}, \frac{1-\sqrt5}{2}'),
        (r'2 \pm \sqrt3', r'\{2-\sqrt3, 2+\sqrt3\}'),
        (r'\frac{-3 \mp 1}{2}', '-1, -2'),
        (r'\pm 2', '2, -2'),
        (r'1\pm(2\mp1)', '2, -2'),
        (r'\frac{-b \pm c}{2}', r'\frac{c-b}{2}, \frac{-c-b}{2}'),
    ],
)
def test_plus_minus_is_its_two_values(answer, reference):
    assert decide(answer, reference) is decide(reference, answer) is Verdict.RIGHT


@pytest.mark.parametrize(
    'answer, reference',
    [
        (r'\frac{1 \pm \sqrt{5}}{2}', r'\frac{1+\sqrt5}{2}, \frac{1-\sqrt3}{2}'),
        (r'2 \pm \sqrt3', r'2+\sqrt3'),
        (r'2 \pm \sqrt3', r'(2-\sqrt3, 2+\sqrt3)'),
        (r'\pm 2', '2, -2, 0'),
        (r'\pm 2', '2, 2'),
        (r'1\pm(2\pm1)', '2, 0'),
        (r'\pm a \pm b', 'a-b, b-a'),
        (r'\pm a \pm b', 'a+b, -a-b'),
        (r'1\pm(2\mp1)', '2, 0'),
    ],
)
def test_plus_minus_is_no_other_values(answer, reference):
    assert decide(answer, reference) is not Verdict.RIGHT
    assert decide(reference, answer) is not Verdict.RIGHT


def test_a_chain_with_a_factorial_is_its_last_part():
    assert decide('$5! = 120$', '120') is Verdict.RIGHT
    assert decide('$5! = 121$', '121') is Verdict.UNSURE


@pytest.mark.parametrize('answer', ['6 PM', '6:00 PM', '6 p.m.', r'6\text{ a.m.}', '06:00 pm'])
def test_a_time_on_the_hour_is_the_hour_of_a_reference_without_unit(answer):
    assert decide(answer, '6') is Verdict.RIGHT
    assert decide('6', answer) is Verdict.UNSURE
    assert decide(answer, '7') is decide(answer, '6.5') is Verdict.WRONG


def test_an_hour_that_may_be_meant_is_unsure():
    assert decide('6:00', '6') is decide('18:00', '18') is Verdict.UNSURE
    assert decide('6:30', '6') is decide('6:30 PM', '6') is Verdict.WRONG


@pytest.mark.parametrize('remark', ['wrong', 'not', 'maybe', 'not sure', 'a guess', 'incorrect'])
def test_a_number_whose_remark_doubts_it_is_not_right(remark):
    assert decide(f'5 ({remark})', '5') is not Verdict.RIGHT
