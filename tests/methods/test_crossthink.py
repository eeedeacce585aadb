"""CrossThink: blends of sets by weight, each problem put by its kind."""

import json

import pytest

from elenchus.configs import gsm8k, lab
from elenchus.configs.methods import crossthink
from elenchus.data import records
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.run import problems


def problem(question, answer, source='jsonl'):
    return records.Problem('p', question, answer, '', 0, source)


def settings(folder, **changes):
    """A run on two files of problems, 2 : 1 by default."""
    for name, count in (('a', 12), ('b', 12)):
        rows = [{'id': str(i), 'question': f'{name} {i}?', 'answer': str(i)} for i in range(count)]
        (folder / f'{name}.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    config = gsm8k.get_config('tiny')
    config.data.update(source='jsonl', path=str(folder / 'a.jsonl'), num_train=9, num_test=3)
    config.data.blend = (('jsonl', str(folder / 'b.jsonl'), 0.5),)
    config.update_from_flattened_dict({f'data.{name}': value for name, value in changes.items()})
    return build.build(RunSettings, config)


@pytest.mark.parametrize(
    ('question', 'answer', 'line'),
    [
        ('Which?\n(A) one\n(B) two', 'B', crossthink.CHOICE),
        ('Which?\nA. one\nB. two', '(A)', crossthink.CHOICE),
        ('Which?\nA. one\nB. two', '2', crossthink.OPEN),  # the answer is none of the letters
        ('Name the unit A.', 'A', crossthink.OPEN),
        ('How many?', '7', crossthink.OPEN),
    ],
)
def test_the_template_is_that_of_the_kind(question, answer, line):
    new = crossthink.template(problem(question, answer))
    assert new.question == f'{question}\n{line}'
    assert new == problem(new.question, answer)


def test_problems_of_the_lab_stay_as_they_are():
    assert crossthink.template(problem('q', '1', 'lab')) == problem('q', '1', 'lab')


def test_counts_are_exact_and_all_beginnings_are_blends(tmp_path):
    rows = problems.load_rows(settings(tmp_path), 'train')
    assert [row.problem.question[0] for row in rows] == list('abaabaaba')[: len(rows)]
    assert len({row.problem.id for row in rows}) == 9
    assert [r.problem.id for r in rows if r.problem.question[0] == 'b'] == ['1/0', '1/1', '1/2']
    # Test problems are of the first set alone, behind those that may be trained on.
    tests = problems.load_rows(settings(tmp_path), 'test')
    assert [row.problem.question for row in tests] == ['a 9?', 'a 10?', 'a 11?']


def test_without_a_blend_and_a_rewriting_the_rows_are_those_of_the_file(tmp_path):
    plain = problems.load_rows(settings(tmp_path, blend=()), 'train')
    assert [row.problem.question for row in plain] == [f'a {i}?' for i in range(9)]
    name = 'elenchus.configs.methods.crossthink:template'
    new = problems.load_rows(settings(tmp_path, blend=(), rewrite=name), 'train')
    assert [row.problem for row in new] == [crossthink.template(row.problem) for row in plain]
    assert [row.place for row in new] == [row.place for row in plain]


def test_a_set_that_is_too_small_is_named(tmp_path):
    with pytest.raises(ValueError, match='data.num_train=40 takes 27 by data.blend') as error:
        problems.load_rows(settings(tmp_path, num_train=40), 'train')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'returned', ['None', "'text'", 'replace(p, id="x")', 'replace(p, answer="")']
)
def test_what_is_no_problem_is_an_error_of_one_line(tmp_path, returned):
    path = tmp_path / 'mine.py'
    path.write_text(f'from dataclasses import replace\n\n\ndef mine(p):\n    return {returned}\n')
    with pytest.raises(ValueError, match='it must return the problem') as error:
        problems.load_rows(settings(tmp_path, rewrite=f'{path}:mine'), 'train')
    assert 'a.jsonl:1: data.rewrite=' in str(error.value) and '\n' not in str(error.value)


def test_the_lab_takes_no_other_set():
    config = lab.get_config('default')
    config.data.blend = (('gsm8k', '', 1.0),)
    with pytest.raises(ValueError, match="data.blend=.* must be \\(\\) with data.source='lab'"):
        build.build(RunSettings, config)


def test_a_question_of_the_lab_that_cannot_be_solved_names_the_function(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        'import dataclasses\n\n\n'
        'def backwards(problem):\n'
        "    *facts, asked = problem.question.split(' ; ')\n"
        "    return dataclasses.replace(problem, question=' ; '.join([*facts[::-1], asked]))\n"
    )
    config = lab.get_config('smoke')
    config.data.update({'data_dir': str(tmp_path / 'data'), 'rewrite': f'{path}:backwards'})
    with pytest.raises(ValueError, match=r'mine.py:backwards.*which the lab cannot solve') as error:
        problems.load_rows(build.build(RunSettings, config), 'train')
    assert '\n' not in str(error.value)
