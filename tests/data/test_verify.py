import ast
import fractions
import inspect
import json
import os
import pathlib
import signal
import time

import pytest

from data import verify
from data.verify import Outcome

REAL = pathlib.Path(
    os.environ.get('ELENCHUS_DATA', pathlib.Path(__file__).parents[3] / 'shared' / 'data')
)

COMPARATORS = """
import os, signal, time

def slow(answer, reference):
    if 'sleep' in answer:
        time.sleep(1000)
    if 'spin' in answer:
        while True:
            pass
    if 'die' in answer:
        os.kill(os.getpid(), signal.SIGKILL)
    if 'raise' in answer:
        raise SystemExit(3)
    return answer.split()[0] == reference.split()[0]

def process(answer, reference):
    with open(reference.split()[1], 'a') as file:
        file.write(f'{os.getpid()}\\n')
    return True
"""


@pytest.fixture
def comparators(tmp_path, monkeypatch):
    (tmp_path / 'verify_comparators.py').write_text(COMPARATORS)
    monkeypatch.syspath_prepend(tmp_path)
    return 'verify_comparators:{}'.format


def verifier(comparator='nothing:starts', *, num_workers=2, timeout_s=1.0):
    return verify.Verifier(num_workers=num_workers, timeout_s=timeout_s, comparator=comparator)


def real(name):
    path = REAL / name
    if not path.exists():
        pytest.skip(f'{path} is absent: set ELENCHUS_DATA')
    return [json.loads(line) for line in path.read_text().splitlines()]


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
    assert verify.extract_answer(text) == answer


@pytest.mark.parametrize(
    'text', ['#### 7\n####', r'\boxed{7} so \boxed{8', 'The answer is 7. The answer is']
)
def test_an_earlier_answer_does_not_stand_in_for_an_unfinished_last_one(text):
    assert verify.extract_answer(text) is None


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
        ('007', '7'),
    ],
)
def test_numbers_are_read_exactly(text, value):
    assert verify.parse_number(text) == fractions.Fraction(value)


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
        '5 million',
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
    assert verify.parse_number(text) is None


@pytest.mark.parametrize(
    'answer, reference, same',
    [
        ('18.00', '18', True),
        ('0.5', r'\frac{1}{2}', True),
        ('0.33', '1/3', False),
        ('35', '3,5', None),
        ('east', r'\text{East}', True),
        ('x + 1', 'x+1', True),
        ('1+x', 'x+1', None),
        ('seven', '7', False),
        ('7', 'None', False),
        ('', '7', False),
        ('$', '$', False),
        ('2+5', '7', None),
        ('9' * 2000, '9' * 2000, True),
        ('9' * 2000, '9', False),
    ],
)
def test_the_fast_path_decides_only_what_it_is_sure_of(answer, reference, same):
    assert verify.compare(answer, reference) is same
    assert verify.equivalent(answer, reference) is (same is True)


@pytest.mark.parametrize(
    'name', ['gsm8k/train.jsonl', 'gsm8k/test.jsonl', 'gsm8k/test_socratic.jsonl']
)
def test_gsm8k_references_are_right_and_shifted_ones_wrong_without_workers(name):
    texts = [record['answer'] for record in real(name)]
    references = [text.rsplit('####', 1)[1].strip() for text in texts]
    shifted = [str(verify.parse_number(reference) + 1) for reference in references]
    with verifier() as checker:
        assert set(checker.check(zip(texts, references, strict=True))) == {Outcome.RIGHT}
        assert set(checker.check(zip(texts, shifted, strict=True))) == {Outcome.WRONG}
        assert checker.counts == {Outcome.RIGHT: len(texts), Outcome.WRONG: len(texts)}


def test_every_math_reference_solution_has_an_answer():
    assert all(verify.extract_answer(record['solution']) for record in real('math/test.jsonl'))


def test_algebra_is_decided_by_workers_and_hostile_input_by_the_clock():
    cases = [
        (r'\boxed{1+x}', 'x+1', Outcome.RIGHT),
        (r'\boxed{\sqrt{8}}', r'2\sqrt{2}', Outcome.RIGHT),
        ('#### 2+5', '7', Outcome.RIGHT),
        ('#### x+2', 'x+1', Outcome.WRONG),
        ('#### 9**9**9', '7', Outcome.WRONG),
        (r'\boxed{9^{9^{9}}}', '7', Outcome.TIMEOUT),
        ('#### ' + '(' * 900, '7', Outcome.WRONG),
        ('#### ' + '{' * 900, '7', Outcome.WRONG),
        ('#### __import__("os").abort()', '7', Outcome.WRONG),
        ('#### ' + '9' * 100_000, '7', Outcome.WRONG),
        (r'\boxed{' * 15_000, '7', Outcome.NO_ANSWER),
        ('no idea', '7', Outcome.NO_ANSWER),
    ]
    with verifier('data.verify:math_equal', timeout_s=5.0) as checker:
        assert checker.check(case[:2] for case in cases) == [case[2] for case in cases]
        assert checker.counts.total() == len(cases)


