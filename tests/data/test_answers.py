import ast
import fractions
import inspect

import pytest

from elenchus.data.grading import algebra, answers, verify


@pytest.mark.parametrize(
    'text, answer',
    [
        ('6 + 1 is 7\n#### 7', '7'),
        ('#### 3\nno, wait\n#### 7\n', '7'),
        ('#### 3 #### 7', '7'),
        ('The answer is 3. But the answer is 3.5. Done.', '3.5'),
        ('So the final answer is: $42.', '$42'),
        (r'The answer is \boxed{\frac{1}{2}}.', r'\frac{1}{2}'),
        (r'\boxed{3} and then \boxed{x_{1}+\{2\}}', r'x_{1}+\{2\}'),
        (r'\boxed{3} yet #### 4', '4'),
        (r'#### 4 yet \boxed {3}', '3'),
        (r'\boxed{\boxed{5}}', '5'),
        ('no marker at all 7', None),
        ('', None),
        ('#### ', None),
        ('##### 7', None),
    ],
)
def test_the_last_marker_gives_the_answer(text, answer):
    assert answers.extract_answer(text) == answer


@pytest.mark.parametrize(
    'text', ['#### 7\n####', r'\boxed{7} so \boxed{8', 'The answer is 7. The answer is']
)
def test_an_earlier_answer_does_not_stand_in_for_an_unfinished_last_one(text):
    assert answers.extract_answer(text) is None


@pytest.mark.parametrize(
    'text, value',
    [
        ('18', '18'),
        ('-1,234.50', '-1234.5'),
        ('\u22125', '-5'),
        ('+5', '5'),
        ('.5', '1/2'),
        ('3.', '3'),
        ('$3', '3'),
        (r'\$15,\!000', '15000'),
        ('1{,}000', '1000'),
        (r'50\%', '50'),
        ('1/3', '1/3'),
        (r'-\dfrac{3}{4}', '-3/4'),
        (r'\frac56', '5/6'),
        ('3 1/2', '7/2'),
        ('-3 1/2', '-7/2'),
        (r'3\frac{1}{2}', '7/2'),
        ('1e3', '1000'),
        ('18 dollars', '18'),
        ('12cm', '12'),
        (r'575\text{ students}', '575'),
        ('5 square feet per day', '5'),
        (r'90^\circ', '90'),
        ('**7**', '7'),
        ('5 cm^2', '5'),
        ('1.5 million', '1500000'),
        ('2 hundred', '200'),
        ('007', '7'),
    ],
)
def test_numbers_are_read_exactly(text, value):
    assert answers.parse_number(text) == fractions.Fraction(value)


@pytest.mark.parametrize(
    'text',
    [
        '',
        'seven',
        '2x',
        '2 xy',
        '3 pi',
        '5 or 6',
        '5 or six',
        '5 to 6',
        '1,2',
        '1,000,00',
        '9**9**9',
        '9^9',
        '1e9999',
        '1/0',
        '5-3',
        '3=7',
        '\u0663',
        '\u00b2',
        '5\u00b2',
        '10 pm',
        '3:30',
        'inf',
        'nan',
        '1_000',
        '0x10',
        '9' * 100_000,
    ],
)
def test_what_is_not_one_plain_number_is_not_read_as_one(text):
    assert answers.parse_number(text) is None


@pytest.mark.parametrize(
    'answer, reference, same',
    [
        ('18.00', '18', True),
        ('0.5', r'\frac{1}{2}', True),
        ('0.33', '1/3', False),
        ('35', '3,5', False),
        ('east', r'\text{East}', True),
        ('x + 1', 'x+1', True),
        ('1+x', 'x+1', True),
        ('seven', '7', False),
        ('7', 'None', False),
        ('', '7', False),
        ('$', '$', False),
        ('2+5', '7', True),
        ('x < 1', 'x > 1', None),
        ('9' * 2000, '9' * 2000, True),
        ('9' * 2000, '9', False),
    ],
)
def test_the_fast_path_decides_only_what_it_is_sure_of(answer, reference, same):
    assert answers.compare(answer, reference) is same
    assert answers.equivalent(answer, reference) is (same is True)


@pytest.mark.parametrize(
    'text, count',
    [
        ('ben : eve - 4 ; 7 - 4 is 3', 4),
        ('no numbers', 0),
        ('1,234.5 and .5', 2),
        ('48/2 = <<48/2=24>>24', 6),
        ('', 0),
    ],
)
def test_numbers_are_counted(text, count):
    assert len(answers.numbers(text)) == count


