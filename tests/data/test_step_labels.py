"""Step-labelled rows of ProcessBench, PRM800K and TRL as critique records."""

import copy
import json

import pyarrow
import pytest
from pyarrow import parquet

from elenchus.data.critiques import conversion, file_summary, grammars, record_files

BENCH = {
    'id': 'g-0',
    'generator': 'x',
    'problem': '3 + 4?',
    'steps': ['3 + 4 = 7', '7 + 1 = 9\nSo 9.', 'The answer is 9.'],
    'final_answer_correct': False,
    'label': 1,
}
TRL = {'prompt': '1 + 1?', 'completions': ['1 + 1 = 2', 'So 3.', '#### 3'],
       'labels': [True, False, False]}  # fmt: skip


def completion(text, rating):
    return {'text': text, 'rating': rating, 'flagged': None}


PRM = {
    'labeler': 'a',
    'question': {'problem': '1 + 1?', 'ground_truth_answer': '2', 'pre_generated_steps': None},
    'label': {
        'steps': [
            {
                'completions': [completion('One and one.', 0), completion('1 + 1 = 3', -1)],
                'human_completion': None,
                'chosen_completion': 0,
            },
            {
                'completions': [completion('It is 3.', -1)],
                'human_completion': {'text': 'It is 2.', 'rating': None},
                'chosen_completion': None,
            },
            {
                'completions': [completion('# Answer\n\n2', 1)],
                'human_completion': None,
                'chosen_completion': 0,
            },
        ],
        'finish_reason': 'solution',
    },
}
STOPPED = copy.deepcopy(PRM)
STOPPED['question']['pre_generated_steps'] = ['One and one.', 'It is 3.', '# Answer\n\n3']
STOPPED['label']['steps'][1]['human_completion'] = None
STOPPED['label'] |= {'steps': STOPPED['label']['steps'][:2], 'finish_reason': 'found_error'}


def judged(row):
    record = record_files.from_row(row)
    critique = grammars.RELEASED.parse(record.critique)
    return record, [step.correct for step in critique.steps], critique.final_correct


def test_processbench_rows_are_records():
    record, verdicts, final = judged(BENCH)
    assert (verdicts, final) == ([True, False], False)
    assert (record.question, record.problem_id, record.location) == ('3 + 4?', 'g-0', 1)
    assert record.steps == tuple(BENCH['steps']) and record.correct is False
    assert record.response == '\n'.join(BENCH['steps'])
    _, verdicts, final = judged(BENCH | {'label': -1, 'final_answer_correct': True})
    assert (verdicts, final) == ([True, True, True], True)
    record, verdicts, final = judged(BENCH | {'final_answer_correct': True})
    assert (verdicts, final, record.correct) == ([True, False], True, True)


def test_prm800k_rows_are_records():
    record, verdicts, final = judged(PRM)
    assert (verdicts, final) == ([True, True, True], True)
    assert record.steps == ('One and one.', 'It is 2.', '# Answer\n\n2')
    assert (record.correct, record.location) == (True, None)
    record, verdicts, final = judged(STOPPED)
    assert (verdicts, final) == ([True, False], False)
    assert record.steps == tuple(STOPPED['question']['pre_generated_steps'])
    assert (record.correct, record.location) == (None, 1)
    unrated = copy.deepcopy(PRM)
    unrated['label']['steps'][0]['completions'][0]['rating'] = None
    unrated['label']['finish_reason'] = 'give_up'
    record, verdicts, final = judged(unrated)
    assert (verdicts, final, record.correct) == ([None, True, True], None, None)


def test_trl_rows_are_records():
    record, verdicts, final = judged(TRL)
    assert (verdicts, final, record.correct) == ([True, False], False, None)
    assert (record.question, record.location, record.problem_id) == ('1 + 1?', 1, None)
    record, verdicts, final = judged(TRL | {'labels': [1, 1, 1]})
    assert (verdicts, final, record.location) == ([True, True, True], True, None)


@pytest.mark.parametrize('row', [BENCH, PRM, STOPPED, TRL])
@pytest.mark.parametrize('ending', ['jsonl', 'json', 'parquet'])
def test_files_of_step_labels_are_inspected_and_converted(row, ending, tmp_path):
    source = tmp_path / f'rows.{ending}'
    if ending == 'parquet':
        parquet.write_table(pyarrow.Table.from_pylist([row] * 2), source)
    else:
        rows = json.dumps(row) if ending == 'jsonl' else json.dumps([row])
        source.write_text(f'{rows}\n{rows}' if ending == 'jsonl' else f'[{rows[1:-1]}, {rows[1:]}')
    file_summary.compare_files([str(source)], problem_paths=[])
    read = record_files.read(source)
    assert len(read) == 2 and read[0] == read[1] == record_files.from_row(row)
    target = tmp_path / 'mine.jsonl'
    assert conversion.convert(str(source), str(target), form=None).startswith('2 records')
    assert record_files.read(target) == read


