"""Self-check of the verifier: references are equal to themselves and not to their neighbours."""

import subprocess
import sys

import pytest

from elenchus.data.grading import answers, mutations, self_check
from elenchus.data.grading.verify import Outcome, Verifier
from elenchus.data.problems import loading
from tests.test_house_rules import ROOT

SLOW = pytest.mark.slow


@pytest.fixture(scope='module')
def verifier():
    with Verifier(num_workers=1, timeout_s=10.0) as opened:
        yield opened


@pytest.mark.parametrize(
    'source, step',
    [
        pytest.param('gsm8k', 10, marks=SLOW),
        ('svamp', 10),
        pytest.param('asdiv', 40, marks=SLOW),
        pytest.param('math', 200, marks=SLOW),
    ],
)
def test_real_references_are_equal_to_themselves_and_not_to_their_neighbours(
    source, step, shared_data, tmp_path, verifier
):
    problems = loading.load(source, split='test', data_dir=tmp_path, path=shared_data / source)
    references = [problem.answer for problem in problems[::step]]
    itself, respelled, following = self_check.run_checks(references, verifier)
    assert set(itself.outcomes) == set(respelled.outcomes) == {Outcome.RIGHT}
    assert not self_check.surprises(itself) + self_check.surprises(respelled)
    for (answer, reference), outcome in zip(following.pairs, following.outcomes, strict=True):
        alike = answers.equivalent(answer, reference)
        expected = {Outcome.RIGHT} if alike else {Outcome.WRONG, Outcome.UNSURE}
        assert outcome in expected, (answer, reference)


@pytest.mark.parametrize(
    'source', ['gsm8k', *(pytest.param(x, marks=SLOW) for x in ('svamp', 'asdiv', 'math'))]
)
def test_mutations_of_real_references_are_never_right(source, shared_data, tmp_path):
    problems = loading.load(source, split='test', data_dir=tmp_path, path=shared_data / source)
    mutated = mutations.mutate([problem.answer for problem in problems], 1000)
    assert sum(map(len, mutated.values())) == 1000
    for pairs in mutated.values():
        assert not [pair for pair in pairs if answers.equivalent(*pair)]


def test_a_respelled_answer_means_the_same():
    assert self_check.respell(r'(3,\frac12)') == r'\left(3, \dfrac12\right)'
    for number in ('1,234', '$1,234.50', '-1,234,567', '12,000 km'):
        assert self_check.respell(number) == number
    assert self_check.respell('1,23') == '1, 23'


def test_a_solution_of_another_answer_is_listed(verifier):
    solutions = ['3 + 4 = 7\n#### 7', '3 + 4 = 8\n#### 8', 'So \\boxed{7}.', 'No answer here.', '']
    checks = self_check.run_checks(['7'] * 5, verifier, solutions=solutions)
    (check,) = (check for check in checks if check.name == self_check.SOLUTION)
    assert len(check.pairs) == 4
    assert self_check.surprises(check) == [('wrong', solutions[1], '7')]


def test_unexpected_pairs_are_listed_once():
    pairs = [('1', '1'), ('2', '3'), ('x', 'y'), ('x', 'y')]
    outcomes = [Outcome.RIGHT, Outcome.WRONG, Outcome.TIMEOUT, Outcome.TIMEOUT]
    neighbours = self_check.Check('the next', pairs, outcomes, 1.0)
    unsure = self_check.Check('digit', pairs, [*outcomes[:3], Outcome.UNSURE], 1.0)
    assert self_check.surprises(unsure) == [('right', '1', '1'), ('timeout', 'x', 'y')]
    assert self_check.surprises(neighbours) == [('timeout', 'x', 'y')]
    same = self_check.Check('itself', pairs, outcomes, 1.0)
    assert self_check.surprises(same) == [('wrong', '2', '3'), ('timeout', 'x', 'y')]


@pytest.mark.slow
def test_the_script_prints_a_table(tmp_path):
    path = tmp_path / 'set.jsonl'
    path.write_text('{"question": "q", "answer": "7"}\n{"question": "q", "answer": "7.0"}\n')
    run = subprocess.run(
        [sys.executable, '-m', 'scripts.tools.check_verifier', '--source=jsonl', f'--path={path}'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'the next' in run.stdout and "the next: right: '7.0', reference '7'" in run.stdout
