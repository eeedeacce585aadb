"""Critique records: the data card counts them, and conversion between formats keeps them."""

import dataclasses
import json
import random

import pytest

from elenchus.data.critiques import conversion, file_summary, mistakes, oracle, record_files
from elenchus.data.critiques.record_files import CritiqueRecord
from elenchus.data.grading import verify
from elenchus.data.lab import forms

STEP = 'Step sentence: {}\nCorrectness of the step: {}\nExplanation: so\n\n'
FINAL = 'Correctness of the final answer: {}\nExplanation: so'
RESPONSE = "Let's go:\n48/2 = 24\n48+25 = 73\nThe answer is 73."


def make_record(*verdicts, final, **fields):
    """Makes a record whose critique gives these verdicts."""
    critique = ''.join(STEP.format(i, verdict) for i, verdict in enumerate(verdicts))
    known = {
        'question': 'How many?',
        'response': RESPONSE,
        'critique': critique + FINAL.format(final),
    }
    return record_files.from_fields(known | fields)


def lab_record(index, kind):
    """Makes a record of a generated attempt, with a mistake of this kind if it is not None."""
    problem = forms.generate_problem(seed=0, split='train', index=index)
    rng, lines = random.Random(index), problem.solution.split('\n')
    attempt, location = problem.solution, None
    if kind is not None:
        places = {
            i: mistakes.insert(problem, lines, i, kind=kind, rng=rng) for i in range(len(lines))
        }
        location, prefix = next((i, prefix) for i, prefix in places.items() if prefix)
        attempt = '\n'.join([*prefix, *lines[location + 1 :]])
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
    with verify.Verifier(num_workers=1, timeout_s=5.0) as opened:
        yield opened


def card(records, verifier, answers=None):
    return file_summary.summarise(records, answers=answers or {}, verifier=verifier)


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
def test_forms_are_distinguished(verifier, verdicts, form):
    assert card([make_record(*verdicts, final='Wrong')], verifier)['form'] == f'{form}: 1 (100.0 %)'


def test_unreadable_verdicts_are_counted_and_never_taken_as_right(verifier):
    records = [
        make_record('Correct', 'Correct', final='Correct'),
        make_record('Correct', 'Sort of', final='Wrong'),
        make_record('Correct', 'Wrong', final=''),
    ]
    figures = card(records, verifier, {'How many?': '73'})
    assert figures['final verdict readable'] == '2 of 3 (66.7 %)'
    assert figures['every verdict readable'] == '1 of 3 (33.3 %)'
    assert figures['unreadable in records'] == '2, 3'
    assert figures['step verdicts'].split('\n')[0] == 'correct: 4 (66.7 %)'
    assert figures['final verdict is true'] == '1 of 3 (33.3 %)'


def test_attempts_and_refinements_are_checked_where_the_answer_is_known(verifier):
    records = [
        make_record('Wrong', final='Wrong', refinement='The answer is 72.'),
        make_record('Wrong', final='Correct', question='Another?', refinement='The answer is 72.'),
        make_record('Wrong', final='Wrong', response='No idea.', question=' How\nmany? '),
    ]
    figures = card(records, verifier, {'How many?': '72'})
    assert figures['different questions'] == '2'
    assert figures['reference answer known'] == '2 of 3 (66.7 %)'
    assert figures['attempts, by reference'] == 'wrong: 1 (50.0 %)\nno_answer: 1 (50.0 %)'
    assert figures['refinements, by reference'] == 'right: 1 (100.0 %)'
    assert figures['final verdict is true'] == '2 of 2 (100.0 %)'


def test_generated_problems_know_their_answers(verifier):
    records = [lab_record(4, None), lab_record(3, 'operation'), lab_record(9, 'target')]
    figures = card(records, verifier)
    assert (
        figures['reference answer known'] == figures['final verdict readable'] == '3 of 3 (100.0 %)'
    )
    assert figures['refinements, by reference'] == 'right: 3 (100.0 %)'
    assert figures['construction'] == 'RG3: 2 (66.7 %)\nRG1: 1 (33.3 %)'
    assert 'operation: 1 (33.3 %)' in figures['kind'] and 'unknown: 1 (33.3 %)' in figures['kind']
    assert figures['location known'] == '2 of 3 (66.7 %)'
    assert figures['sampled refinements right'] == '9 of 12 (75.0 %)'


def test_figures_that_count_nothing_are_empty(verifier):
    figures = card([make_record('Wrong', final='Wrong')], verifier)
    for name in ('attempts, by reference', 'final verdict is true', 'sampled refinements right'):
        assert figures[name] == ''


def test_reference_answers_are_read_from_solutions_too(tmp_path):
    file = tmp_path / 'problems.jsonl'
    lines = [
        {'question': 'How\nmany?', 'answer': '48+24 = <<48+24=72>>72\n#### 1,072'},
        {'question': 'Who?', 'answer': 'Ann'},
    ]
    file.write_text('\n'.join(map(json.dumps, lines)))
    assert file_summary.reference_answers([str(file)]) == {'How many?': '1,072', 'Who?': 'Ann'}


