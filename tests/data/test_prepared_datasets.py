"""Folders of prepared datasets are data: nothing they name is imported, and damage is one line."""

import copy
import dataclasses
import json
import os
import pathlib
import shutil
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from elenchus.data.critiques import conversion, file_summary, oracle, record_files
from elenchus.data.files import prepared_datasets
from elenchus.data.problems import loading

RECORDS = [
    record_files.from_fields(
        {'question': f'q{n}', 'response': 'a\nb', 'critique': 'c', 'level': n, 'correct': n > 0}
    )
    for n in range(3)
]
TFDS = 'tensorflow_datasets.core.features'
PAYLOAD = 'import pathlib\npathlib.Path(__file__).with_name("OWNED").touch()\nclass X: ...\n'


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """A good dataset; the tests change copies of it."""
    folder = tmp_path_factory.mktemp('prepared')
    record_files.write_jsonl(folder / 'r.jsonl', RECORDS)
    return record_files.prepare(folder / 'r.jsonl', data_dir=folder / 'data')


@pytest.fixture
def dataset(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / 'strange' / 'evil')


def change(path, **changes):
    """Changes the JSON of a file: dotted path -> value."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split('__')
        inner = content
        for parent in parents:
            inner = inner[int(parent) if isinstance(inner, list) else parent]
        inner[int(last) if isinstance(inner, list) else last] = value
    path.write_text(json.dumps(content))


def doors(folder, tmp_path):
    """All ways by which a folder of records is read."""
    return {
        'inspect': lambda: file_summary.compare_files([str(folder)], problem_paths=[]),
        'convert': lambda: conversion.convert(str(folder), str(tmp_path / 'o.jsonl'), form=None),
        'annotator': lambda: oracle.from_file(folder),
        'read': lambda: record_files.read(folder.parent),
    }


EVIL_CLASSES = (
    'evil.payload.X',
    'payload.X',
    'os.system',
    f'{TFDS}.payload.X',
    f'{TFDS}.text_feature.Text.X',
    f'{TFDS}.text_feature.Text\n',
    f'{TFDS}.text_feature..payload.X',
    f'{TFDS}.text_feature.Text.__class__',
    f'{TFDS}s.text_feature.Text',
    f'{TFDS}.text_feature.text',
    f' {TFDS}.text_feature.Text',
    'tensorflow_datasets.core.features.image_feature.Image',
    '../payload.X',
    'X',
    '',
    7,
    None,
    ['evil.payload.X'],
)
PLACES = (
    'pythonClassName',
    'featuresDict__features__question__pythonClassName',
    'featuresDict__features__steps__sequence__feature__pythonClassName',
    'featuresDict__features__steps__sequence__feature__type',
    'featuresDict__features__more',
    'extra',
)


def evil_features(place, name):
    """Returns where features.json names a class, and what it says there."""
    if place.endswith('more'):
        return place, {'pythonClassName': name, 'text': {}}
    if place == 'extra':
        return place, {'a': [{'b': {'python_class_name': name}}]}
    return place, name


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('name', EVIL_CLASSES)
def test_no_class_that_a_folder_names_is_imported(dataset, place, name, monkeypatch):
    if place.endswith('type') and not isinstance(name, str):
        pytest.skip('a shape may have a field named type')
    (dataset / 'payload.py').write_text(PAYLOAD)
    monkeypatch.chdir(dataset.parent)
    monkeypatch.syspath_prepend(str(dataset.parent))
    change(dataset / 'features.json', **dict([evil_features(place, name)]))
    before = set(sys.modules)
    with pytest.raises(ValueError, match=r'features\.json: feature class .* is not one of'):
        record_files.read(dataset)
    assert set(sys.modules) == before and not (dataset / 'OWNED').exists()


@pytest.mark.parametrize('door', ['inspect', 'convert', 'annotator', 'read'])
def test_every_door_refuses_a_folder_that_names_a_class(dataset, tmp_path, door):
    change(dataset / 'features.json', pythonClassName='evil.payload.X')
    with pytest.raises(ValueError, match='evil.payload.X'):
        doors(dataset, tmp_path)[door]()
    assert not (tmp_path / 'o.jsonl').exists()


@pytest.mark.parametrize('name', ['moduleName', 'name', 'configName', 'description'])
def test_names_in_dataset_info_are_never_imported(dataset, name):
    change(dataset / 'dataset_info.json', **{name: 'evil.payload'})
    assert record_files.read(dataset) == RECORDS
    assert not any(module.startswith('evil') for module in sys.modules)


def test_a_problem_set_is_read_without_its_features(tmp_path, monkeypatch):
    options = {'data_dir': tmp_path, 'seed': 0, 'num_problems': {'test': 3}}
    problems = list(loading.load('lab', split='test', **options))
    (features,) = tmp_path.rglob('features.json')
    change(features, pythonClassName='evil.payload.X')
    with pytest.raises(ValueError, match=r'features\.json: feature class .evil.payload.X'):
        loading.load('lab', split='test', **options)
    change(features, pythonClassName=f'{TFDS}.features_dict.FeaturesDict')
    assert list(loading.load('lab', split='test', **options)) == problems


# Damage


def shard(folder):
    (file,) = folder.glob('*.array_record*')
    return file


DAMAGE = {
    'no features': (lambda d: (d / 'features.json').unlink(), r'features\.json: file not found'),
    'features are a list': (lambda d: (d / 'features.json').write_text('[]'), 'JSON object'),
    'features cut short': (
        lambda d: (d / 'features.json').write_text('{"pythonClassName": "tens'),
        r'features\.json: invalid JSON',
    ),
    'features nested deeply': (
        lambda d: (d / 'features.json').write_text('{"a":' * 200_000 + '1' + '}' * 200_000),
        r'features\.json: .*nested too deeply',
    ),
    'features in Latin-1': (
        lambda d: (d / 'features.json').write_bytes(b'{"a": "\xff"}'),
        r'features\.json:1: byte 0xFF is not UTF-8',
    ),
    'features of 5 MB': (
        lambda d: (d / 'features.json').write_text(' ' * (5 << 20)),
        r'features\.json: .* too many',
    ),
    'a field is missing': (
        lambda d: change(d / 'features.json', featuresDict={'features': {'questions': {}}}),
        "missing field 'question'; did you mean 'questions'",
    ),
    'info cut short': (lambda d: (d / 'dataset_info.json').write_text('{'), 'invalid JSON'),
    'no splits': (lambda d: change(d / 'dataset_info.json', splits=3), 'splits must be a list'),
    'another split': (
        lambda d: change(d / 'dataset_info.json', splits__0__name='test'),
        "no split 'train', only test",
    ),
    'lengths are no numbers': (
        lambda d: change(d / 'dataset_info.json', splits__0__shardLengths=['-1']),
        "shardLengths has '-1'",
    ),
    'a length is huge': (
        lambda d: change(d / 'dataset_info.json', splits__0__shardLengths=['9' * 17]),
        'damaged .*but dataset_info.json says 99999999999999999',
    ),
    'a length is too small': (
        lambda d: change(d / 'dataset_info.json', splits__0__shardLengths=['2']),
        'damaged .3 records, but dataset_info.json says 2',
    ),
    'more shards than files': (
        lambda d: change(d / 'dataset_info.json', splits__0__shardLengths=['3', '3']),
        '0 files .*00000-of-00002',
    ),
    'another format': (
        lambda d: change(d / 'dataset_info.json', fileFormat='riegeli'),
        "fileFormat='riegeli' must be array_record",
    ),
    'no shard': (lambda d: shard(d).unlink(), 'evil: 0 files'),
    'a shard is a folder': (
        lambda d: (shard(d).unlink(), (d / 'critiques-train.array_record-00000-of-00001').mkdir()),
        'files .* expected one',
    ),
    'an empty shard': (lambda d: shard(d).write_bytes(b''), 'is damaged'),
    'a shard cut short': (
        lambda d: shard(d).write_bytes(shard(d).read_bytes()[:70_000]),
        'is damaged',
    ),
    'a shard of zeros': (lambda d: shard(d).write_bytes(b'\0' * 131072), 'is damaged'),
    'a link to a shard outside': (
        lambda d: (shard(d).rename(d.parent / 'secret'), os.symlink('../secret', shard_name(d))),
        'leads out of .*evil; copy the file',
    ),
    'a link to metadata outside': (
        lambda d: (
            (d / 'features.json').rename(d.parent / 'f.json'),
            os.symlink(d.parent / 'f.json', d / 'features.json'),
        ),
        r'features\.json leads out of',
    ),
    'a link in a circle': (
        lambda d: (
            (d / 'features.json').unlink(),
            os.symlink(d / 'features.json', d / 'features.json'),
        ),
        r'features\.json',
    ),
    'a pipe': (
        lambda d: ((d / 'features.json').unlink(), os.mkfifo(d / 'features.json')),
        'file not found',
    ),
}


def shard_name(folder):
    return folder / 'critiques-train.array_record-00000-of-00001'


@pytest.mark.parametrize('name', DAMAGE)
def test_damage_is_one_line_that_names_the_file(dataset, name):
    damage, message = DAMAGE[name]
    damage(dataset)
    with pytest.raises(ValueError, match=message) as raised:
        record_files.read(dataset)
    assert str(dataset) in str(raised.value) and len(str(raised.value)) < 700


def test_links_within_the_folder_are_followed(dataset):
    file = shard(dataset)
    file.rename(dataset / 'moved')
    os.symlink('moved', file)
    assert record_files.read(dataset) == RECORDS


@dataclasses.dataclass(frozen=True)
class Other:
    """A dataclass of other types than the records on disk."""

    question: int


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'location': 5}, 'record 1: location=5 must be in 0 to 1'),
        ({'location': -1}, 'record 1: location=-1'),
    ],
)
def test_values_are_checked_as_those_of_a_line(tmp_path, monkeypatch, fields, message):
    record_files.write_jsonl(tmp_path / 'r.jsonl', RECORDS)
    wrong = [dataclasses.replace(RECORDS[0], **fields)]
    with monkeypatch.context() as patched:
        patched.setattr(record_files, 'read', lambda path: wrong)
        record_files.prepare(tmp_path / 'r.jsonl', data_dir=tmp_path / 'd')
    with pytest.raises(ValueError, match=message):
        record_files.read(tmp_path / 'd')


def test_another_type_of_field_is_named(prepared):
    with pytest.raises(ValueError, match='record 1: question is a bytes_list'):
        prepared_datasets.read_records(Other, prepared, split='train')[0]


# Rows that are cut short or changed anywhere


@pytest.fixture(scope='module')
def mutable(prepared, tmp_path_factory):
    return shutil.copytree(prepared, tmp_path_factory.mktemp('mutated') / 'evil')


def read_or_one_line(folder: pathlib.Path):
    try:
        records = record_files.read(folder)
    except ValueError as error:
        assert str(folder) in str(error)
        return None
    return records


used = st.integers(0, 400) | st.integers(65_400, 66_200) | st.integers(130_800, 131_071)


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.lists(st.tuples(used, st.integers(1, 255)), min_size=1, max_size=4), used)
def test_a_mutated_shard_is_read_or_refused(prepared, mutable, changes, cut):
    raw = bytearray(shard(prepared).read_bytes())
    for place, value in changes:
        raw[place] ^= value
    shard(mutable).write_bytes(raw)
    records = read_or_one_line(mutable)
    assert records is None or len(records) == len(RECORDS)
    shard(mutable).write_bytes(shard(prepared).read_bytes()[:cut])
    assert read_or_one_line(mutable) is None


@hypothesis.given(st.data())
def test_mutated_metadata_are_read_or_refused(prepared, mutable, data):
    shutil.copy(shard(prepared), shard(mutable))
    name = data.draw(st.sampled_from(['features.json', 'dataset_info.json']))
    content = json.loads((prepared / name).read_text())
    changed = copy.deepcopy(content)
    inner = changed
    while isinstance(inner, (dict, list)) and inner:
        key = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else [0]))
        if not isinstance(inner[key], (dict, list)) or data.draw(st.booleans()):
            inner[key] = data.draw(
                st.sampled_from([None, True, -1, 2.5, '', 'a.b.C', [], {}, '9' * 30, {'': 1}])
            )
            break
        inner = inner[key]
    (mutable / name).write_text(json.dumps(changed))
    try:
        assert read_or_one_line(mutable) in (None, RECORDS)
    finally:
        shutil.copy(prepared / name, mutable / name)
