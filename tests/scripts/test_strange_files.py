"""Files of strangers, cut short, changed or huge: one line that names the file."""

import functools
import json
import os
import re
import shutil
import stat
import struct

import hypothesis
import jax
import pytest
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.data.files import episode_files, jsonl
from elenchus.data.text import tokenizer as tokenizers
from elenchus.model import sharding
from elenchus.model.huggingface import safetensors_files
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import compilation_cache
from tests.support import slow_cases, tiny_model

DEEP = '[' * 200_000 + ']' * 200_000
BAD_JSON = {
    'deep list': (DEEP, 'nested too deeply'),
    'deep object': ('{"a":' * 200_000 + '1' + '}' * 200_000, 'nested too deeply'),
    'a number of 5000 digits': ('{"a": ' + '9' * 5000 + '}', 'invalid JSON'),
    'Latin-1': (b'{"a": "\xff"}', 'UTF-8'),
    'cut short': ('{"a": "b', 'invalid JSON'),
    'a list': ('[1]', 'expected a JSON object'),
    'a text': ('"abc"', 'expected a JSON object'),
}


def one_line(error, *names):
    text = str(error.value)
    assert '\n' not in text and len(text) < 1000, text
    assert all(str(name) in text for name in names), text


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize('kind', BAD_JSON)
@pytest.mark.parametrize(
    'read', [jsonl.read_object, safetensors_files.read_json], ids=['ours', 'theirs']
)
def test_json_that_cannot_be_read_is_named(tmp_path, kind, read):
    content, message = BAD_JSON[kind]
    with pytest.raises(ValueError, match=message) as error:
        read(write(tmp_path / 'a.json', content))
    one_line(error, 'a.json')


def test_a_huge_file_and_a_pipe_are_not_read(tmp_path):
    with (tmp_path / 'config.json').open('wb') as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(ValueError, match=r'config\.json: it has more than 268435456 bytes'):
        safetensors_files.read_json(tmp_path / 'config.json')
    os.mkfifo(tmp_path / 'model.safetensors')
    with pytest.raises(ValueError, match=r'model\.safetensors is no file'):
        safetensors_files.list_tensors(tmp_path)


# Weights


