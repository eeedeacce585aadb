import subprocess
import sys

import pytest

from elenchus.data.grading import answers
from elenchus.data.grading.verify import Outcome, Verifier
from elenchus.data.problems import loading
from elenchus.scripts.tools import check_verifier
from tests.test_house import ROOT


@pytest.fixture(scope='module')
def verifier():
    with Verifier(num_workers=1, timeout_s=10.0) as made:
        yield made


@pytest.mark.parametrize(
    'source, step', [('gsm8k', 10), ('svamp', 10), ('asdiv', 40), ('math', 200)]
)
def test_real_references_are_equal_to_themselves_and_not_to_their_neighbours(
    source, step, shared_data, tmp_path, verifier
):
    options = {'annotations': False} if source == 'gsm8k' else {}
    found = loading.load(
        source, split='test', data_dir=tmp_path, path=shared_data / source, **options
    )
    references = [problem.answer for problem in found[::step]]
    itself, respelt, following = check_verifier.passes(references, verifier)
    assert set(itself.outcomes) == set(respelt.outcomes) == {Outcome.RIGHT}
    assert not check_verifier.surprises(itself) + check_verifier.surprises(respelt)
    for (answer, reference), outcome in zip(following.pairs, following.outcomes, strict=True):
        alike = answers.equivalent(answer, reference)
        assert outcome == (Outcome.RIGHT if alike else Outcome.WRONG), (answer, reference)


def test_a_respelt_answer_is_the_same_to_a_reader():
    assert check_verifier.respelt(r'(3,\frac12)') == r'\left(3, \dfrac12\right)'
    assert check_verifier.respelt('1,234') == '1,234'


def test_pairs_that_deserve_a_look_are_listed_once():
    pairs = [('1', '1'), ('2', '3'), ('x', 'y'), ('x', 'y')]
    found = [Outcome.RIGHT, Outcome.WRONG, Outcome.TIMEOUT, Outcome.TIMEOUT]
    neighbours = check_verifier.Pass('the next', pairs, found, 1.0)
    assert check_verifier.surprises(neighbours) == [('timeout', 'x', 'y')]
    same = check_verifier.Pass('itself', pairs, found, 1.0)
    assert check_verifier.surprises(same) == [('wrong', '2', '3'), ('timeout', 'x', 'y')]


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
