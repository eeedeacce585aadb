"""Files of users: encodings, line ends, values that JSON lacks or that no problem has."""

import json
import re

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data.critiques import record_files
from elenchus.data.files import jsonl, row_files
from elenchus.data.problems import loading
from elenchus.data.text import tokenizer_training

GOOD = json.dumps({'question': '2 + 2?', 'answer': '4'})
RECORD = json.dumps({'question': '2 + 2?', 'response': '4', 'critique': 'x'})
GSM8K = json.dumps({'question': '2 + 2?', 'answer': '2 + 2 = 4\n#### 4'})


def read_gsm8k(path):
    folder = path.parent
    loaded = loading.load('gsm8k', split='train', data_dir=folder / 'prepared', path=folder)
    return list(loaded)


READERS = {
    'problems': (loading.read_problems, GOOD),
    'records': (record_files.read, RECORD),
    'gsm8k': (read_gsm8k, GSM8K),
    'tokenizer': (lambda path: list(tokenizer_training.read_texts(path)), GSM8K),
}
"""Every door through which a user's rows come in, with a good row of each."""


@pytest.fixture(params=READERS)
def door(request, tmp_path):
    """Returns (write bytes and read them, a good row)."""
    read, row = READERS[request.param]

    def read_bytes(raw):
        path = tmp_path / 'train.jsonl'
        path.write_bytes(raw)
        return read(path)

    return read_bytes, row


@pytest.mark.parametrize(
    'write, count',
    [
        (lambda row: f'\ufeff{row}'.encode(), 1),
        (lambda row: f'\ufeff{row}\n\ufeff{row}'.encode(), 2),  # files that were joined
        (lambda row: f'{row}\r\n{row}\r\n'.encode(), 2),
        (lambda row: f'{row}\r{row}\r'.encode(), 2),
        (lambda row: f'\n{row}\n \n{row}\n\n'.encode(), 2),
        (lambda row: row.replace('2 + 2?', '2\u2028\u0085+ 2?').encode(), 1),
        (lambda row: row.replace('2 + 2?', r'2\u0000+ 2?').encode(), 1),
        (lambda row: row.replace('2 + 2?', r'\ud83d\ude00 2 + 2?').encode(), 1),
    ],
)
def test_text_files_as_editors_write_them_are_read(door, write, count):
    read, row = door
    per_row = len(read(row.encode()))
    assert len(read(write(row))) == count * per_row


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-16-le', 'utf-16-be', 'utf-32', 'utf-32-le'])
def test_other_unicode_encodings_are_refused_with_the_file(door, encoding):
    read, row = door
    with pytest.raises(ValueError, match=r'train\.jsonl\S* .*UTF-8') as error:
        read(row.encode(encoding))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('line', [1, 2, 3])
@pytest.mark.parametrize('raw', [b'caf\xe9', b'\x93quoted\x94', b'\xed\xa0\xbd', b'\xf0\x9f\x98'])
def test_bytes_that_are_not_utf8_are_refused_with_file_and_line(door, raw, line):
    read, row = door
    bad = row.encode().replace(b'2 + 2?', raw)
    lines = [row.encode()] * 3
    lines[line - 1] = bad
    for end in (b'\n', b'\r\n', b'\r'):
        with pytest.raises(ValueError, match=rf'train\.jsonl:{line}: .*not UTF-8'):
            read(end.join(lines))


@pytest.mark.parametrize(
    'text, message',
    [
        (r'"\ud83d"', r'half a surrogate pair, \\ud83d, at character 1'),
        (r'"a\ude00b"', r'half a surrogate pair, \\ude00, at character 2'),
        (r'"\ude00\ud83d"', r'half a surrogate pair'),
        (r'["x", {"y": "\ud83d"}]', 'half a surrogate pair'),
        (r'{"\ud83d": 1}', 'half a surrogate pair'),
        ('NaN', 'NaN'),
        ('Infinity', 'Infinity'),
        ('-Infinity', '-Infinity'),
        ('[1, NaN]', 'NaN'),
        ('1e999', 'not finite'),
        ('{"a": 1, "a": 2}', "field 'a' twice"),
    ],
)
@pytest.mark.parametrize('field', ['extra', 'question'])
def test_values_that_are_no_data_are_refused_with_file_and_line(door, text, message, field):
    read, row = door
    rows = [row, row[:-1] + f', "{field}": {text}}}']
    if field == 'question':
        rows[1] = '{' + f'"question": {text}, ' + row[1:].replace('"question"', '"other"')
    with pytest.raises(ValueError, match=rf'train\.jsonl:2: .*{message}'):
        read('\n'.join(rows).encode())
    with pytest.raises(ValueError, match=rf'train\.jsonl, record 2: .*{message}'):
        read(f'[{",".join(rows)}]'.encode())


