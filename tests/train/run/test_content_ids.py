"""A run continues after a folder that its config names has moved, but not with other content."""

import json
import os
import shutil

import pytest

from elenchus.train.config import stage_fields
from elenchus.train.run import content_ids, stage_inputs
from tests.support import slow_cases
from tests.train.run import test_directory as cases

STAGE_OF = {
    'base.checkpoint': 'base',
    'critic.checkpoint': 'critic',
    'critique.annotator_path': 'critique',
    'improve.teacher': 'vanilla',
    'reinforce.teacher': 'reinforce',
}
BESIDE = {
    'reinforce.teacher': {'reinforce__objective__kl': 'k2', 'reinforce__objective__kl_coef': 1.0}
}
"""Fields that a path needs beside it."""


def write_model(folder, *, fingerprint=1, weights=b'abc', **more):
    """Writes a folder as a saved model has it; `fingerprint` None is one of an earlier version."""
    (folder / 'd').mkdir(parents=True)
    (folder / 'd' / 'data').write_bytes(weights)
    description = {'model': {'vocab_size': 8, 'dtype': 'float32'}, 'tokenizer': 'x'} | more
    description |= {} if fingerprint is None else {'fingerprint': fingerprint}
    (folder / 'model_config.json').write_text(json.dumps(description))
    return folder


def reader(workdir, field, path):
    changes = {field.replace('.', '__'): str(path)} | BESIDE.get(field, {})
    return cases.run_of(workdir, **changes).reader


def start(workdir, field, path, *, complete=False):
    """Writes what a stage writes that starts, or ends, with a path."""
    run = reader(workdir, field, path)
    stage = run.directory.stage(STAGE_OF[field])
    stage.write_text('config.json', run.directory.config)
    stage_inputs.write(run, STAGE_OF[field])
    if complete:
        stage.write_json('summary.json', {})
    return stage


def check(workdir, field, path):
    """Opens the run again with another path."""
    run = reader(workdir, field, path)
    run.directory.check_stages()
    stage_inputs.check(run)


every_field = pytest.mark.parametrize('field', STAGE_OF)
ended = slow_cases.combinations(
    {
        ('base.checkpoint', False),
        ('base.checkpoint', True),
        ('critic.checkpoint', True),
        ('critique.annotator_path', False),
        ('reinforce.teacher', True),
    },
    field=list(STAGE_OF),
    complete=[False, True],
)


def test_every_path_of_a_content_is_tested():
    assert set(STAGE_OF) == set(stage_fields.CONTENTS)


@ended
def test_a_folder_may_move(tmp_path, field, complete):
    model = write_model(tmp_path / 'old')
    start(tmp_path / 'run', field, model, complete=complete)
    check(tmp_path / 'run', field, model)
    moved = model.rename(tmp_path / 'new')
    check(tmp_path / 'run', field, moved)
    check(tmp_path / 'run', field, os.path.relpath(moved))


@ended
@pytest.mark.parametrize('place', ['the same', 'another'])
def test_another_content_is_refused(tmp_path, field, complete, place):
    model = write_model(tmp_path / 'old')
    start(tmp_path / 'run', field, model, complete=complete)
    if place == 'the same':
        shutil.rmtree(model)
    other = write_model(model if place == 'the same' else tmp_path / 'new', fingerprint=2)
    stage = STAGE_OF[field]
    with pytest.raises(ValueError, match=rf"stage '\d\d-{stage}' was run with another {field} \("):
        check(tmp_path / 'run', field, other)


@every_field
def test_a_path_where_there_was_none_is_refused_and_the_reverse(tmp_path, field):
    model = write_model(tmp_path / 'old')
    for number, (before, now) in enumerate([('', model), (model, '')]):
        start(tmp_path / f'run{number}', field, before)
        with pytest.raises(ValueError, match=rf'another {field} \(.*none'):
            check(tmp_path / f'run{number}', field, now)


@ended
@pytest.mark.parametrize('lacks', ['ids', 'the file'])
def test_a_stage_of_earlier_code_has_a_path_only(tmp_path, field, complete, lacks):
    model = write_model(tmp_path / 'old')
    stage = start(tmp_path / 'run', field, model, complete=complete)
    path = stage.path / 'inputs.json'
    inputs = {n: v for n, v in json.loads(path.read_text()).items() if n != field}
    path.write_text(json.dumps(inputs))
    if lacks == 'the file':
        path.unlink()
    check(tmp_path / 'run', field, model)
    check(tmp_path / 'run', field, shutil.copytree(model, tmp_path / 'copy'))
    with pytest.raises(ValueError, match=f'another {field}'):
        check(tmp_path / 'run', field, write_model(tmp_path / 'other', fingerprint=3))
    shutil.rmtree(model)
    with pytest.raises(ValueError, match=f'another {field} .*old.*nothing is any more, now model'):
        check(tmp_path / 'run', field, tmp_path / 'copy')


