"""Inputs in a bucket are read as files on a disk, with the same errors."""

import json
import shutil

import fsspec
import pyarrow
import pytest
from etils import epath
from etils.epath import backend
from pyarrow import parquet

from elenchus.data.critiques import record_files
from elenchus.data.problems import loading
from elenchus.data.text import tokenizer as tokenizers

ROWS = [{'question': f'q{i}', 'answer': str(i), 'solution': f's {i}'} for i in range(3)]


@pytest.fixture(params=['disk', 'bucket'])
def folder(request, tmp_path, monkeypatch):
    """A folder on a disk, and one in a bucket with a file system in memory for the network."""
    if request.param == 'disk':
        return epath.Path(tmp_path)
    memory = fsspec.filesystem('memory')
    memory.store.clear()
    monkeypatch.setattr(backend.fsspec_backend, '_get_filesystem', lambda _: memory)
    path = epath.Path('gs://bucket/data')
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize('form', ['jsonl', 'json', 'parquet'])
def test_problems_are_read(folder, tmp_path_factory, form):
    file = folder / f'train.{form}'
    if form == 'parquet':
        local = tmp_path_factory.mktemp('local') / 'rows.parquet'
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), local)
        file.write_bytes(local.read_bytes())
    else:
        lines = '\n'.join(map(json.dumps, ROWS))
        file.write_text(lines if form == 'jsonl' else json.dumps(ROWS))
    for path in (file, folder):
        problems = loading.load('jsonl', split='train', path=path)
        assert [(p.question, p.answer) for p in problems] == [(f'q{i}', str(i)) for i in range(3)]


def test_a_public_set_is_read_from_a_folder(folder, tmp_path_factory):
    (folder / 'train.jsonl').write_text(
        '\n'.join(json.dumps({'question': f'q{i}', 'answer': f's\n#### {i}'}) for i in range(3))
    )
    data_dir = tmp_path_factory.mktemp('prepared')
    problems = loading.load('gsm8k', split='train', path=folder, data_dir=data_dir)
    assert [p.answer for p in problems] == ['0', '1', '2']


def test_a_missing_file_is_named_with_a_similar_one(folder):
    (folder / 'mine.jsonl').write_text(json.dumps(ROWS[0]))
    missing = folder / 'minr.jsonl'
    with pytest.raises(ValueError, match=rf'file not found: .*{folder}/minr\.jsonl'):
        loading.read_problems(missing)


def test_a_damaged_row_is_named(folder):
    (folder / 'train.jsonl').write_text(json.dumps(ROWS[0]) + '\n{"question"')
    with pytest.raises(ValueError, match=rf'{folder}/train.jsonl:2: invalid JSON'):
        loading.read_problems(folder / 'train.jsonl')


def test_a_tokenizer_is_read(folder, tmp_path_factory):
    tokenizer = tokenizers.lab_tokenizer()
    local = tmp_path_factory.mktemp('local') / tokenizer.file_name
    tokenizer.save(local)
    (folder / tokenizer.file_name).write_bytes(local.read_bytes())
    read = tokenizers.load_tokenizer(folder / tokenizer.file_name)
    assert read.fingerprint == tokenizer.fingerprint
    shutil.rmtree(local.parent)


def test_critiques_are_read(folder):
    row = {
        'question': 'q',
        'answer': '3',
        'attempt': 'a',
        'critique': 'c',
    }
    (folder / 'critiques.jsonl').write_text(json.dumps(row))
    with pytest.raises(ValueError, match=rf'{folder}/critiques.jsonl:1: '):
        record_files.read(folder / 'critiques.jsonl')