def header(entries, values=b'\0' * 16, length=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack('<Q', len(text) if length is None else length) + text + values


def entry(dtype='F32', shape=(4,), offsets=(0, 16)):
    return {'dtype': dtype, 'shape': list(shape), 'data_offsets': list(offsets)}


BAD_HEADERS = {
    '2**60 bytes': header({}, length=1 << 60),
    'longer than the file': header({}, length=1000),
    'no JSON': header(b'{"a'),
    'a list': header([1]),
    'deep': header(b'{"a":' * 5000 + b'1' + b'}' * 5000),
    'offsets outside': header({'a': entry(offsets=(0, 1 << 40))}),
    'offsets that overlap': header({'a': entry(), 'b': entry()}),
    'offsets backwards': header({'a': entry(offsets=(16, 0))}),
    'shape too large': header({'a': entry(shape=(1 << 40, 1 << 40))}),
    'shape below zero': header({'a': entry(shape=(-4,))}),
    'unknown dtype': header({'a': entry(dtype='PICKLE')}),
    'a hole': header({'a': entry(offsets=(4, 16), shape=(3,))}),
    'only seven bytes': b'\1\0\0\0\0\0\0',
}


@pytest.mark.parametrize('kind', BAD_HEADERS)
def test_a_strange_header_is_refused(tmp_path, kind):
    write(tmp_path / 'model.safetensors', BAD_HEADERS[kind])
    with pytest.raises(ValueError, match='not a safetensors file') as error:
        safetensors_files.list_tensors(tmp_path)
    one_line(error, tmp_path / 'model.safetensors')


@pytest.mark.parametrize(
    'name', ['../x', '/etc/passwd', 'a/../../x', 'sub/x', '', '.', '..', 'a\0b', 7, None, ['x']]
)
def test_an_index_names_files_beside_it_alone(tmp_path, name):
    folder = tmp_path / 'theirs'
    folder.mkdir()
    write(tmp_path / 'x', header({'a': entry()}))
    write(folder / safetensors_files.INDEX_FILE, json.dumps({'weight_map': {'a': name}}))
    with pytest.raises(ValueError, match='is no name of a file|file not found') as error:
        safetensors_files.list_tensors(folder)
    one_line(error, folder)


@pytest.mark.parametrize(
    'name', ['pytorch_model.bin', 'model.bin', 'consolidated.00.pth', 'a.pt', 'a.pkl', 'a.ckpt']
)
def test_pickled_weights_are_refused_with_a_remedy(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f'{name} has another format: save the model as safeten'):
        safetensors_files.list_tensors(tmp_path)


# Tokenizers


@functools.cache
def sentencepiece():
    return tokenizers.word_tokenizer(('a', 'b', 'c')).model


@functools.cache
def json_tokenizer():
    tokens = {'<unk>': 0, 'a': 1, '\n': 2}
    model = {'type': 'WordLevel', 'vocab': tokens, 'unk_token': '<unk>'}
    return {'version': '1.0', 'added_tokens': [], 'pre_tokenizer': None, 'model': model}


@pytest.mark.parametrize(
    'changes',
    [
        {'added_tokens': 7},
        {'added_tokens': [7]},
        {'added_tokens': [{}]},
        {'added_tokens': [{'content': 'x', 'special': True}]},
        {'model': 7},
        {'model': {'type': 'Unknown', 'vocab': {}}},
        {'model': {'type': 'WordLevel', 'vocab': {'a': 'b'}, 'unk_token': 'a'}},
        {'model': {'type': 'WordLevel', 'vocab': {'a': 1 << 40}, 'unk_token': 'a'}},
        {'model': {'type': 'WordLevel', 'vocab': {'a': 2**32 - 2}, 'unk_token': 'a'}},
        {'normalizer': {'type': 'Python'}},
        {'decoder': DEEP[:20]},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_a_strange_tokenizer_json_is_named(tmp_path, changes):
    path = tmp_path / 'tokenizer.json'
    write(path, json.dumps(json_tokenizer() | changes))
    with pytest.raises(ValueError) as error:
        tokenizers.load_tokenizer(path).newline_ids  # noqa: B018
    one_line(error)


def load(path):
    try:
        tokenizer = tokenizers.load_tokenizer(path)
    except ValueError as error:
        assert str(path) in str(error)
        return
    tokenizer.decode(tokenizer.encode('a b')[:5])


@hypothesis.given(st.data())
def test_changed_tokenizers_are_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    for name, whole in {
        'tokenizer.model': sentencepiece(),
        'tokenizer.json': json.dumps(json_tokenizer()).encode(),
    }.items():
        raw = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        load(write(folder / name, bytes(raw[: data.draw(st.integers(0, len(raw)))])))


# Saved models and episodes


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp('saved') / 'model'
    with jax.set_mesh(sharding.make_mesh((-1, 1, 1))):
        model = tiny_model.make_model(tiny_model.FLAT)
        saved_models.save_model(folder, model, tokenizer_fingerprint='abc')
    return folder


def load_saved(folder):
    mesh = sharding.make_mesh((-1, 1, 1))
    with jax.set_mesh(mesh):
        return saved_models.load_model(
            folder, tiny_model.FLAT, mesh=mesh, tokenizer_fingerprint='abc'
        )


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DESCRIPTIONS = {
    'no model': {'model': None},
    'a list': {'model': [1]},
    'unknown field': {'model': {'layers': 3}},
    'no tokenizer': {'tokenizer': None},
    'wrong sizes': {'tokenizer': 'abc', 'model': {'num_layers': 10**9}},
    'adapters of nothing': {'lora': 3},
    'adapters without base': {'lora': {'rank': 2, 'alpha': 1.0, 'targets': ['query']}},
    'adapters of wrong types': {'lora': {'rank': 'x', 'alpha': 1, 'targets': 7}, 'base': {}},
    'another fingerprint': {'fingerprint': 1},
}


@pytest.mark.parametrize('kind', DESCRIPTIONS)
def test_a_strange_description_of_a_model_is_named(saved, tmp_path, kind):
    folder = shutil.copytree(saved, tmp_path / 'model')
    edit(folder / saved_models.DESCRIPTION, **DESCRIPTIONS[kind])
    with pytest.raises(ValueError) as error:
        load_saved(folder)
    one_line(error, folder)


DAMAGED = ('gone', 'empty', 'cut', 'zeros', 'deep', 'no object', 'other types')


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # loops of Orbax
@slow_cases.combinations(
    {('*METADATA', 'deep'), ('*METADATA', 'other types'), ('manifest.ocdbt', 'cut')},
    pattern=['*METADATA', 'manifest.ocdbt', '*'],
    how=DAMAGED,
)
def test_every_damaged_file_of_a_model_is_one_line(saved, tmp_path, pattern, how):
    files = sorted(p for p in saved.rglob(pattern) if p.is_file())
    assert files
    for path in files:
        folder = shutil.copytree(saved, tmp_path / 'model', dirs_exist_ok=True)
        copy, raw = folder / path.relative_to(saved), path.read_bytes()
        changed = {
            'empty': b'',
            'cut': raw[: len(raw) // 2],
            'zeros': b'\0' * len(raw),
            'deep': DEEP.encode(),
            'no object': b'[7]',
            'other types': re.sub(rb'(: )(\{|\[|\d+|"[^"]*")', rb'\g<1>null, "x": \g<2>', raw),
        }
        copy.unlink() if how == 'gone' else copy.write_bytes(changed[how])
        try:
            load_saved(folder)
        except ValueError as error:
            assert str(folder) in str(error) and '\n' not in str(error), path


@hypothesis.given(st.data())
def test_episodes_that_are_none_are_named(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / 'part.array_record'
    turn = records.Turn('question', (4,), (5, 6))
    episode_files.write_episodes(path, [records.Episode('a', 1, (turn,))])
    fields = json.loads(episode_files.to_json(records.Episode('a', 1, (turn,))))
    values = st.sampled_from([None, 7, 'x', [], {}, [7], [[]], [{}], {'a': 1}, 10**30])
    fields[data.draw(st.sampled_from([*fields, 'facts', 'more']))] = data.draw(values)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(episode_files, 'to_json', lambda fields: json.dumps(fields).encode())
        episode_files.write_episodes(path, [fields])
    try:
        list(episode_files.read_episodes(path.parent))
    except ValueError as error:
        assert str(path) in str(error)
    finally:
        path.unlink()


# The compilation cache


@pytest.mark.parametrize('mode', [0o700, 0o755, 0o775, 0o777, None])
def test_a_cache_that_others_may_write_into_is_named(tmp_path, capsys, monkeypatch, mode):
    monkeypatch.setattr(jax.config, 'update', lambda *_: None)
    folder = tmp_path / 'cache\x1b[2J'
    if mode is not None:
        folder.mkdir()
        folder.chmod(mode)
    compilation_cache.turn_on(str(folder))
    text = capsys.readouterr().err
    assert ('others may write' in text) == (mode in (0o775, 0o777)) and '\x1b' not in text
    if mode is None:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
