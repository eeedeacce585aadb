"""The data card counts what files hold, and conversion keeps it."""

import dataclasses
import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

from elenchus.data.critiques import mistakes, oracle, record_files
from elenchus.data.critiques.record_files import CritiqueRecord
from elenchus.data.grading import verify
from elenchus.data.lab import task
from elenchus.scripts.tools import critique_records

ROOT = pathlib.Path(__file__).parents[2]
STEP = 'Step sentence: {}\nCorrectness of the step: {}\nExplanation: so\n\n'
FINAL = 'Correctness of the final answer: {}\nExplanation: so'
RESPONSE = "Let's go:\n48/2 = 24\n48+25 = 73\nThe answer is 73."


def made(*verdicts, final, **fields):
    """A record whose critique gives these verdicts."""
    critique = ''.join(STEP.format(i, verdict) for i, verdict in enumerate(verdicts))
    known = {
        'question': 'How many?',
        'response': RESPONSE,
        'critique': critique + FINAL.format(final),
    }
    return record_files.from_fields(known | fields)


def lab_record(index, kind):
    """A generated attempt with a mistake of a kind, or none, and its true critique."""
    problem = task.generate_problem(seed=0, split='train', index=index)
    rng, lines = random.Random(index), problem.solution.split('\n')
    attempt, location = problem.solution, None
    if kind is not None:
        places = {
            i: mistakes.insert(problem, lines, i, kind=kind, rng=rng) for i in range(len(lines))
        }
        location, begun = next((i, begun) for i, begun in places.items() if begun)
        attempt = '\n'.join([*begun, *lines[location + 1 :]])
    path = oracle.ConstructedAttempt(problem, attempt, 'RG3', location, kind)
    (critique,) = oracle.oracle([path])
    return CritiqueRecord(
        question=problem.question,
        response=attempt,
        steps=tuple(attempt.split('\n')),
        construction='RG3' if kind else 'RG1',
        location=location,
        kind=kind,
        critique=critique,
        refinement_successes=3,
        refinements=4,
        refinement=problem.solution,
        problem_id=problem.id,
        level=problem.level,
        correct=kind is None,
    )


@pytest.fixture(scope='module')
def verifier():
    with verify.Verifier(num_workers=1, timeout_s=5.0) as made_verifier:
        yield made_verifier


def card(found, verifier, answers=None):
    return critique_records.card(found, answers=answers or {}, verifier=verifier)


@pytest.mark.parametrize(
    ('verdicts', 'form'),
    [
        (('Correct', 'Correct'), 'full pass'),
        (('Wrong', 'Wrong'), 'full pass'),
        (('Correct', 'Wrong'), 'full pass'),  # the mistake is in the last step
        (('Wrong',), 'stops at first error'),
        (('Correct',), 'no error, not every step'),
    ],
)
def test_forms_are_told_apart(verifier, verdicts, form):
    assert card([made(*verdicts, final='Wrong')], verifier)['form'] == f'{form}: 1 (100.0 %)'


def test_unreadable_verdicts_are_counted_and_never_taken_as_right(verifier):
    found = [
        made('Correct', 'Correct', final='Correct'),
        made('Correct', 'Sort of', final='Wrong'),
        made('Correct', 'Wrong', final=''),
    ]
    told = card(found, verifier, {'How many?': '73'})
    assert told['final verdict readable'] == '2 of 3 (66.7 %)'
    assert told['every verdict readable'] == '1 of 3 (33.3 %)'
    assert told['unreadable in records'] == '2, 3'
    assert told['step verdicts'].split('\n')[0] == 'correct: 4 (66.7 %)'
    assert told['final verdict is true'] == '1 of 3 (33.3 %)'


def test_attempts_and_refinements_are_checked_where_the_answer_is_known(verifier):
    found = [
        made('Wrong', final='Wrong', refinement='The answer is 72.'),
        made('Wrong', final='Correct', question='Another?', refinement='The answer is 72.'),
        made('Wrong', final='Wrong', response='No idea.', question=' How\nmany? '),
    ]
    told = card(found, verifier, {'How many?': '72'})
    assert told['different questions'] == '2'
    assert told['reference answer known'] == '2 of 3 (66.7 %)'
    assert told['attempts, by reference'] == 'wrong: 1 (50.0 %)\nno_answer: 1 (50.0 %)'
    assert told['refinements, by reference'] == 'right: 1 (100.0 %)'
    assert told['final verdict is true'] == '2 of 2 (100.0 %)'


def test_generated_problems_know_their_answers(verifier):
    found = [lab_record(4, None), lab_record(3, 'operation'), lab_record(9, 'target')]
    told = card(found, verifier)
    assert told['reference answer known'] == told['final verdict readable'] == '3 of 3 (100.0 %)'
    assert told['refinements, by reference'] == 'right: 3 (100.0 %)'
    assert told['construction'] == 'RG3: 2 (66.7 %)\nRG1: 1 (33.3 %)'
    assert 'operation: 1 (33.3 %)' in told['kind'] and 'unknown: 1 (33.3 %)' in told['kind']
    assert told['location known'] == '2 of 3 (66.7 %)'
    assert told['sampled refinements right'] == '9 of 12 (75.0 %)'


