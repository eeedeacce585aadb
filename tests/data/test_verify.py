import json
import os
import pathlib
import signal
import threading
import time

import pytest

from elenchus.data.grading import answers, verify
from elenchus.data.grading.verify import Outcome

REAL = pathlib.Path(
    os.environ.get('ELENCHUS_DATA', pathlib.Path(__file__).parents[3] / 'shared' / 'data')
)

COMPARATORS = """
import os, signal, time

# Before the worker is confined.
pids = os.open(os.environ['VERIFY_PIDS'], os.O_RDWR) if 'VERIFY_PIDS' in os.environ else None

def compare_oddly(answer, reference):
    if 'sleep' in answer:
        time.sleep(1000)
    if 'spin' in answer:
        while True:
            pass
    if 'die' in answer:
        os.kill(os.getpid(), signal.SIGKILL)
    if 'leave' in answer:
        raise SystemExit(3)
    if 'fail' in answer:
        raise ValueError(answer)
    if 'doubt' in answer:
        return None
    return answer.split()[0] == reference.split()[0]

def process(answer, reference):
    os.write(pids, f'{os.getpid()}\\n'.encode())
    return True
"""


@pytest.fixture
def comparators(tmp_path, monkeypatch):
    (tmp_path / 'verify_comparators.py').write_text(COMPARATORS)
    monkeypatch.syspath_prepend(tmp_path)
    return 'verify_comparators:{}'.format


@pytest.fixture
def pids(tmp_path, monkeypatch):
    """Reads the process ids that the comparator `process` has written since the last call."""
    os.mkfifo(tmp_path / 'pids')
    monkeypatch.setenv('VERIFY_PIDS', str(tmp_path / 'pids'))
    pipe = os.open(tmp_path / 'pids', os.O_RDWR | os.O_NONBLOCK)
    yield lambda: [int(line) for line in os.read(pipe, 1 << 16).split()]
    os.close(pipe)


def verifier(comparator='nothing:starts', *, num_workers=2, timeout_s=1.0):
    return verify.Verifier(num_workers=num_workers, timeout_s=timeout_s, comparator=comparator)


def real(name):
    path = REAL / name
    if not path.exists():
        pytest.skip(f'{path} is absent: set ELENCHUS_DATA')
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    'name',
    [
        pytest.param('gsm8k/train.jsonl', marks=pytest.mark.slow),
        'gsm8k/test.jsonl',
        'gsm8k/test_socratic.jsonl',
    ],
)
def test_gsm8k_references_are_right_and_shifted_ones_wrong_without_workers(name):
    texts = [record['answer'] for record in real(name)]
    references = [text.rsplit('####', 1)[1].strip() for text in texts]
    shifted = [str(answers.parse_number(reference) + 1) for reference in references]
    with verifier() as checker:
        assert set(checker.check(zip(texts, references, strict=True))) == {Outcome.RIGHT}
        assert set(checker.check(zip(texts, shifted, strict=True))) == {Outcome.WRONG}
        assert checker.counts == {Outcome.RIGHT: len(texts), Outcome.WRONG: len(texts)}


def test_every_math_reference_solution_has_an_answer():
    assert all(answers.extract_answer(record['solution']) for record in real('math/test.jsonl'))


def test_algebra_is_decided_by_workers_and_hostile_input_by_the_clock():
    cases = [
        (r'\boxed{1+x}', 'x+1', Outcome.RIGHT),
        (r'\boxed{\sqrt{8}}', r'2\sqrt{2}', Outcome.RIGHT),
        ('#### 2+5', '7', Outcome.RIGHT),
        ('#### x+2', 'x+1', Outcome.WRONG),
        ('#### 9**9**9', '7', Outcome.UNSURE),
        (r'\boxed{9^{9^{9}}}', '7', Outcome.TIMEOUT),
        ('#### ' + '(' * 900, '7', Outcome.WRONG),
        ('#### ' + '{' * 900, '7', Outcome.WRONG),
        ('#### __import__("os").abort()', '7', Outcome.UNSURE),
        ('#### ' + '9' * 100_000, '7', Outcome.WRONG),
        (r'\boxed{' * 15_000, '7', Outcome.NO_ANSWER),
        ('no idea', '7', Outcome.NO_ANSWER),
    ]
    with verifier('elenchus.data.grading.algebra:math_equal', num_workers=1) as checker:
        assert checker.check(case[:2] for case in cases) == [case[2] for case in cases]
        assert checker.counts.total() == len(cases)


def test_a_hanging_worker_is_killed_and_only_its_item_times_out(comparators):
    pairs = [
        ('#### a < 1', 'a > 1'),
        (r'#### \sleep < 1', 'b > 1'),
        ('#### c < 1', 'd > 1'),
        (r'#### \spin < 1', 'e > 1'),
        ('#### f < 1', 'f > 1'),
    ]
    with verifier(comparators('compare_oddly'), timeout_s=0.2) as checker:
        start = time.monotonic()
        assert checker.check(pairs) == [
            Outcome.RIGHT,
            Outcome.TIMEOUT,
            Outcome.WRONG,
            Outcome.TIMEOUT,
            Outcome.RIGHT,
        ]
        assert time.monotonic() - start < 100
        assert checker.counts == {Outcome.RIGHT: 2, Outcome.TIMEOUT: 2, Outcome.WRONG: 1}