def test_a_field_that_occurs_twice_is_refused(door):
    read, row = door
    with pytest.raises(ValueError, match=r"train\.jsonl:1: .*field 'question' twice"):
        read((row[:-1] + ', "question": "3 + 3?"}').encode())


@pytest.mark.parametrize(
    'row', ['{"a": 1', '[1]', '7', 'null', '{"a": "\t"}', '{"a": 1} {"b": 2}', '{"a":' * 100_000]
)
def test_lines_that_are_no_objects_are_refused(door, row):
    read, good = door
    with pytest.raises(ValueError, match=r'train\.jsonl:2: ') as error:
        read(f'{good}\n{row}'.encode())
    assert len(str(error.value)) < 400


@hypothesis.given(raw=st.binary(max_size=80))
def test_any_bytes_give_rows_or_one_line(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp('rows') / 'train.jsonl'
    path.write_bytes(raw)
    try:
        rows = row_files.read_rows(path)
    except ValueError as error:
        assert str(error).startswith(str(path))
        assert len(str(error).splitlines()) == 1
    else:
        assert all(isinstance(row.value, dict) for row in rows)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@hypothesis.settings(max_examples=200)
@hypothesis.given(
    field=st.sampled_from(['question', 'answer', 'solution', 'level', 'id']), value=json_values
)
def test_any_value_of_a_field_gives_a_problem_of_texts_or_one_line(tmp_path_factory, field, value):
    path = tmp_path_factory.mktemp('rows') / 'train.jsonl'
    path.write_text(json.dumps({'question': 'q', 'answer': '1'} | {field: value}))
    try:
        (problem,) = loading.read_problems(path)
    except ValueError as error:
        assert str(error).startswith(f'{path}:1: ')
        assert field in str(error) and len(str(error).splitlines()) == 1
    else:
        problem_texts = (problem.id, problem.question, problem.answer, problem.solution)
        ''.join(problem_texts).encode()  # no half pairs
        assert problem.question.strip() and problem.answer.strip() and problem.level >= 0


@pytest.mark.parametrize(
    'answer, text',
    [
        (7, '7'),
        (7.0, '7'),
        (-0.0, '0'),
        (0.5, '0.5'),
        (1e22, '1' + '0' * 22),
        (1e-7, '0.0000001'),
        (10**30, '1' + '0' * 30),
        ('7.50', '7.50'),
        (' 7 ', '7'),
        ('Ann', 'Ann'),
    ],
)
def test_answers_are_texts_or_numbers(tmp_path, answer, text):
    path = tmp_path / 'train.jsonl'
    path.write_text(json.dumps({'question': 'q', 'answer': answer}))
    assert loading.read_problems(path)[0].answer == text


@pytest.mark.parametrize(
    'answer',
    ['', ' ', '\n', 'nan', 'NaN', 'inf', '-inf', 'Infinity', r'\boxed{}', '####', '#### ',
     r'\frac{1}{2', 'Two lines\nwithout a marker', None, True, False, ['7'], {'a': 7}],
)  # fmt: skip
def test_answers_that_no_response_can_meet_are_refused(tmp_path, answer):
    path = tmp_path / 'train.jsonl'
    path.write_text(f'{GOOD}\n' + json.dumps({'question': 'q', 'answer': answer}))
    with pytest.raises(ValueError, match=rf'^{re.escape(str(path))}:2: answer='):
        loading.read_problems(path)


@pytest.mark.parametrize(
    'answer, solution',
    [
        ('2+5=<<2+5=7>>7\n#### 7', '2+5=<<2+5=7>>7\n#### 7'),
        ('#### 7', ''),
        ('The answer is 7.', ''),
        (r'$\boxed{7}$', ''),
        ('So it is\n\\boxed{7}', 'So it is\n\\boxed{7}'),
    ],
)
def test_a_solution_as_answer_is_read_by_its_marker(tmp_path, answer, solution):
    path = tmp_path / 'train.jsonl'
    rows = [{'question': 'q', 'answer': answer}, {'question': 'q', 'answer': '7'}]
    path.write_text('\n'.join(map(json.dumps, rows)))
    marked, bare = loading.read_placed_problems([path])
    assert (marked.problem.answer, marked.problem.solution) == ('7', solution)
    assert (marked.answer_was_marked, bare.answer_was_marked) == (True, False)
    own = rows[0] | {'solution': 'mine'}
    path.write_text(json.dumps(own))
    assert loading.read_problems(path)[0].solution == 'mine'


def test_line_ends_of_texts_are_those_of_unix(tmp_path):
    path = tmp_path / 'train.jsonl'
    row = {'question': 'a\r\nb', 'answer': 4, 'solution': 'x\r\ny\rz\n#### 4'}
    path.write_text(json.dumps(row))
    (problem,) = loading.read_problems(path)
    assert (problem.question, problem.solution) == ('a\nb', 'x\ny\nz\n#### 4')


@pytest.mark.parametrize('level', [3, 3.0, '3', 'Level 3', 'level 3', ' Level 3 '])
def test_levels_are_numbers_or_words(tmp_path, level):
    path = tmp_path / 'train.jsonl'
    path.write_text(json.dumps({'question': 'q', 'answer': 1, 'level': level}))
    assert loading.read_problems(path)[0].level == 3


def test_null_is_a_missing_field(tmp_path):
    path = tmp_path / 'train.jsonl'
    absent = dict.fromkeys(('solution', 'level', 'id'))
    path.write_text(json.dumps({'question': 'q', 'answer': 1} | absent))
    (problem,) = loading.read_problems(path)
    assert (problem.solution, problem.level, problem.id) == ('', 0, 'train/1')


def test_our_own_files_may_say_nan():
    assert jsonl.parse_object('\ufeff{"loss": NaN}')['loss'] != 0


@pytest.mark.parametrize(
    ('number', 'text'),
    [
        ('1e-400', '0.' + '0' * 399 + '1'),
        ('12345678901234567890.5', '12345678901234567890.5'),
        ('-0.1000000000000000055', '-0.1000000000000000055'),
        ('0.30', '0.3'),
        ('2.50e1', '25'),
        ('7.0', '7'),
    ],
)
def test_a_number_is_read_as_it_is_written(tmp_path, number, text):
    path = tmp_path / 'train.jsonl'
    path.write_text(f'{{"question": "q", "answer": {number}, "solution": "s"}}\n')
    assert loading.load_placed_problems(path, 'train')[0].problem.answer == text


@pytest.mark.parametrize(
    ('text', 'escape', 'written'),
    [
        (r'\frac{1}{2}', r'\\f', r'\\\\frac'),
        (r'2\times 3', r'\\t', r'\\\\times'),
        (r'\binom{3}{2}', r'\\b', r'\\\\binom'),
        (r'3 \text{ m}', r'\\t', r'\\\\text'),
        (r'\right)', r'\\r', r'\\\\righ'),
        (r'\\frac{1}{2}', None, None),
        (r'a\tb', None, None),
        (r'i:\to = i \tan apple, name\tfraction, 1\to 2', None, None),
        (r'Page 1\fpage 2\f x\by', None, None),
    ],
)
@pytest.mark.parametrize('field', ['question', 'answer', 'solution'])
def test_a_latex_command_that_json_has_swallowed_is_refused(tmp_path, field, text, escape, written):
    values = {'question': 'x?', 'answer': '1', 'solution': '1'} | {field: text}
    row = '{' + ', '.join(f'"{name}": "{value}"' for name, value in values.items()) + '}'
    path = tmp_path / 'train.jsonl'
    path.write_text(row + '\n')
    if escape is None:
        loading.read_problems(path)
        return
    message = rf'train\.jsonl:1: {field} has the control character {escape} at .*"{written}'
    with pytest.raises(ValueError, match=message):
        loading.read_problems(path)