def test_a_failed_stage_starts_again_with_another_content(tmp_path, capsys):
    stage = start(tmp_path / 'run', 'base.checkpoint', write_model(tmp_path / 'old'))
    stage.write_text('failure.txt', 'a mistake')
    run = reader(tmp_path / 'run', 'base.checkpoint', write_model(tmp_path / 'b', fingerprint=2))
    stage_inputs.check(run)
    stage_inputs.discard_failure(run, 'base')
    assert 'starts again: it was run with another base.checkpoint' in capsys.readouterr().out
    assert not stage.path.exists()


# Ids


def test_an_id_depends_on_the_content_and_not_on_the_place(tmp_path):
    lora = {'lora': {'rank': 2}, 'base': {'folder': '../x', 'fingerprint': 5, 'quantize': 'none'}}
    kinds = {
        'whole': {},
        'fingerprint': {'fingerprint': 7},
        'tokenizer': {'tokenizer': 'y'},
        'architecture': {'model': {'vocab_size': 9, 'dtype': 'float32'}},
        'adapters': lora,
        'another base': lora | {'base': lora['base'] | {'fingerprint': 6}},
        'without fingerprint': {'fingerprint': None},
        'other weights': {'fingerprint': None, 'weights': b'abd'},
    }
    same = {
        'moved base': lora | {'base': lora['base'] | {'folder': '/elsewhere'}},
        'numerics': {'model': {'vocab_size': 8, 'dtype': 'bfloat16'}},
    }
    ids = {
        name: content_ids.content_id(str(write_model(tmp_path / name.replace(' ', '_'), **values)))
        for name, values in (kinds | same).items()
    }
    assert len({ids[name] for name in kinds}) == len(kinds)
    assert ids['moved base'] == ids['adapters'] and ids['numerics'] == ids['whole']
    copy = shutil.copytree(tmp_path / 'without_fingerprint', tmp_path / 'copy')
    assert content_ids.content_id(str(copy)) == ids['without fingerprint']
    assert content_ids.content_id('') == '' and content_ids.content_id('nowhere') is None


def test_files_of_critiques_are_known_by_all_their_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(content_ids, 'BLOCK_BYTES', 8)  # so that a file has several blocks
    ids = []
    for change in (None, 0, 50, 99):
        content = bytearray(100)
        if change is not None:
            content[change] = 1
        (tmp_path / f'{change}.jsonl').write_bytes(content)
        ids.append(content_ids.content_id(str(tmp_path / f'{change}.jsonl')))
    assert len(set(ids)) == 4
    (tmp_path / 'short.jsonl').write_bytes(bytes(99))
    assert content_ids.content_id(str(tmp_path / 'short.jsonl')) not in ids
    (tmp_path / 'moved.jsonl').write_bytes(bytes(100))
    assert content_ids.content_id(str(tmp_path / 'moved.jsonl')) == ids[0]


def test_of_a_large_file_blocks_from_the_first_to_the_last_byte_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(content_ids, 'WHOLE_BYTES', 100)
    monkeypatch.setattr(content_ids, 'BLOCK_BYTES', 4)
    monkeypatch.setattr(content_ids, 'NUM_BLOCKS', 3)
    ids = set()
    for change in (0, 500, 1000):
        content = bytearray(1001)
        content[change] = 1
        (tmp_path / f'{change}').write_bytes(content)
        ids.add(content_ids.content_id(str(tmp_path / f'{change}')))
    assert len(ids) == 3


def test_a_folder_of_files_is_known_by_names_and_contents(tmp_path):
    for name, files in {
        'a': {'x': b'1', 'd/y': b'2'},
        'same': {'x': b'1', 'd/y': b'2'},
        'renamed': {'x': b'1', 'd/z': b'2'},
        'swapped': {'x': b'2', 'd/y': b'1'},
    }.items():
        for file, content in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(content)
    a, same, renamed, swapped = (
        content_ids.content_id(str(tmp_path / name)) for name in ('a', 'same', 'renamed', 'swapped')
    )
    assert a == same and len({a, renamed, swapped}) == 3
