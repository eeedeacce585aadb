"""Conversion in both directions: bit-identical, complete, and never half written."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from elenchus.model import huggingface, sharding
from elenchus.model.huggingface import safetensors_files
from elenchus.model.placement import Placement
from elenchus.train.checkpoints import convert, saved_models
from tests.support import hf_models as peers
from tests.support import tiny_model

GOLDEN = json.loads(
    (pathlib.Path(__file__).parents[1] / 'golden' / 'families_golden.json').read_text()
)
HUGE = 10**9


def shapes_of(name):
    golden = GOLDEN[name]
    layers = range(golden['config']['num_hidden_layers'])
    return {n.format(i): tuple(shape) for n, shape in golden['tensors'].items() for i in layers}


def write(folder, name, hf_config=None):
    """Writes a complete model folder of `transformers`; returns its tensors."""
    tensors = peers.write(folder, hf_config or peers.CASES[name], shapes_of(name))
    (folder / 'tokenizer.json').write_text('{"a": "tokenizer"}')
    (folder / 'tokenizer_config.json').write_text('{}')
    (folder / 'chat_template.jinja').write_text('{{ messages }}')
    (folder / 'generation_config.json').write_text('{"eos_token_id": [3, 4]}')
    (folder / 'README.md').write_text('not carried')
    return tensors


def read(folder):
    stored = safetensors_files.list_tensors(folder)
    return {name: safetensors_files.read_tensor(tensor) for name, tensor in stored.items()}


def assert_same_tensors(actual, expected):
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        assert actual[name].dtype == values.dtype and actual[name].shape == values.shape, name
        assert actual[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize(
    ('name', 'dtype', 'mesh'),
    [
        pytest.param('qwen2-window', 'float32', None, marks=pytest.mark.slow),
        pytest.param('gemma3', 'bfloat16', None, marks=pytest.mark.slow),
        ('llama3', 'float32', (2, 4, 1)),
    ],
)
def test_importing_and_exporting_is_bit_identical_and_carries_the_files(
    tmp_path, name, dtype, mesh
):
    mesh = sharding.make_mesh(mesh) if mesh else tiny_model.one_device()
    source = tmp_path / 'theirs'
    tensors = write(source, name)
    if dtype == 'bfloat16':
        tensors = {
            n: values.astype(safetensors_files.DTYPES['BF16']) for n, values in tensors.items()
        }
        safetensors.numpy.save_file(tensors, source / 'model.safetensors')
    summary = convert.import_model(source, tmp_path / 'ours', dtype=None, mesh=mesh)
    assert f'{sum(v.size for v in tensors.values()):,} parameters' in summary
    convert.export_model(
        tmp_path / 'ours', tmp_path / 'back', files=None, mesh=mesh, file_bytes=HUGE
    )
    assert_same_tensors(read(tmp_path / 'back'), tensors)
    carried = {'tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'}
    carried |= {'generation_config.json'}
    names = {path.name for path in (tmp_path / 'back').iterdir()}
    assert names == carried | {'config.json', 'model.safetensors'}
    for file in carried:
        assert (tmp_path / 'back' / file).read_bytes() == (source / file).read_bytes()
    hf_config = json.loads((tmp_path / 'back' / 'config.json').read_text())
    assert hf_config.pop('torch_dtype') == dtype
    family = huggingface.family_of(hf_config)
    assert family.read_config(hf_config) == family.read_config(peers.CASES[name])
    _, fingerprint = saved_models.read_description(tmp_path / 'ours')
    assert len(fingerprint) == 12


def test_several_files_are_read_and_written_with_an_index(tmp_path):
    tensors = write(tmp_path / 'one', 'llama2')
    convert.import_model(
        tmp_path / 'one', tmp_path / 'ours', dtype=None, mesh=tiny_model.one_device()
    )
    export = {'files': None, 'mesh': tiny_model.one_device()}
    convert.export_model(tmp_path / 'ours', tmp_path / 'many', **export, file_bytes=8000)
    files = sorted((tmp_path / 'many').glob('*.safetensors'))
    assert len(files) > 3 and files[0].name == f'model-00001-of-{len(files):05d}.safetensors'
    for path in files:
        tensors_of_file = safetensors.numpy.load_file(path)
        size = sum(values.nbytes for values in tensors_of_file.values())
        assert len(tensors_of_file) == 1 or size <= 8000
    assert_same_tensors(read(tmp_path / 'many'), tensors)
    convert.import_model(
        tmp_path / 'many', tmp_path / 'again', dtype=None, mesh=tiny_model.one_device()
    )
    convert.export_model(tmp_path / 'again', tmp_path / 'whole', **export, file_bytes=HUGE)
    assert_same_tensors(safetensors.numpy.load_file(tmp_path / 'whole/model.safetensors'), tensors)
    files[1].unlink()
    with pytest.raises(
        ValueError, match=f'file not found: .*{files[1].name}, which .*index.json names'
    ):
        safetensors_files.list_tensors(tmp_path / 'many')
    index = json.loads((tmp_path / 'many' / safetensors_files.INDEX_FILE).read_text())
    index['weight_map'] = dict.fromkeys(index['weight_map'], files[0].name)
    (tmp_path / 'many' / safetensors_files.INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r'not in the file that .* names: .*model\.norm\.weight'):
        safetensors_files.list_tensors(tmp_path / 'many')


def test_every_wrong_tensor_is_named_and_nothing_is_written(tmp_path):
    source = tmp_path / 'theirs'
    tensors = write(source, 'llama3')
    del tensors['model.norm.weight'], tensors['model.layers.1.mlp.up_proj.weight']
    tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'] + 1
    tensors['model.layers.0.self_attn.q_proj.weight'] = np.zeros((24, 32), np.float32)
    tensors['model.layers.0.self_attn.rotary_emb.inv_freq'] = np.zeros(4, np.float32)
    safetensors.numpy.save_file(tensors, source / 'model.safetensors')
    with pytest.raises(ValueError) as error:
        convert.import_model(source, tmp_path / 'ours', dtype=None, mesh=tiny_model.one_device())
    assert str(error.value) == (
        'tensors do not match config.json: '
        'missing: model.layers.1.mlp.up_proj.weight, model.norm.weight; '
        'unexpected: lm_head.weight; '
        'misshaped: model.layers.0.self_attn.q_proj.weight (24, 32), not (32, 24); '
        f'lm_head.weight (40, 24) in {source / "model.safetensors"} is no copy of '
        'model.embed_tokens.weight (row 0 differs), though tie_word_embeddings is true in '
        'config.json (or by default): set it to false to import both, or remove the head'
    )
    assert not (tmp_path / 'ours').exists()


def test_other_dtypes_are_converted_only_with_an_explicit_dtype(tmp_path):
    source = tmp_path / 'theirs'
    tensors = write(source, 'llama3')
    tensors['model.norm.weight'] = tensors['model.norm.weight'].astype(np.float16)
    safetensors.numpy.save_file(tensors, source / 'model.safetensors')
    with pytest.raises(
        ValueError, match=r"dtypes \['F16', 'F32'\]; choose --dtype=float32 \(exact\)"
    ):
        convert.import_model(source, tmp_path / 'ours', dtype=None, mesh=tiny_model.one_device())
    convert.import_model(source, tmp_path / 'ours', dtype='bfloat16', mesh=tiny_model.one_device())
    config, fingerprint = saved_models.read_description(tmp_path / 'ours')
    assert (config.dtype, config.param_dtype) == ('bfloat16', 'bfloat16')
    model = saved_models.load_model(
        tmp_path / 'ours', config, mesh=tiny_model.one_device(), tokenizer_fingerprint=fingerprint
    )
    np.testing.assert_array_equal(
        model.final_norm.scale[...],
        tensors['model.norm.weight'].astype(safetensors_files.DTYPES['BF16']),
    )


@pytest.mark.parametrize('prefix', ['language_model.model.', 'model.language_model.'])
def test_the_text_model_is_imported_from_a_model_with_images(tmp_path, prefix):
    """Tensor names: those of published files, and those of newer versions of `transformers`."""
    source, hf_config = tmp_path / 'theirs', peers.CASES['gemma3']
    tensors = write(source, 'gemma3')
    images = {'vision_tower.patch.weight': np.ones((2, 2), np.float16)}
    images['model.multi_modal_projector.mm_soft_emb_norm.weight'] = np.ones(2, np.float32)
    renamed = {name.replace('model.', prefix, 1): values for name, values in tensors.items()}
    safetensors.numpy.save_file(renamed | images, source / 'model.safetensors')
    whole = {'model_type': 'gemma3', 'text_config': hf_config, 'eos_token_id': [1, 106]}
    (source / 'config.json').write_text(json.dumps(whole | {'vision_config': {}}))
    mesh = tiny_model.one_device()
    convert.import_model(source, tmp_path / 'ours', dtype=None, mesh=mesh)
    export = {'files': None, 'mesh': mesh, 'file_bytes': HUGE}
    convert.export_model(tmp_path / 'ours', tmp_path / 'back', **export)
    assert_same_tensors(read(tmp_path / 'back'), tensors)
    back = json.loads((tmp_path / 'back' / 'config.json').read_text())
    assert back['architectures'] == ['Gemma3ForCausalLM'] and back['eos_token_id'] == [1, 106]
    # `--files` may name the folder of the whole model, too.
    convert.export_model(tmp_path / 'ours', tmp_path / 'whole', **export | {'files': source})
    assert json.loads((tmp_path / 'whole' / 'config.json').read_text()) == back
    (source / 'config.json').write_text(json.dumps({'model_type': 'gemma3'}))
    with pytest.raises(ValueError, match=r'config\.json of gemma3: missing key text_config'):
        convert.import_model(source, tmp_path / 'new', dtype=None, mesh=mesh)


def test_a_model_of_our_own_is_exported_in_a_family_that_can_express_it(tmp_path):
    config = dataclasses.replace(tiny_model.CONFIG, qk_norm=True, max_length=16)
    model = Placement(tiny_model.one_device()).place(tiny_model.make_model(config))
    saved_models.save_model(tmp_path / 'ours', model, tokenizer_fingerprint='abc')
    beside = tmp_path / 'beside'
    beside.mkdir()
    (beside / 'tokenizer.model').write_bytes(b'pieces')
    convert.export_model(
        tmp_path / 'ours',
        tmp_path / 'theirs',
        files=beside,
        mesh=tiny_model.one_device(),
        file_bytes=HUGE,
    )
    hf_config = json.loads((tmp_path / 'theirs' / 'config.json').read_text())
    assert hf_config['architectures'] == ['Qwen3ForCausalLM']
    assert hf_config['max_position_embeddings'] == 16
    assert (tmp_path / 'theirs' / 'tokenizer.model').read_bytes() == b'pieces'
    convert.import_model(
        tmp_path / 'theirs', tmp_path / 'again', dtype=None, mesh=tiny_model.one_device()
    )
    config, fingerprint = saved_models.read_description(tmp_path / 'again')
    again = saved_models.load_model(
        tmp_path / 'again', config, mesh=tiny_model.one_device(), tokenizer_fingerprint=fingerprint
    )
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    (beside / 'config.json').write_text(json.dumps(hf_config | {'max_position_embeddings': 999}))
    convert.export_model(
        tmp_path / 'ours',
        tmp_path / 'long',
        files=beside,
        mesh=tiny_model.one_device(),
        file_bytes=HUGE,
    )
    assert json.loads((tmp_path / 'long' / 'config.json').read_text()) == hf_config | {
        'max_position_embeddings': 999
    }


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    mesh = tiny_model.one_device()
    with pytest.raises(ValueError, match=r'file not found: .*nothing/config\.json'):
        convert.import_model(tmp_path / 'nothing', tmp_path / 'ours', dtype=None, mesh=mesh)
    write(tmp_path / 'theirs', 'llama3')
    (tmp_path / 'ours').mkdir()
    (tmp_path / 'ours' / 'mine').write_text('kept')
    with pytest.raises(ValueError, match='ours already exists'):
        convert.import_model(tmp_path / 'theirs', tmp_path / 'ours', dtype=None, mesh=mesh)
    (tmp_path / 'theirs' / 'model.safetensors').unlink()
    with pytest.raises(ValueError, match='has neither model.safetensors nor'):
        convert.import_model(tmp_path / 'theirs', tmp_path / 'new', dtype=None, mesh=mesh)
    with pytest.raises(ValueError, match='no model at'):
        convert.export_model(
            tmp_path / 'nothing', tmp_path / 'new', files=None, mesh=mesh, file_bytes=HUGE
        )
    assert not (tmp_path / 'new').exists()


def test_options_that_would_have_no_effect_are_refused(tmp_path):
    mesh = tiny_model.one_device()
    write(tmp_path / 'theirs', 'qwen2')
    convert.import_model(tmp_path / 'theirs', tmp_path / 'ours', dtype=None, mesh=mesh)
    export = {'mesh': mesh, 'file_bytes': HUGE}
    for options, message in (
        ({'files': tmp_path / 'their'}, '--files=.*/their is no folder'),
        ({'files': tmp_path / 'theirs' / 'config.json'}, r'--files=.*/config\.json is no folder'),
        ({'files': None, 'base': 'Qwen/Qwen2.5'}, 'ours is a whole model; leave --base out'),
    ):
        with pytest.raises(ValueError, match=message):
            convert.export_model(tmp_path / 'ours', tmp_path / 'new', **export | options)
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(
    ('command', 'flag'), [('export', '--dtype=bfloat16'), ('import', '--files=models/mine')]
)
def test_an_option_of_the_other_command_is_refused(tmp_path, command, flag):
    words = ['-m', 'elenchus.scripts.convert', command, tmp_path / 'a', tmp_path / 'b', flag]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    name, other = flag.partition('=')[0], 'import' if command == 'export' else 'export'
    assert done.returncode == 2
    assert done.stderr == f'error: {name} is an option of {other}; leave it out of {command}\n'


def test_a_merge_replaces_nothing(tmp_path):
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'transformer.py').write_text('kept')
    words = ['-m', 'elenchus.scripts.merge', '--config=configs/lab.py:smoke', '--stage=actor',
             f'--workdir={tmp_path / "run"}', f'--out={tmp_path}']  # fmt: skip
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    message = f'{tmp_path / "model"} already exists; use a folder that does not exist'
    assert (done.returncode, done.stderr) == (2, f'error: {message}\n')
    assert not (tmp_path / 'run').exists()
