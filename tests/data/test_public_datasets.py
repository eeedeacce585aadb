"""MATH, SVAMP and ASDiv: fields become problems, and the real files are complete."""

import json
import os
import pathlib

import pytest

from elenchus.data.grading import answers
from elenchus.data.problems import loading, public_datasets
from elenchus.data.records import Problem

REAL = pathlib.Path(
    os.environ.get('ELENCHUS_DATA', pathlib.Path(__file__).parents[3] / 'shared' / 'data')
)


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(record) + '\n' for record in records), encoding='utf-8')
    return path


MATH = {
    'problem': ' What is $x$? ',
    'level': 'Level 4',
    'type': 'Algebra',
    'solution': r'First $\boxed{3}$? No: \boxed{\frac{1}{2}}. The answer is unique.',
}
SVAMP = {
    'Body': 'Ann has 3 pens and buys 2 boxes of 4',
    'Question': 'How many pens has she?',
    'Equation': '( 3.0 + ( 2.0 * 4.0 ) )',
    'Answer': 11.0,
}
ASDIV = {
    'body': 'Ann has 3 nickels.',
    'question': 'How many cents has she?',
    'answer': '15  (cents)',
    'formula': '3 (nickel)*5 (cent/nickel)=15',
}
LINES = {'math': MATH, 'svamp': SVAMP, 'asdiv': ASDIV}


def load_lines(source, tmp_path, records, split='test'):
    write(tmp_path / 'source' / f'{split}.jsonl', records)
    folder, prepared = tmp_path / 'source', tmp_path / 'prepared'
    return list(loading.load(source, split=split, data_dir=prepared, path=folder))


@pytest.mark.parametrize('split', ['train', 'test'])
def test_math_answers_are_boxed_and_levels_numbers(tmp_path, no_network, split):
    (problem,) = load_lines('math', tmp_path, [MATH], split)
    solution = MATH['solution']
    assert problem == Problem(
        f'math/{split}/0', 'What is $x$?', r'\frac{1}{2}', solution, 4, 'math'
    )


def test_math_has_bare_boxes_and_unknown_levels(tmp_path, no_network):
    record = MATH | {'solution': r'So $\boxed 9$.', 'level': 'Level ?'}
    (problem,) = load_lines('math', tmp_path, [record])
    assert (problem.answer, problem.level) == ('9', 0)


def test_svamp_and_asdiv_have_questions_of_two_parts_and_answers_without_units(
    tmp_path, no_network
):
    (svamp,) = load_lines('svamp', tmp_path / 'svamp', [SVAMP])
    assert svamp.question == 'Ann has 3 pens and buys 2 boxes of 4. How many pens has she?'
    assert svamp.solution == '( 3 + ( 2 * 4 ) ) = 11\n#### 11'
    assert (svamp.answer, svamp.level, svamp.id) == ('11', 2, 'svamp/test/0')
    (asdiv,) = load_lines('asdiv', tmp_path / 'asdiv', [ASDIV])
    assert asdiv.question == 'Ann has 3 nickels. How many cents has she?'
    assert asdiv.solution == '3 (nickel)*5 (cent/nickel)=15\n#### 15'
    assert (asdiv.answer, asdiv.level) == ('15', 1)


@pytest.mark.parametrize(
    'source, change, message',
    [
        ('math', {'solution': 'none'}, r"source/test\.jsonl:1: missing \\boxed"),
        ('math', {'level': 'Level 6'}, 'level=6'),
        ('math', {'level': 'hard'}, "level='hard'"),
        ('math', {'level': True}, 'level=True'),
        ('math', {'level': 2.5}, 'level=2.5'),
        ('math', {'solution': r'\boxed{nan}'}, "answer='nan' is no value: no response can meet it"),
        ('svamp', {'Answer': 'eleven'}, "Answer='eleven' is not a number"),
        ('svamp', {'Answer': 'NaN'}, 'not a finite number'),
        ('svamp', {'Answer': True}, 'Answer=True is not a number'),
        ('svamp', {'Question': ' '}, "Question=' ' is empty"),
        ('asdiv', {'answer': None}, 'answer=None is neither text nor a number'),
        ('asdiv', {'answer': ' (cents)'}, 'empty without its unit'),
    ],
)  # fmt: skip
def test_a_malformed_line_is_refused_by_its_place(source, change, message, tmp_path, no_network):
    with pytest.raises(ValueError, match=message):
        load_lines(source, tmp_path, [LINES[source] | change])


def test_a_missing_field_names_the_nearest(tmp_path, no_network):
    record = {('equation' if name == 'Equation' else name): v for name, v in SVAMP.items()}
    with pytest.raises(
        ValueError, match=r"source/test\.jsonl:1: missing field 'Equation'; did you mean 'equation'"
    ):
        load_lines('svamp', tmp_path, [record])


@pytest.mark.parametrize('source', ['math', 'svamp', 'asdiv'])
def test_a_split_that_is_not_published_needs_a_path(source, tmp_path):
    with pytest.raises(
        ValueError, match='folder with train.jsonl, or use one that can be downloaded: test'
    ):
        loading.load(source, split='train', data_dir=tmp_path)
    assert public_datasets.SETS[source].URL.endswith(f'/{source}/')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'source, size',
    [pytest.param('math', 5000, marks=pytest.mark.slow), ('svamp', 1000), ('asdiv', 2215)],
)
def test_real_sets_are_whole_and_their_solutions_end_with_their_answers(
    source, size, tmp_path, no_network
):
    folder = REAL / source
    if not folder.exists():
        pytest.skip(f'{folder} is absent: set ELENCHUS_DATA')
    loaded = list(loading.load(source, split='test', data_dir=tmp_path, path=folder))
    assert len(loaded) == size == len({problem.id for problem in loaded})
    read = answers.boxed if source == 'math' else answers.extract_answer
    assert all(read(problem.solution) == problem.answer for problem in loaded)
    assert all(problem.question.strip() == problem.question for problem in loaded)
    levels = {'math': set(range(1, 6)), 'svamp': {1, 2}, 'asdiv': set(range(1, 9))}
    assert {problem.level for problem in loaded} == levels[source]
    if source == 'svamp':
        assert all(answers.parse_number(problem.answer) is not None for problem in loaded)