@pytest.mark.parametrize('how', ['die', 'leave'])
def test_a_dying_worker_is_an_error_of_its_item_alone(comparators, how):
    pairs = [(rf'#### \{how} < 1', 'a > 1'), ('#### a < 1', 'a > 1'), ('#### a < 2', 'b > 1')]
    with verifier(comparators('compare_oddly'), num_workers=1) as checker:
        assert checker.check(pairs) == [Outcome.ERROR, Outcome.RIGHT, Outcome.WRONG]


def test_a_worker_killed_between_checks_costs_one_error(comparators, pids):
    with verifier(comparators('process'), num_workers=1) as checker:
        assert checker.check([('#### a < 1', 'b > 1')]) == [Outcome.RIGHT]
        os.kill(*pids(), signal.SIGKILL)
        assert checker.check([('#### a < 2', 'b > 1')]) == [Outcome.ERROR]
        assert checker.check([('#### a < 3', 'b > 1')]) == [Outcome.RIGHT]


def test_a_comparison_that_fails_costs_its_pair_and_no_worker(
    comparators, tmp_path, monkeypatch, capfd
):
    pairs = [(rf'#### \fail < {k}', 'a > 1') for k in range(3)]
    pairs += [(r'#### \doubt < 1', 'a > 1'), ('#### a < 1', 'a > 1')]
    with verifier(comparators('compare_oddly'), num_workers=1) as checker:
        checker.check([('#### a < 7', 'a > 7')])
        (worker,) = checker._idle
        assert checker.check(pairs) == [*[Outcome.ERROR] * 3, Outcome.UNSURE, Outcome.RIGHT]
        assert checker._idle == [worker] and worker.is_alive
    assert capfd.readouterr().err == ''


def test_an_answer_that_took_too_long_is_remembered(comparators):
    pair = (r'#### \sleep < 1', 'a > 1')
    with verifier(comparators('compare_oddly'), num_workers=1, timeout_s=0.2) as checker:
        start = time.monotonic()
        assert checker.check([pair]) == [Outcome.TIMEOUT]
        first, start = time.monotonic() - start, time.monotonic()
        assert checker.check([pair] * 100) == [Outcome.TIMEOUT] * 100
        assert time.monotonic() - start < first / 20
        checker.configure(num_workers=1, timeout_s=0.3)  # a longer limit may tell
        assert checker._known == {}


def test_a_check_can_be_interrupted_while_a_worker_is_busy(comparators):
    class Stop(BaseException):
        pass

    def stop():
        if checker._running:
            raise Stop

    with verifier(comparators('compare_oddly'), num_workers=1, timeout_s=60.0) as checker:
        checker.on_wait, start = stop, time.monotonic()
        with pytest.raises(Stop):
            checker.check([(r'#### \sleep < 1', 'a > 1')])
        assert time.monotonic() - start < 30 and not checker._running
        checker.on_wait = lambda: None
        assert checker.check([('#### a < 1', 'a > 1')]) == [Outcome.RIGHT]


@pytest.mark.slow
def test_math_verify_errors_are_unsure_and_print_nothing(capfd):
    pairs = [('#### x < 12/0', 'x < 3'), (r'#### x < \frac{1}{', 'x < 3'), ('#### x < 4', 'x < 3')]
    with verify.Verifier(num_workers=1, timeout_s=5.0) as checker:
        outcomes = checker.check(pairs)
        assert Outcome.RIGHT not in outcomes and Outcome.ERROR not in outcomes
        assert len(checker._idle) == 1
    assert capfd.readouterr().err == ''


def test_clock_times_need_no_worker():
    with verifier('no_such_module:compare') as checker:
        pairs = [
            (rf'\boxed{{{hour}:{minute}}}', f'12:{other}')
            for hour in range(1, 11)
            for minute, other in (('00', '00'), ('30', '45'))
        ]
        assert checker.check(pairs) == [Outcome.WRONG] * 20


