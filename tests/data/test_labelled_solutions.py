"""Benchmarks of critics: three forms of rows, counted from 0 or 1."""

import json
import os
import pathlib

import pytest

from elenchus.data.critiques import labelled_solutions

PROCESSBENCH = {
    'id': 'gsm8k-0', 'problem': 'How many?', 'steps': ['a', 'b'], 'label': 1,
    'final_answer_correct': False,
}  # fmt: skip
MISTAKE = {
    'input': '1 + 1 =',
    'steps': ['a', 'b'],
    'answer': '3',
    'target': '2',
    'mistake_index': 0,
}
MR = {
    'uuid': 'x', 'question': 'How many?', 'model_output_steps': ['a', 'b'],
    'model_output_answer_correctness': 'correct', 'model_output_solution_correctness': 'wrong',
    'model_output_solution_first_error_step': 2,
}  # fmt: skip


def read(tmp_path, *rows):
    path = tmp_path / 'rows.jsonl'
    path.write_text('\n'.join(map(json.dumps, rows)))
    return labelled_solutions.read_solutions(path)


@pytest.mark.parametrize(
    ('row', 'first_error', 'correct'),
    [
        (PROCESSBENCH, 1, False),
        (PROCESSBENCH | {'label': -1, 'final_answer_correct': True}, None, True),
        (PROCESSBENCH | {'label': 0, 'final_answer_correct': True}, 0, True),
        (MISTAKE, 0, False),
        (MISTAKE | {'mistake_index': None, 'answer': '2'}, None, True),
        (MR, 1, True),
        (MR | {'model_output_solution_correctness': 'correct'}, None, True),
        (MR | {'model_output_answer_correctness': 'wrong'}, 1, False),
    ],
)
def test_the_first_wrong_step_counts_from_zero(tmp_path, row, first_error, correct):
    (solution,) = read(tmp_path, row)
    assert (solution.first_error, solution.correct) == (first_error, correct)
    assert solution.steps == ('a', 'b')


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        (PROCESSBENCH | {'label': 2}, 'label=2'),
        (MISTAKE | {'mistake_index': 2}, '2 must be one of the 2 steps'),
        (MISTAKE | {'mistake_index': True}, 'True must be one of'),
        (MISTAKE | {'steps': []}, 'steps must be a list of texts'),
        (MR | {'model_output_solution_first_error_step': 0}, '-1 must be one of'),
        (MR | {'model_output_solution_first_error_step': 'N/A'}, "'N/A' must be one of"),
        (MR | {'model_output_answer_correctness': 'maybe'}, 'maybe'),
        (MR | {'model_output_answer_correctness': ['correct']}, "must be 'correct' or 'wrong'"),
        ({'a': 1}, 'ProcessBench: problem, steps'),
    ],
)
def test_a_faulty_row_is_named(tmp_path, row, message):
    with pytest.raises(ValueError, match='rows.jsonl') as error:
        read(tmp_path, row)
    assert message in str(error.value)


@pytest.mark.parametrize('row', [PROCESSBENCH | {'id': None}, MR | {'uuid': None}])
def test_a_row_without_an_id_is_named_by_its_place(tmp_path, row):
    assert [solution.id for solution in read(tmp_path, row, row)] == ['rows/0', 'rows/1']


def test_a_later_row_without_a_field_is_named(tmp_path):
    short = {name: value for name, value in PROCESSBENCH.items() if name != 'label'}
    with pytest.raises(ValueError, match=r"rows\.jsonl:2.*missing field 'label'"):
        read(tmp_path, PROCESSBENCH, short)


@pytest.mark.slow
def test_the_published_files_have_their_published_counts():
    data = os.environ.get('ELENCHUS_DATA') or pathlib.Path(__file__).parents[2] / '../shared/data'
    folder = pathlib.Path(data)
    if not folder.is_dir():
        pytest.skip(f'no {folder}: set ELENCHUS_DATA')
    counts = {}
    for name in ('gsm8k', 'math'):
        rows = labelled_solutions.read_solutions(folder / f'processbench/{name}.json')
        wrong = [row for row in rows if row.first_error is not None]
        counts[name] = (len(wrong), len(rows) - len(wrong), sum(row.correct for row in wrong))
    assert counts == {'gsm8k': (207, 193, 7), 'math': (594, 406, 94)}