def test_figures_of_nothing_are_empty(verifier):
    told = card([made('Wrong', final='Wrong')], verifier)
    for name in ('attempts, by reference', 'final verdict is true', 'sampled refinements right'):
        assert told[name] == ''


def test_reference_answers_are_read_from_solutions_too(tmp_path):
    file = tmp_path / 'problems.jsonl'
    lines = [
        {'question': 'How\nmany?', 'answer': '48+24 = <<48+24=72>>72\n#### 1,072'},
        {'question': 'Who?', 'answer': 'Ann'},
    ]
    file.write_text('\n'.join(map(json.dumps, lines)))
    assert critique_records.reference_answers([str(file)]) == {'How many?': '1,072', 'Who?': 'Ann'}


def test_conversion_there_and_back_keeps_the_records(tmp_path):
    found = [lab_record(4, None), made('Wrong', final='Wrong', refinement='The answer is 72.')]
    first, released, back = (str(tmp_path / name) for name in ('a.jsonl', 'a.json', 'back.jsonl'))
    record_files.write_jsonl(first, found)
    assert (
        critique_records.convert(first, released, form=None) == f'2 records: {first} -> {released}'
    )
    critique_records.convert(released, back, form=None)
    names = ('question', 'response', 'critique', 'refinement')
    for was, now in zip(found, record_files.read(back), strict=True):
        assert all(getattr(was, name) == getattr(now, name) for name in names)
    critique_records.convert(first, str(tmp_path / 'data'), form=None)
    critique_records.convert(str(tmp_path / 'data'), str(tmp_path / 'b.txt'), form='jsonl')
    assert record_files.read(tmp_path / 'b.txt') == found


@pytest.mark.parametrize(
    ('source', 'target', 'message'),
    [
        ('a.jsonl', 'a.jsno', "a.jsno: give an ending .* nearest: '.json'"),
        ('a.jsonl', 'a.jsonl', 'into itself'),
        ('data', 'data2', 'data is a dataset already'),
        ('b.jsonl', 'b.json', r'file not found: .*b.jsonl; did you mean .*a\.jsonl'),
        ('a.jsonl', 'a.json', 'record 1: the released form needs a refinement'),
    ],
)
def test_what_cannot_be_converted_is_refused(tmp_path, source, target, message):
    record_files.write_jsonl(tmp_path / 'a.jsonl', [made('Wrong', final='Wrong')])
    critique_records.convert(str(tmp_path / 'a.jsonl'), str(tmp_path / 'data'), form=None)
    with pytest.raises(ValueError, match=message):
        critique_records.convert(str(tmp_path / source), str(tmp_path / target), form=None)


def test_real_records_read_as_measured(shared_data):
    paths = [str(shared_data / 'mathcritique' / f'{name}.json') for name in ('gsm8k', 'math')]
    problem_paths = [str(shared_data / 'gsm8k' / 'train.jsonl')]
    table = critique_records.inspect(paths, problem_paths=problem_paths)
    names, gsm8k, math = (list(column.cells) for column in table.columns)
    told = {name: figures for name, *figures in zip(names, gsm8k, math, strict=True)}
    assert told['final verdict readable'] == ['50 of 50 (100.0 %)'] * 2
    assert told['every verdict readable'] == ['50 of 50 (100.0 %)', '49 of 50 (98.0 %)']
    assert told['form'] == ['full pass: 50 (100.0 %)'] * 2
    assert told['attempts, by reference'][0] == 'wrong: 48 (96.0 %)\nno_answer: 2 (4.0 %)'
    assert told['refinements, by reference'] == ['right: 50 (100.0 %)', '']
    assert told['final verdict is true'] == ['49 of 50 (98.0 %)', '']


@pytest.mark.parametrize(
    ('arguments', 'code', 'told'),
    [
        (['inspect', 'a.jsonl'], 0, 'final verdict readable'),
        (['convert', 'a.jsonl', 'b', '--to=jsonl'], 0, '1 records: a.jsonl -> b'),
        (['inpsect', 'a.jsonl'], 2, "error: 'inpsect' is neither inspect nor convert; nearest"),
        (['inspect'], 2, 'error: inspect needs one FILE or more'),
        (['convert', 'a.jsonl'], 2, 'error: convert needs IN and OUT'),
        (['inspect', 'bad.jsonl'], 2, "error: bad.jsonl:1: missing field 'question'"),
    ],
)
def test_the_command_line(tmp_path, arguments, code, told):
    record_files.write_jsonl(tmp_path / 'a.jsonl', [made('Wrong', final='Wrong')])
    (tmp_path / 'bad.jsonl').write_text('{}\n')
    done = subprocess.run(
        [sys.executable, '-m', 'scripts.tools.critique_records', *arguments],
        cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code
    assert told in (done.stderr if code else done.stdout)
    assert done.stderr.count('\n') == (1 if code else 0)


def test_steps_given_by_hand_are_kept(tmp_path):
    record = dataclasses.replace(made('Wrong', final='Wrong'), steps=('all at once',))
    record_files.write_jsonl(tmp_path / 'a.jsonl', [record])
    assert record_files.read(tmp_path / 'a.jsonl') == [record]