def test_a_bare_answer_does_not_pass_the_shortcut_barrier():
    worked = '7 - 4 is 3\n3 + 7 is 0\n#### 0'
    assert answers.passes_barrier(worked, worked, worked)
    assert not answers.passes_barrier('#### 0', worked, worked)
    assert answers.passes_barrier('#### 0', worked, '#### 1')
    assert answers.passes_barrier('7 - 4 is 3\n3 is 0\n#### 0', '1 2 3 4 5 6 7', worked)


def test_nothing_is_ever_evaluated():
    names = {
        node.id
        for module in (answers, verify)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Name)
    }
    assert not names & {'eval', 'exec', 'compile', '__import__', 'sympify', 'parse_expr'}


@pytest.mark.slow
def test_nothing_is_evaluated_by_sympy_either(monkeypatch):
    sympy_parser = pytest.importorskip('sympy.parsing.sympy_parser')
    pytest.importorskip('sympy.physics.units')  # evaluates its own names, once
    monkeypatch.setattr(sympy_parser, 'eval', None, raising=False)  # restored afterwards
    monkeypatch.setattr('builtins.eval', lambda *_: pytest.fail('evaluated'))
    for text in ['2+5', r'\frac{14}{2}', '3.5 + 3.5', '7.0', r'\sqrt{49}', '07']:
        assert algebra.math_equal(text, '7'), text
    for text in ['__import__("os")', '2**3', 'x.y', 'lambda: 7', '7 if 1 else 8']:
        assert not algebra.math_equal(text, '7'), text


@pytest.mark.parametrize(
    'answer, reference, same',
    [
        ('50%', '0.5', True),
        ('0.5', r'50\%', True),
        ('half', '50 percent', False),
        ('0.5%', '50%', False),
        ('0.5', '50', False),
        (r'0.\overline{3}', r'\frac{1}{3}', True),
        (r'-1.1\overline{6}', r'-\frac{7}{6}', True),
        ('3 5', '35', False),
        ('(C)', r'\text{(C)}', True),
        ('C', '(C)', True),
        ('c', '(C)', False),
        (r'\textbf{(C)}\ 12', 'C', True),
        ('C. the third', 'C', True),
        ('Option C', '(C)', True),
        ('(B) 12', 'C', False),
        ('Cat', 'C', False),
        (r'\left( 3, 4 \right]', '(3,4]', True),
    ],
)
def test_percents_repeating_decimals_choices_and_brackets(answer, reference, same):
    assert answers.compare(answer, reference) is same


@pytest.mark.parametrize(
    'answer, reference, same',
    [
        (r'\frac{x^2-1}{x-1}', 'x+1', True),
        ('x(2x+3)', '3x+2x^2', True),
        ('x(2x+3)', '3x+2x^3', False),
        (r'\frac{\sqrt{3}}{2}', r'\frac{3}{2\sqrt3}', True),
        (r'\sqrt{2}\text{ cm}', r'\sqrt{2}', True),
        (r'1.5\cdot 10^{3}', '1500', True),
        ('x=5', '5', True),
        (r'x\ge 2', r'[2,\infty)', True),
        (r'(5,\infty)\cup(-\infty,3)', r'(-\infty,3)\cup(5,\infty)', True),
        ('(2,5]', '[2,5]', False),
        (r'\{1,2\}', r'\{2,1\}', True),
        ('(1,2)', '(2,1)', False),
        ('1,2', '2,1', True),
        (
            r'\begin{pmatrix} 1 \\ 2/4 \end{pmatrix}',
            r'\begin{pmatrix}1\\\frac{1}{2}\end{pmatrix}',
            True,
        ),
        (r'\begin{pmatrix}1\\2\end{pmatrix}', r'\begin{pmatrix}2\\1\end{pmatrix}', False),
    ],
)
def test_algebra_sees_through_the_form_of_an_answer(answer, reference, same, monkeypatch):
    sympy_parser = pytest.importorskip('sympy.parsing.sympy_parser')
    pytest.importorskip('sympy.physics.units')
    monkeypatch.setattr(sympy_parser, 'eval', None, raising=False)  # restored afterwards
    assert algebra.math_equal(answer, reference) is same


def test_what_is_no_numeral_ends_the_process_that_would_evaluate_it():
    with pytest.raises(algebra.EvaluationRefused):
        algebra._parse_numeral("__import__ ('os' )", {}, {})
