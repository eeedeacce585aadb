"""A run of yesterday starts again: other operational fields, newer code, moved inputs."""

import dataclasses
import functools
import json
import pathlib

import pytest
from etils import epath

from elenchus.configs import defaults, lab
from elenchus.train.checkpoints import training_state
from elenchus.train.config import build, run_settings, stage_fields
from elenchus.train.run import provenance
from elenchus.train.run.directory import RunDirectory
from tests.support import small_run

FIELDS = pathlib.Path(__file__).parents[2] / 'golden' / 'config_fields.txt'
OPERATIONAL = {
    'train.log_every': 7,
    'train.checkpoint_every': 3,
    'train.keep_checkpoints': 5,
    'train.keep_finished_checkpoints': 4,
    'train.num_microbatches': 2,
    'train.compare_hosts_every': 0,
    'reinforce.checkpoint_every': 2,
    'model.remat': 'full',
    'model.attention': 'auto',
    'model.scan_layers': True,
    'model.logits_chunk': 128,
    'sampling.part_size': 2,
    'sampling.score.rows': 3,
    'sampling.engine.num_slots': 64,
    'sampling.engine.chunk_steps': 3,
    'sampling.engine.draft_tokens': 2,
    'sampling.engine.draft_ngram': 2,
    'data.data_dir': '/elsewhere',
    'data.answer.workers': 3,
    'mesh': (1, -1, 1),
}
BINDING = {
    'train.rows': 32,
    'train.length': 64,
    'seed': 5,
    'matmul_precision': 'bfloat16',
    'sampling.temperature': 0.3,
    'sampling.engine.quantize': 'int8',
    'sampling.engine.cache_dtype': 'int8',
    'data.answer.timeout_s': 1.0,
    'model.dtype': 'bfloat16',
}


@functools.cache
def config_of(changes):
    """(text, stages, settings) of the smoke config with other values at dotted paths."""
    config = lab.get_config('smoke')
    config.update_from_flattened_dict(dict(changes))
    return build.to_json(config), config.stages, build.build(run_settings.RunSettings, config)


def directory_of(workdir, changes=()):
    text, stages, settings = config_of(tuple(dict(changes).items()))
    reads = functools.partial(stage_fields.reads, settings)
    return RunDirectory(epath.Path(workdir), text, stages, part_size=5, reads=reads)


def start_all(workdir):
    """Writes the config of every stage as a run without changes starts it."""
    directory = directory_of(workdir)
    for name in directory.stages:
        directory.stage(name).write_text('config.json', directory.config)


@pytest.mark.parametrize('field', OPERATIONAL)
def test_a_field_that_changes_no_result_may_change(tmp_path, field):
    start_all(tmp_path)
    pair = {'draft_tokens': 'draft_ngram', 'draft_ngram': 'draft_tokens'}
    changes = {field: OPERATIONAL[field]}
    if other := pair.get(field.rpartition('.')[2]):
        changes[f'sampling.engine.{other}'] = 2
    directory_of(tmp_path, changes).check_stages()


@pytest.mark.parametrize('field', BINDING)
def test_a_field_that_changes_results_is_refused(tmp_path, field):
    start_all(tmp_path)
    with pytest.raises(ValueError, match=f'was started with another config: field {field} was'):
        directory_of(tmp_path, {field: BINDING[field]}).check_stages()


def test_caches_in_int8_bind_what_is_read_from_them(tmp_path):
    changes = {'sampling.engine.cache_dtype': 'int8'}
    directory = directory_of(tmp_path, changes)
    directory.stage('evaluate').write_text('config.json', directory.config)
    changes |= {'sampling.engine.prefill_chunk': 8}
    with pytest.raises(ValueError, match=r'field sampling.engine.prefill_chunk was 0, now 8'):
        directory_of(tmp_path, changes).check_stages()


# Newer code


def without(workdir, *fields):
    """Removes fields from the stages' configs, as if the code before did not have them."""
    for path in pathlib.Path(workdir).glob('stages/*/config.json'):
        config = json.loads(path.read_text())
        for field in fields:
            remove(config, *field.split('.'))
        path.write_text(json.dumps(config))


def remove(tree, name, *rest):
    """Removes a leaf, and the sections that are empty without it."""
    if rest:
        remove(tree[name], *rest)
    if not rest or not tree[name]:
        del tree[name]


def is_as_earlier(field):
    """Whether the earlier value of a field is that of the smoke config."""
    now = functools.reduce(dict.__getitem__, field.split('.'), json.loads(config_of(())[0]))
    return build._plain(stage_fields.EARLIER[field], field) == now


def test_a_config_without_fields_has_their_earlier_values(tmp_path):
    start_all(tmp_path)
    same = [field for field in stage_fields.EARLIER if is_as_earlier(field)]
    assert len(same) > 80
    without(tmp_path, *same)
    directory_of(tmp_path).check_stages()


@pytest.mark.parametrize('section', stage_fields.NEW_SECTIONS)
def test_a_run_from_before_a_section_continues_with_any_values_in_it(tmp_path, section):
    start_all(tmp_path)
    without(tmp_path, section)
    numbers = {'prefer': 'num_problems', 'sampling.tree': 'children', 'sampling.tools': 'max_calls'}
    name = numbers.get(section)
    directory_of(tmp_path, {f'{section}.{name}': 3} if name else {}).check_stages()


