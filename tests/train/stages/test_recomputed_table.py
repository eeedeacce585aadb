"""The table of `evaluate`, computed again from the episode files by other code.

Nothing of sampling.metrics or of the grading of answers is used here: records are read as JSON,
tokens are words of the vocabulary, answers are found by a regular expression, and shares are exact
fractions.
"""

import collections
import itertools
import json
import re
from fractions import Fraction

import pytest
from array_record.python import array_record_module

from tests.support.fake_engine import TOKENIZER
from tests.train.stages.test_evaluate import PROBLEMS, Evaluation

NUM_ATTEMPTS = 3


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """(summary as JSON, groups of records by question) of a small evaluation."""
    workdir = tmp_path_factory.mktemp('run')
    folder = workdir / 'stage'
    folder.mkdir()
    summary = Evaluation(workdir).evaluate(folder)
    records = []
    for path in sorted((folder / 'episodes').glob('*.array_record')):
        reader = array_record_module.ArrayRecordReader(str(path))
        records += [json.loads(record) for record in reader.read_all()]
        reader.close()
    groups = [records[i : i + NUM_ATTEMPTS] for i in range(0, len(records), NUM_ATTEMPTS)]
    assert len(groups) == len(PROBLEMS)
    return json.loads(json.dumps(summary)), groups


def turns_of(record, role):
    return [turn for turn in record['turns'] if turn['role'] == role]


def answer_of(turn):
    """The number after the answer mark, if the turn ends by itself."""
    *words, last = (TOKENIZER.decode([token]).strip() for token in turn['tokens'])
    if turn['tokens'][-1] != TOKENIZER.eos_id:
        return None
    number = re.search(r'#### (\d+) *$', ' '.join(words))
    return number and number[1]


def first_answer(record):
    (attempt,) = turns_of(record, 'attempt')
    return answer_of(attempt)


def final_answer(record):
    refinements = turns_of(record, 'refinement')
    return answer_of(refinements[-1]) if refinements else first_answer(record)


def vote(answers, truth):
    """The chance that a majority is right, if a tie is decided by lot."""
    counts = collections.Counter(answer for answer in answers if answer is not None)
    winners = [answer for answer, count in counts.items() if count == max(counts.values())]
    return Fraction(winners.count(truth), len(winners)) if winners else Fraction(0)


def majority(group, truth, *, size, answer):
    subsets = list(itertools.combinations([answer(record) for record in group], size))
    return sum((vote(subset, truth) for subset in subsets), Fraction(0)) / len(subsets)


def best_by_weakest_step(group, truth):
    """The answer of the attempt whose worst step has the highest score, the first of equals."""
    best = None
    for record in group:
        (attempt,) = turns_of(record, 'attempt')
        weakest = min(step.get('score') or 0.0 for step in attempt['steps'])
        if answer_of(attempt) is not None and (best is None or weakest > best[0]):
            best = weakest, answer_of(attempt)
    return Fraction(best is not None and best[1] == truth)


def by_level(values):
    levels = collections.defaultdict(list)
    for problem, value in zip(PROBLEMS, values, strict=True):
        levels['all'].append(value)
        levels[str(problem.level)].append(value)
    return {level: float(sum(some) / len(some)) for level, some in levels.items()}


def recomputed(groups, compute):
    pairs = zip(groups, PROBLEMS, strict=True)
    return by_level([compute(group, problem.answer) for group, problem in pairs])


def means(levels):
    return {level: mean for level, (mean, _, _) in levels.items()}


@pytest.mark.parametrize('size', [1, 2, 3])
def test_attempts_refinements_and_majorities(run, size):
    summary, groups = run
    names = {first_answer: 'majority', final_answer: 'refined majority'}
    single = {first_answer: 'attempt', final_answer: 'refined'}
    for answer, name in names.items():
        actual = summary['accuracy'][single[answer] if size == 1 else f'{name}@{size}']
        expected = recomputed(groups, lambda g, t, a=answer: majority(g, t, size=size, answer=a))
        assert means(actual) == pytest.approx(expected, abs=1e-12), name
        # An attempt that is always or never right would show nothing.
        assert 0 < expected['all'] < 1


def test_coverage_and_best_of_n(run):
    summary, groups = run
    solved = recomputed(groups, lambda g, t: Fraction(t in [first_answer(r) for r in g]))
    assert means(summary['accuracy']['pass@3']) == pytest.approx(solved, abs=1e-12)
    chosen = recomputed(groups, best_by_weakest_step)
    point = summary['curves']['best of n (min)'][-1]
    assert point['size'] == NUM_ATTEMPTS
    assert means(point['accuracy']) == pytest.approx(chosen, abs=1e-12)
    assert solved['all'] > chosen['all'] > 0


def test_differences_and_tokens_an_answer(run):
    summary, groups = run
    attempt, refined = (
        recomputed(groups, lambda g, t, a=a: majority(g, t, size=1, answer=a))
        for a in (first_answer, final_answer)
    )
    differences = {level: refined[level] - attempt[level] for level in attempt}
    assert means(summary['difference']['refined-attempt']) == pytest.approx(differences, abs=1e-12)
    sampled = collections.Counter()
    for record in itertools.chain.from_iterable(groups):
        for turn in record['turns']:
            sampled[turn['role']] += len(turn['tokens']) if turn.get('logprobs') else 0
    count = NUM_ATTEMPTS * len(groups)
    tokens = summary['tokens_per_answer']
    assert tokens['attempt'] == pytest.approx(sampled['attempt'] / count, abs=1e-9)
    assert tokens['refined'] == pytest.approx(sampled.total() / count, abs=1e-9)
    assert tokens['majority@3'] == pytest.approx(3 * tokens['attempt'], abs=1e-9)
