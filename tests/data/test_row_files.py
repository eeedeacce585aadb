"""Files of rows: JSONL, JSON and Parquet, in the forms of the Hub."""

import json
import sys

import pyarrow
import pytest
from pyarrow import parquet

from elenchus.data.files import row_files
from elenchus.data.problems import loading

HUB_ROWS = {
    'gsm8k': {'question': '2 + 2?', 'answer': '2 + 2 = <<2+2=4>>4\n#### 4'},
    'math': {
        'problem': 'What is $2+2$?',
        'solution': r'It is $\boxed{4}$.',
        'answer': '4',
        'subject': 'Prealgebra',
        'level': 1,
        'unique_id': 'test/prealgebra/1.json',
    },
    'svamp': {
        'ID': 'chal-1',
        'Body': 'There are 2 red pens and 2 blue pens',
        'Question': 'How many pens are there?',
        'Equation': '( 2.0 + 2.0 )',
        'Answer': '4.0',
        'Type': 'Addition',
        'question_concat': 'There are 2 red pens and 2 blue pens. How many pens are there?',
    },
    'asdiv': {
        'body': 'Two red pens and two blue pens.',
        'question': 'How many pens?',
        'solution_type': 'Addition',
        'answer': '4 (pens)',
        'formula': '2+2=4',
    },
    'jsonl': {'question': '2 + 2?', 'answer': 4, 'solution': '2 + 2 = 4\n#### 4', 'level': '1'},
}
WRITERS = {
    '{}.jsonl': lambda path, rows: path.write_text('\n'.join(map(json.dumps, rows))),
    '{}.json': lambda path, rows: path.write_text(json.dumps(rows, indent=1)),
    '{}.parquet': lambda path, rows: parquet.write_table(pyarrow.Table.from_pylist(rows), path),
}
WRITERS['{}-00000-of-00001.parquet'] = WRITERS['data/{}.parquet'] = WRITERS['{}.parquet']


@pytest.mark.parametrize('name', WRITERS)
@pytest.mark.parametrize('source', HUB_ROWS)
def test_sets_are_read_in_the_forms_of_the_hub(source, name, tmp_path, no_network):
    path = tmp_path / 'source' / name.format('test')
    path.parent.mkdir(parents=True)
    WRITERS[name](path, [HUB_ROWS[source]] * 2)
    options = loading.load_options(data_dir=tmp_path / 'data', path=path.parents[0])
    if name.startswith('data/'):
        options['path'] = path.parents[1]
    loaded = list(loading.load(source, split='test', **options))
    assert [(p.answer, p.level) for p in loaded] == [('4', 1)] * 2
    assert all(p.question and p.solution for p in loaded)


def test_math500_is_read_whole(shared_data, tmp_path, no_network):
    path = shared_data / 'math500'
    loaded = list(loading.load('math', split='test', data_dir=tmp_path, path=path))
    assert len(loaded) == 500 and {p.level for p in loaded} == {1, 2, 3, 4, 5}


def test_math_takes_its_field_answer_first(tmp_path, no_network):
    row = HUB_ROWS['math'] | {'solution': 'It is four.', 'level': 'Level 5'}
    (tmp_path / 'test.jsonl').write_text(json.dumps(row))
    options = {'data_dir': tmp_path / 'data', 'path': tmp_path}
    (problem,) = loading.load('math', split='test', **options)
    assert (problem.answer, problem.level) == ('4', 5)


def test_shards_are_joined_in_order_and_must_be_complete(tmp_path):
    rows = [[{'question': f'{i}?', 'answer': i}] for i in range(3)]
    for i, part in enumerate(rows):
        path = tmp_path / f'train-{i:05d}-of-00003.parquet'
        parquet.write_table(pyarrow.Table.from_pylist(part), path)
    loaded = loading.load('jsonl', split='train', path=tmp_path)
    assert [p.answer for p in loaded] == ['0', '1', '2']
    path.unlink()
    with pytest.raises(ValueError, match=r"split 'train' needs the 3 files"):
        loading.load('jsonl', split='train', path=tmp_path)


def test_faulty_parquet_is_refused_with_file_and_row(tmp_path):
    path = tmp_path / 'train.parquet'
    path.write_bytes(b'PAR1 not really')
    with pytest.raises(ValueError, match=r'train\.parquet: not a Parquet file'):
        loading.read_problems(path)
    rows = [{'question': 'q', 'answer': 1.5}, {'question': 'q', 'answer': float('nan')}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(ValueError, match=r"train\.parquet, row 2: field 'answer' .*not finite"):
        loading.read_problems(path)


@pytest.mark.parametrize(
    ('columns', 'message'),
    [
        ({'at': pyarrow.array([2**60], pyarrow.timestamp('ms'))}, 'not a Parquet file that can'),
        ({'answer': pyarrow.array(['8'])}, "column 'answer' twice"),
    ],
)
def test_columns_that_cannot_be_read_are_refused_with_the_file(tmp_path, columns, message):
    names = ['question', 'answer', *columns]
    arrays = [pyarrow.array(['q']), pyarrow.array(['7']), *columns.values()]
    parquet.write_table(pyarrow.table(arrays, names=names), tmp_path / 'train.parquet')
    with pytest.raises(ValueError, match=rf'train\.parquet: .*{message}'):
        loading.read_problems(tmp_path / 'train.parquet')


def test_parquet_without_pyarrow_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / 'train.parquet'
    path.write_bytes(b'')
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ValueError, match=r'train\.parquet: Parquet files need .*pyarrow'):
        row_files.read_rows(path)


def test_a_folder_without_the_split_names_what_is_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r'does not contain test\.jsonl \(nor test\.json'):
        loading.load('jsonl', split='test', path=tmp_path)
    with pytest.raises(ValueError, match=r'does not contain test\.jsonl'):
        loading.load('math', split='test', path=tmp_path, data_dir=tmp_path / 'd')