def test_a_hanging_worker_is_killed_and_only_its_item_times_out(comparators):
    pairs = [
        ('#### a + 1', 'a * 1'),
        ('#### sleep 1', 'b 1'),
        ('#### c + 1', 'd 1'),
        ('#### spin 1', 'e 1'),
        ('#### f + 1', 'f * 1'),
    ]
    with verifier(comparators('slow')) as checker:
        start = time.monotonic()
        assert checker.check(pairs) == [
            Outcome.RIGHT,
            Outcome.TIMEOUT,
            Outcome.WRONG,
            Outcome.TIMEOUT,
            Outcome.RIGHT,
        ]
        assert time.monotonic() - start < 30
        assert checker.counts == {Outcome.RIGHT: 2, Outcome.TIMEOUT: 2, Outcome.WRONG: 1}


@pytest.mark.parametrize('how', ['die', 'raise'])
def test_a_dying_worker_is_an_error_of_its_item_alone(comparators, how):
    pairs = [(f'#### {how} 1', 'a 1'), ('#### a + 1', 'a * 1'), ('#### a + 2', 'b 1')]
    with verifier(comparators('slow'), num_workers=1) as checker:
        assert checker.check(pairs) == [Outcome.ERROR, Outcome.RIGHT, Outcome.WRONG]


def test_a_worker_killed_between_checks_costs_one_error(comparators, tmp_path):
    log = tmp_path / 'pids'
    with verifier(comparators('process'), num_workers=1) as checker:
        assert checker.check([('#### a + 1', f'b {log}')]) == [Outcome.RIGHT]
        os.kill(int(log.read_text()), signal.SIGKILL)
        assert checker.check([('#### a + 2', f'b {log}')]) == [Outcome.ERROR]
        assert checker.check([('#### a + 3', f'b {log}')]) == [Outcome.RIGHT]


def test_workers_live_on_between_checks_and_end_with_the_verifier(comparators, tmp_path):
    log = tmp_path / 'pids'
    with verifier(comparators('process'), num_workers=1) as checker:
        for index in range(3):
            checker.check([(f'#### a + {index}', f'b {log}')])
    (pid,) = set(log.read_text().split())
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_equal_pairs_are_compared_once_and_counted_each(comparators, tmp_path):
    log = tmp_path / 'pids'
    with verifier(comparators('process'), num_workers=1) as checker:
        assert checker.check([('#### a + 1', f'b {log}')] * 4) == [Outcome.RIGHT] * 4
        assert checker.counts == {Outcome.RIGHT: 4}
    assert len(log.read_text().split()) == 1


def test_workers_that_cannot_start_are_a_loud_failure():
    with verifier('no_such_module:compare') as checker, pytest.raises(RuntimeError, match='start'):
        checker.check([('#### a + 1', 'b + 1')])


def test_no_worker_starts_for_what_needs_none():
    with verifier('no_such_module:compare') as checker:
        assert checker.check([('#### 7', '7'), ('#### 8', '7'), ('7', '7')]) == [
            Outcome.RIGHT,
            Outcome.WRONG,
            Outcome.NO_ANSWER,
        ]


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
    assert len(verify.numbers(text)) == count


def test_a_bare_answer_does_not_pass_the_shortcut_barrier():
    worked = '7 - 4 is 3\n3 + 7 is 0\n#### 0'
    assert verify.passes_barrier(worked, worked, worked)
    assert not verify.passes_barrier('#### 0', worked, worked)
    assert verify.passes_barrier('#### 0', worked, '#### 1')
    assert verify.passes_barrier('7 - 4 is 3\n3 is 0\n#### 0', '1 2 3 4 5 6 7', worked)


def test_nothing_is_ever_evaluated():
    names = {
        node.id
        for node in ast.walk(ast.parse(inspect.getsource(verify)))
        if isinstance(node, ast.Name)
    }
    assert not names & {'eval', 'exec', 'compile', '__import__', 'sympify', 'parse_expr'}


def test_nothing_is_evaluated_by_sympy_either(monkeypatch):
    sympy_parser = pytest.importorskip('sympy.parsing.sympy_parser')
    monkeypatch.setattr(sympy_parser, 'eval', None, raising=False)  # restored afterwards
    monkeypatch.setattr('builtins.eval', lambda *_: pytest.fail('evaluated'))
    for text in ['2+5', r'\frac{14}{2}', '3.5 + 3.5', '7.0', r'\sqrt{49}', '07']:
        assert verify.math_equal(text, '7'), text
    for text in ['__import__("os")', '2**3', 'x.y', 'lambda: 7', '7 if 1 else 8']:
        assert not verify.math_equal(text, '7'), text


@pytest.mark.parametrize(
    'settings', [{'num_workers': 0, 'timeout_s': 1.0}, {'num_workers': 1, 'timeout_s': 0.0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match='> 0'):
        verify.Verifier(**settings)