@pytest.mark.parametrize(
    ('section', 'changes', 'field'),
    [
        ('sampling.tools', {'use': ('calculator',)}, 'sampling.tools.use'),
        ('evaluate.adapt', {'make': 'shown'}, 'evaluate.adapt.make'),
    ],
)
def test_a_section_that_is_used_now_binds_a_run_from_before_it(tmp_path, section, changes, field):
    start_all(tmp_path)
    without(tmp_path, section)
    directory = directory_of(tmp_path)
    now = json.loads(directory.config)
    place = functools.reduce(dict.__getitem__, section.split('.'), now)
    place.update(changes)
    with pytest.raises(ValueError, match=f'field {field} was'):
        dataclasses.replace(directory, config=json.dumps(now)).check_stages()


def test_a_field_without_an_earlier_value_is_refused_when_it_is_read(tmp_path):
    start_all(tmp_path)
    without(tmp_path, 'train.rows')
    with pytest.raises(ValueError, match='field train.rows was absent, now'):
        directory_of(tmp_path).check_stages()


def test_an_earlier_value_that_differs_is_named(tmp_path, monkeypatch):
    start_all(tmp_path)
    without(tmp_path, 'train.rows')
    monkeypatch.setitem(stage_fields.EARLIER, 'train.rows', 3)
    with pytest.raises(ValueError, match='field train.rows was 3, now'):
        directory_of(tmp_path).check_stages()


def test_every_new_field_has_an_earlier_value():
    """A run of an earlier version could otherwise not continue.

    tests/golden/config_fields.txt lists the fields of the first version that this is checked for.
    """
    fields = set(build.diff({}, defaults.get_config()))
    new = fields - set(FIELDS.read_text().split()) - set(stage_fields.MAY_CHANGE)
    sections = tuple(f'{name}.' for name in stage_fields.NEW_SECTIONS)
    lacking = {f for f in new if f not in stage_fields.EARLIER and not f.startswith(sections)}
    assert not lacking, f'add to stage_fields.EARLIER: {sorted(lacking)}'


# Part sizes, damaged files, checkpoints


def test_a_stage_keeps_the_part_size_that_it_began_with(tmp_path):
    start_all(tmp_path)
    directory = directory_of(tmp_path, {'sampling.part_size': 2})
    assert directory.stage('evaluate').parts('', range(9)).size == 5
    assert directory.stage('evaluate').child('new').parts('', range(9)).size == 5


@pytest.mark.parametrize('content', ['', '{"sum', '\0\0\0', '[]', '\xff'])
@pytest.mark.parametrize('name', ['summary.json', 'config.json'])
def test_a_damaged_file_is_named_with_a_remedy(tmp_path, name, content):
    start_all(tmp_path)
    path = tmp_path / 'stages' / '00-base' / name
    path.write_bytes(content.encode('latin-1'))
    directory = directory_of(tmp_path)
    with pytest.raises(ValueError, match=rf'00-base/{name}: .*: delete it'):
        directory.stage('base').read_summary()


@pytest.mark.slow
@pytest.mark.parametrize('damage', ['tokens', 'array_record'])
def test_an_empty_part_is_sampled_again(tmp_path, damage):
    small_run.run(tmp_path / 'run')
    before = small_run.results(tmp_path / 'run')
    stage = tmp_path / 'run' / 'stages' / '01-vanilla'
    (stage / 'summary.json').unlink()
    next(stage.rglob(f'part-00001.{damage}')).write_bytes(b'')
    small_run.run(tmp_path / 'run')
    assert small_run.results(tmp_path / 'run') == before


@pytest.mark.slow
@pytest.mark.parametrize('keep', [0, 1])
def test_checkpoints_of_a_finished_stage_are_deleted(tmp_path, monkeypatch, keep):
    config = {'train': {'keep_finished_checkpoints': keep}}
    monkeypatch.setattr(small_run, 'CONFIG', json.dumps(config))
    folder = tmp_path / 'run' / 'stages' / '00-base' / 'checkpoints'
    delete, present = training_state.delete_oldest, []

    def spy(path, *, keep):
        model = path.parent / 'model' / 'model_config.json'
        present.append((model.exists(), (path.parent / 'summary.json').exists()))
        delete(path, keep=keep)

    monkeypatch.setattr(training_state, 'delete_oldest', spy)
    small_run.run(tmp_path / 'run')
    assert set(present) == {(True, True)}  # never before the model and its summary are whole
    steps = [p.name for p in folder.iterdir()] if folder.exists() else []
    assert steps == ['2'][:keep]
    small_run.run(tmp_path / 'run')


def test_checkpoints_stay_while_there_is_no_whole_model(tmp_path):
    stage = directory_of(tmp_path).stage('base')
    stage.write_json('summary.json', {})
    (stage.path / 'checkpoints' / '3').mkdir(parents=True)
    (stage.path / 'model').mkdir()
    stage.delete_checkpoints()
    assert (stage.path / 'checkpoints' / '3').exists()
    (stage.path / 'model' / 'model_config.json').write_text('{}')
    stage.delete_checkpoints()
    assert not (stage.path / 'checkpoints').exists()


# Provenance


def test_provenance_is_written_once_and_again_with_a_warning(tmp_path, monkeypatch, capsys):
    stage = directory_of(tmp_path).stage('base')
    monkeypatch.setattr('sys.argv', ['run.py', '--workdir=my runs'])
    for _ in range(2):
        provenance.record(stage)
    (entry,) = json.loads((stage.path / 'provenance.json').read_text())['starts']
    assert entry['jax'] and entry['devices'] and len(entry['code']) == 16 and entry['host']
    assert entry['command'] == "run.py '--workdir=my runs'"
    assert capsys.readouterr().err == ''
    monkeypatch.setattr(provenance, 'code_hash', lambda: 'another')
    monkeypatch.setattr('socket.gethostname', lambda: 'moved')
    provenance.record(stage)
    assert 'code another, before' in capsys.readouterr().err
    assert len(json.loads((stage.path / 'provenance.json').read_text())['starts']) == 2