def test_conversion_in_both_directions_keeps_the_records(tmp_path):
    records = [
        lab_record(4, None),
        make_record('Wrong', final='Wrong', refinement='The answer is 72.'),
    ]
    first, released, back = (str(tmp_path / name) for name in ('a.jsonl', 'a.json', 'back.jsonl'))
    record_files.write_jsonl(first, records)
    assert conversion.convert(first, released, form=None) == f'2 records: {first} -> {released}'
    conversion.convert(released, back, form=None)
    names = ('question', 'response', 'critique', 'refinement')
    for was, now in zip(records, record_files.read(back), strict=True):
        assert all(getattr(was, name) == getattr(now, name) for name in names)
    conversion.convert(first, str(tmp_path / 'data'), form=None)
    conversion.convert(str(tmp_path / 'data'), str(tmp_path / 'b.txt'), form='jsonl')
    assert record_files.read(tmp_path / 'b.txt') == records


@pytest.mark.parametrize(
    ('source', 'target', 'message'),
    [
        ('a.jsonl', 'a.jsno', "a.jsno: unknown ending .* nearest: '.json'"),
        ('a.jsonl', 'a.jsonl', 'into itself'),
        ('data', 'data2', 'data is already a dataset'),
        ('b.jsonl', 'b.json', r'file not found: .*b.jsonl; did you mean .*a\.jsonl'),
        ('a.jsonl', 'a.json', 'record 1: the released form needs a refinement'),
    ],
)
def test_impossible_conversions_are_refused(tmp_path, source, target, message):
    record_files.write_jsonl(tmp_path / 'a.jsonl', [make_record('Wrong', final='Wrong')])
    conversion.convert(str(tmp_path / 'a.jsonl'), str(tmp_path / 'data'), form=None)
    with pytest.raises(ValueError, match=message):
        conversion.convert(str(tmp_path / source), str(tmp_path / target), form=None)


def test_a_question_that_is_none_of_the_lab_has_no_known_answer(verifier):
    record = record_files.from_fields(
        {'question': 'Why?', 'response': '#### 7', 'critique': 'x', 'problem_id': 'lab/mine'}
    )
    assert card([record], verifier)['reference answer known'] == '0 of 1 (0.0 %)'


def test_real_records_have_the_measured_figures(shared_data):
    paths = [str(shared_data / 'mathcritique' / f'{name}.json') for name in ('gsm8k', 'math')]
    problem_paths = [str(shared_data / 'gsm8k' / 'train.jsonl')]
    table = file_summary.compare_files(paths, problem_paths=problem_paths)
    names, gsm8k, math = (list(column.cells) for column in table.columns)
    figures = {name: values for name, *values in zip(names, gsm8k, math, strict=True)}
    assert figures['final verdict readable'] == ['50 of 50 (100.0 %)'] * 2
    assert figures['every verdict readable'] == ['50 of 50 (100.0 %)', '49 of 50 (98.0 %)']
    assert figures['form'] == ['full pass: 50 (100.0 %)'] * 2
    assert figures['attempts, by reference'][0] == 'wrong: 48 (96.0 %)\nno_answer: 2 (4.0 %)'
    assert figures['refinements, by reference'] == ['right: 50 (100.0 %)', '']
    assert figures['final verdict is true'] == ['49 of 50 (98.0 %)', '']


COMMANDS = [
    (['inspect', 'a.jsonl'], 0, 'final verdict readable'),
    (['convert', 'a.jsonl', 'b', '--to=jsonl'], 0, '1 records: a.jsonl -> b'),
    (
        ['inpsect', 'a.jsonl'],
        2,
        "error: unknown command 'inpsect'; use inspect or convert; nearest",
    ),
    (['inspect'], 2, 'error: inspect needs one FILE or more'),
    (['convert', 'a.jsonl'], 2, 'error: convert needs IN and OUT'),
    (
        ['inspect', 'bad.jsonl'],
        2,
        'error: bad.jsonl:1: the fields (none) are those of no known form',
    ),
    (['inspect', 'evil'], 2, "features.json: feature class 'evil.payload.X' is not one of"),
    (['convert', 'evil', 'c.jsonl'], 2, "features.json: feature class 'evil.payload.X'"),
]
"""Arguments, exit code, and words of what is printed."""


def test_the_command_line(tmp_path, fork):
    record_files.write_jsonl(tmp_path / 'a.jsonl', [make_record('Wrong', final='Wrong')])
    (tmp_path / 'bad.jsonl').write_text('{}\n')
    write_evil_dataset(tmp_path)
    module = 'elenchus.scripts.tools.critique_records'
    for arguments, code, message in COMMANDS:
        result = fork(module, tmp_path, arguments)
        assert result.code == code, (arguments, result)
        assert message in (result.errors if code else result.output), (arguments, result)
        assert result.errors.count('\n') == (1 if code else 0), (arguments, result)
    assert not (tmp_path / 'evil' / 'OWNED').exists()


def write_evil_dataset(folder):
    """Writes a dataset whose features.json names a module beside it, which leaves a mark."""
    conversion.convert(str(folder / 'a.jsonl'), str(folder / 'evil'), form=None)
    payload = 'import pathlib\npathlib.Path(__file__).with_name("OWNED").touch()\nclass X: ...\n'
    (folder / 'evil' / 'payload.py').write_text(payload)
    (path,) = (folder / 'evil').rglob('features.json')
    features = json.loads(path.read_text())
    path.write_text(json.dumps(features | {'pythonClassName': 'evil.payload.X'}))


def test_explicit_steps_are_preserved(tmp_path):
    record = dataclasses.replace(make_record('Wrong', final='Wrong'), steps=('all at once',))
    record_files.write_jsonl(tmp_path / 'a.jsonl', [record])
    assert record_files.read(tmp_path / 'a.jsonl') == [record]