@pytest.mark.parametrize('name, wrong, right', [('gsm8k', 207, 193), ('math', 594, 406)])
def test_processbench_is_read_whole(shared_data, name, wrong, right):
    path = shared_data / 'processbench' / f'{name}.json'
    rows, records = json.loads(path.read_text()), record_files.read(path)
    assert len(records) == wrong + right
    for row, record in zip(rows, records, strict=True):
        critique = grammars.RELEASED.parse(record.critique)
        first = grammars.first_error(critique)
        assert (-1 if first is None else first) == row['label']
        assert critique.final_correct is row['final_answer_correct']
    assert sum(record.location is not None for record in records) == wrong


@pytest.mark.parametrize(
    'row, change, message',
    [
        (BENCH, {'label': 3}, r'label=3 must be in -1 \(no error\) to 2'),
        (BENCH, {'label': -2}, 'label=-2'),
        (BENCH, {'label': True}, 'label=True must be a whole number'),
        (BENCH, {'label': None}, 'label=None'),
        (BENCH, {'steps': []}, 'steps=.* must be a list that is not empty'),
        (BENCH, {'steps': 'a'}, 'must be a list'),
        (BENCH, {'steps': ['a', 1]}, 'list of texts'),
        (BENCH, {'final_answer_correct': 'no'}, "final_answer_correct='no'"),
        (BENCH, {'problem': 3}, 'problem=.3. is not text'),
        (TRL, {'labels': [True]}, '1 labels for 3 completions'),
        (TRL, {'labels': [True, -1, None]}, 'labels has -1'),
        (TRL, {'labels': [True, None, True]}, 'labels has None'),
        (TRL, {'prompt': [{'role': 'user'}]}, 'prompt=.* is not text'),
        (PRM, {'question': 'q'}, 'question=.* must be an object'),
        (PRM, {'label': {'steps': [{'completions': None}]}}, r'label\.steps\[0\] has no list'),
        (PRM, {'label': {'steps': [{'completions': []}]}}, r'label\.steps\[0\] has no completion'),
        (
            PRM,
            {'label': {'steps': [{'completions': [completion('x', 2)]}]}},
            r'label\.steps\[0\]: rating=2',
        ),
        (
            PRM,
            {'label': {'steps': [{'completions': [{'rating': 1}]}]}},
            r'label\.steps\[0\]: a completion has no text',
        ),
    ],
)
def test_a_wrong_field_is_named_with_its_line(row, change, message, tmp_path):
    path = tmp_path / 'rows.jsonl'
    path.write_text(f'{json.dumps(row)}\n{json.dumps(row | change)}\n')
    with pytest.raises(ValueError, match=rf'rows\.jsonl:2: as a row of \w+: .*{message}'):
        record_files.read(path)


@pytest.mark.parametrize(
    'row, message',
    [
        (
            {'prompt': 'q', 'completion': ['a'], 'labels': [True]},
            "nearest is TRL, which needs 'completions' too; did you mean 'completion'",
        ),
        (
            {'problem': 'q', 'steps': ['a'], 'label': 0},
            "nearest is ProcessBench, which needs 'final_answer_correct' too",
        ),
        ({'instruction': 'q', 'output': 'a'}, "nearest is released, which needs 'input' too"),
        ({'text': 'q'}, r"'text' are those of no known form; known: critique record \(question"),
        ({}, 'no known form'),
        ({'question': 'q', 'respons': 'a'}, "unknown field 'respons' .* 'response'"),
    ],
)
def test_rows_of_no_form_name_the_nearest(row, message, tmp_path):
    path = tmp_path / 'rows.jsonl'
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=rf'rows\.jsonl:1: .*{message}'):
        record_files.read(path)


def test_line_ends_of_records_are_those_of_unix(tmp_path):
    path = tmp_path / 'mine.jsonl'
    row = {'question': 'a\r\nb', 'response': 'x\r\ny\rz', 'critique': 'c\r\nd'}
    path.write_text(json.dumps(row))
    (record,) = record_files.read(path)
    assert (record.question, record.critique) == ('a\nb', 'c\nd')
    assert record.steps == ('x', 'y', 'z')