@pytest.mark.slow
def test_threads_share_no_worker_and_a_hang_ends_only_its_pair():
    results = {}

    def check(k):
        with verify.Verifier(num_workers=1, timeout_s=1.0) as checker:
            pairs = [(r'\boxed{0<x<12.5}', '(0,12.5)'), (r'\boxed{9^{9^{9}}}', '7')]
            results[k] = checker.check(pairs)

    threads = [threading.Thread(target=check, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {k: [Outcome.RIGHT, Outcome.TIMEOUT] for k in range(2)}


def test_the_pool_has_a_worker_for_each_core_by_default(comparators):
    pairs = [(f'#### a < {k}', 'a > 1') for k in range(20)]
    with verify.Verifier(comparator=comparators('compare_oddly')) as checker:
        checker.check(pairs)
        assert len(checker._idle) == min(verify.available_cores(), len(pairs))
        checker.close()
        checker.configure(num_workers=1, timeout_s=1.0)
        checker.check([(f'#### a < {k}', 'a > 2') for k in range(9)])
        assert len(checker._idle) == 1


def test_what_a_worker_decided_is_kept(comparators):
    pairs = [('#### a < 1', 'a > 1'), (r'#### \die < 1', 'a > 1')]
    with verifier(comparators('compare_oddly'), num_workers=1) as checker:
        assert checker.check(pairs) == [Outcome.RIGHT, Outcome.ERROR]
        before = checker.totals()['algebra']
        assert checker.check(pairs) == [Outcome.RIGHT, Outcome.ERROR]
        assert checker.totals()['algebra'] == before + 1  # an error is tried again


def test_figures_count_pairs_and_doubts():
    with verifier('no_such_module:compare') as checker:
        assert verify.figures(checker.totals()) == {}
        checker.check([('#### 7', '7'), ('#### (1,234)', '1234'), ('none', '7'), ('#### 8', '7')])
        figures = verify.figures(checker.totals())
        before = checker.totals()
        checker.check([('#### 7', '7')])
        later = verify.figures(checker.totals() - before)
    assert figures.pop('pairs_per_s') > 0 and later['pairs'] == 1
    assert figures == {'pairs': 4, 'algebra': 0, 'unsure': 0.25, 'timeout': 0, 'error': 0}


def test_only_the_markers_of_a_check_count():
    with verifier('no_such_module:compare') as checker:
        pairs = [('The answer is 7', '7'), ('#### 7', '7')]
        assert checker.check(pairs, ['hashes']) == [Outcome.NO_ANSWER, Outcome.RIGHT]


def test_workers_live_on_between_checks_and_end_with_the_verifier(comparators, pids):
    with verifier(comparators('process'), num_workers=1) as checker:
        for index in range(3):
            checker.check([(f'#### a < {index}', 'b > 1')])
    (pid,) = set(pids())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_equal_pairs_are_compared_once_and_counted_each(comparators, pids):
    with verifier(comparators('process'), num_workers=1) as checker:
        assert checker.check([('#### a < 1', 'b > 1')] * 4) == [Outcome.RIGHT] * 4
        assert checker.counts == {Outcome.RIGHT: 4}
    assert len(pids()) == 1


def test_workers_that_cannot_start_are_a_loud_failure():
    with verifier('no_such_module:compare') as checker, pytest.raises(RuntimeError, match='start'):
        checker.check([('#### a < 1', 'b > 1')])


def test_no_worker_starts_for_what_needs_none():
    with verifier('no_such_module:compare') as checker:
        assert checker.check([('#### 7', '7'), ('#### 8', '7'), ('7', '7')]) == [
            Outcome.RIGHT,
            Outcome.WRONG,
            Outcome.NO_ANSWER,
        ]


@pytest.mark.parametrize(
    'settings', [{'num_workers': 0, 'timeout_s': 1.0}, {'num_workers': 1, 'timeout_s': 0.0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match='> 0'):
        verify.Verifier(**settings)


HOSTILE = [
    r'2^{2^{2^{2^{2^{2}}}}}',
    r'\sqrt{' * 300 + '2' + '}' * 300,
    r'\frac{1}{' * 100 + '2' + '}' * 100,
    '{' * 500 + '7' + '}' * 500,
    r'\left(' * 300 + '7' + r'\right)' * 300,
    '9' * 990 + '!',
    r'\frac{1}{0}',
    '1/0 + 7',
    '1e999',
    '-1e999 + x',
    '\u0667',
    '\u0667 + \uff10',
    '7\u0000',
    '\U0001d7df',
    'x' * 900,
    r'\begin{pmatrix}' + '1&' * 200 + r'1\end{pmatrix}',
    r'\text{' + 'seven' * 150 + '}',
    '7' + '0' * 100_000,
    'x+' * 50_000 + '7',
    r'\frac{7}{1}' * 10_000,
]


@pytest.mark.slow
def test_hostile_answers_are_never_right_and_never_outlast_the_limit():
    with verifier(
        'elenchus.data.grading.algebra:math_equal', num_workers=1, timeout_s=1.0
    ) as checker:
        assert checker.check([('#### 3+4', '7')]) == [Outcome.RIGHT]  # the worker has started
        start = time.monotonic()
        outcomes = checker.check([(f'#### {answer}', '7') for answer in HOSTILE])
        killed = checker.counts[Outcome.TIMEOUT] + checker.counts[Outcome.ERROR]
        took = time.monotonic() - start
    assert Outcome.RIGHT not in outcomes and Outcome.NO_ANSWER not in outcomes
    assert took < verify.PATIENCE * 1.0 * len(HOSTILE) + verify.STARTUP_S * killed
