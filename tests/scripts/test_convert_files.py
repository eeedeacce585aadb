"""Files that other programs write: read as what they mean, or refused in one line with the name."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from elenchus.model import huggingface
from elenchus.model.huggingface import safetensors_files
from elenchus.train.checkpoints import convert
from tests.scripts import test_convert
from tests.support import hf_models as peers
from tests.support import slow_cases, tiny_model

TIED = [name for name, case in peers.CASES.items() if case['tie_word_embeddings']]
EMBEDDING = 'model.embed_tokens.weight'


def write(folder, name, *, changes=None, edit=None):
    """Writes a model folder; `edit` changes its tensors, `changes` its config.json."""
    hf_config = peers.CASES[name] | (changes or {})
    tensors = peers.write(folder, hf_config, test_convert.shapes_of(name))
    if edit is not None:
        tensors = edit(dict(tensors))
        safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
    return tensors


def imported(folder, dtype=None):
    """Imports a folder; returns the tensors of its export."""
    mesh, out = tiny_model.one_device(), folder.parent / f'{folder.name}_ours'
    convert.import_model(folder, out, dtype=dtype, mesh=mesh)
    back = folder.parent / f'{folder.name}_back'
    convert.export_model(out, back, files=None, mesh=mesh, file_bytes=10**9)
    return safetensors.numpy.load_file(back / 'model.safetensors')


def refusal(folder, dtype=None):
    """Returns the message of an import that is refused and writes nothing."""
    out = folder.parent / 'refused'
    with pytest.raises(ValueError) as error:
        convert.import_model(folder, out, dtype=dtype, mesh=tiny_model.one_device())
    assert '\n' not in str(error.value) and not out.exists()
    return str(error.value)


# Tied heads


@slow_cases.combinations(
    {('qwen2', True), ('gemma3', True), ('qwen2', False), ('gemma3', False)},
    name=TIED,
    said=[True, False],
)
def test_a_copy_of_a_tied_head_is_dropped(tmp_path, name, said):
    """Only Gemma is tied by default."""
    is_default = name.startswith('gemma')
    source = tmp_path / 'theirs'
    tensors = write(source, name, edit=lambda t: t | {'lm_head.weight': t[EMBEDDING].copy()})
    if not said:
        hf_config = {k: v for k, v in peers.CASES[name].items() if k != 'tie_word_embeddings'}
        (source / 'config.json').write_text(json.dumps(hf_config))
    back = imported(source)
    assert ('lm_head.weight' in back) == (not said and not is_default)
    assert all(np.array_equal(back[n], tensors[n]) for n in back)


@pytest.mark.parametrize('row', [0, 17, -1])
@pytest.mark.parametrize('name', ['qwen2', 'gemma3'])
def test_a_head_that_differs_from_its_embedding_is_refused(tmp_path, name, row):
    def edit(tensors):
        head = tensors[EMBEDDING].copy()
        head[row, 3] += 1e-3
        return tensors | {'lm_head.weight': head}

    write(tmp_path / 'theirs', name, edit=edit)
    message = refusal(tmp_path / 'theirs')
    assert f'is no copy of {EMBEDDING} (row {row % 40} differs)' in message
    assert 'tie_word_embeddings' in message and 'model.safetensors' in message


def test_a_tied_head_of_another_shape_or_dtype(tmp_path):
    rows = lambda t: t | {'lm_head.weight': t[EMBEDDING][:8].copy()}  # noqa: E731
    write(tmp_path / 'short', 'qwen2', edit=rows)
    assert 'lm_head.weight (8, 24) in ' in refusal(tmp_path / 'short')

    def exact(tensors):
        rounded = np.round(tensors[EMBEDDING] * 64) / 64
        return tensors | {EMBEDDING: rounded, 'lm_head.weight': rounded.astype(np.float16)}

    write(tmp_path / 'half', 'qwen2', edit=exact)
    assert 'lm_head.weight' not in imported(tmp_path / 'half')


def test_a_head_that_is_missing_is_named(tmp_path):
    write(tmp_path / 'theirs', 'qwen3', edit=lambda t: {k: t[k] for k in t if k[:2] != 'lm'})
    assert 'missing: lm_head.weight' in refusal(tmp_path / 'theirs')
    write(tmp_path / 'tied', 'qwen3', changes={'tie_word_embeddings': True},
          edit=lambda t: {k: t[k] for k in t if k[:2] != 'lm'})  # fmt: skip
    assert 'lm_head.weight' not in imported(tmp_path / 'tied')


# Values


PLACES = (EMBEDDING, 'model.norm.weight', 'model.layers.1.mlp.down_proj.weight',
          'model.layers.0.self_attn.q_proj.bias')  # fmt: skip


@slow_cases.combinations(
    {
        (PLACES[0], np.float32, np.nan),
        (PLACES[1], ml_dtypes.bfloat16, np.inf),
        (PLACES[2], np.float16, -np.inf),
        (PLACES[2], ml_dtypes.bfloat16, np.nan),
        (PLACES[3], np.float32, np.inf),
    },
    place=PLACES,
    dtype=[np.float32, ml_dtypes.bfloat16, np.float16],
    bad=[np.nan, np.inf, -np.inf],
)
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, bad, dtype, place):
    def edit(tensors):
        tensors = {name: values.astype(dtype) for name, values in tensors.items()}
        tensors[place].reshape(-1)[-1] = bad
        return tensors

    write(tmp_path / 'theirs', 'qwen2', edit=edit)
    choice = 'float32' if dtype == np.float16 else None
    assert f'{place} has values that are NaN or infinite' in refusal(tmp_path / 'theirs', choice)


def test_the_largest_finite_values_pass_and_an_overflow_does_not(tmp_path):
    def edit(tensors, value):
        tensors['model.norm.weight'] = tensors['model.norm.weight'].astype(np.float64)
        tensors['model.norm.weight'][0] = value
        return tensors

    largest = float(np.finfo(np.float32).max)
    write(tmp_path / 'large', 'qwen2', edit=lambda t: edit(t, -largest))
    assert imported(tmp_path / 'large', 'float32')['model.norm.weight'][0] == -largest
    write(tmp_path / 'over', 'qwen2', edit=lambda t: edit(t, largest * 10))
    assert 'model.norm.weight has values' in refusal(tmp_path / 'over', 'float32')
    write(tmp_path / 'round', 'qwen2', edit=lambda t: edit(t, largest))
    assert 'infinite in bfloat16' in refusal(tmp_path / 'round', 'bfloat16')


# Damaged folders


def sharded(folder, name='qwen2'):
    """Writes a model in two files; returns its index."""
    tensors = write(folder, name)
    (folder / 'model.safetensors').unlink()
    names = list(tensors)
    parts = {f'model-0000{i}-of-00002.safetensors': names[i - 1 :: 2] for i in (1, 2)}
    for file, own in parts.items():
        safetensors.numpy.save_file({n: tensors[n] for n in own}, folder / file)
    index = {'weight_map': {n: file for file, own in parts.items() for n in own}}
    (folder / safetensors_files.INDEX_FILE).write_text(json.dumps(index))
    return index


POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n'
INDEX, SHARD = safetensors_files.INDEX_FILE, 'model-00002-of-00002.safetensors'
DAMAGE = {
    'no map': (INDEX, '{"metadata": {}}', "no 'weight_map'"),
    'null map': (INDEX, '{"weight_map": null}', "no 'weight_map'"),
    'empty map': (INDEX, '{"weight_map": {}}', "no 'weight_map'"),
    'list map': (INDEX, '{"weight_map": [1]}', "no 'weight_map'"),
    'number': (INDEX, '{"weight_map": {"a": 3}}', 'is no name of a file'),
    'outside': (INDEX, '{"weight_map": {"a": "../x"}}', 'is no name of a file'),
    'cut': (INDEX, '{"weight_map": {"model.embed', 'invalid JSON'),
    'list': (INDEX, '[]', 'expected a JSON object'),
    'empty': (INDEX, '', 'is empty'),
    'pointer': (INDEX, POINTER, 'a pointer of Git LFS'),
    'page': (INDEX, '<html>Not found</html>', 'invalid JSON'),
    'shard pointer': (SHARD, POINTER, 'a pointer of Git LFS'),
    'shard empty': (SHARD, '', 'is empty'),
    'shard page': (SHARD, '<!doctype html><html>Access denied</html>', 'not a safetensors file'),
    'shard gone': (SHARD, None, 'file not found'),
    'config pointer': ('config.json', POINTER, 'a pointer of Git LFS'),
    'config empty': ('config.json', '', 'is empty'),
    'config cut': ('config.json', '{"model_type": "qwe', 'invalid JSON'),
    'config list': ('config.json', '[1]', 'expected a JSON object'),
    'config gone': ('config.json', None, 'file not found'),
    'config UTF-16': ('config.json', '{}'.encode('utf-16'), 'is not UTF-8'),
    'tokenizer pointer': ('tokenizer.json', POINTER, 'a pointer of Git LFS'),
    'tokenizer empty': ('tokenizer.json', '', 'is empty'),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_file_is_named_in_one_line(tmp_path, damage):
    folder = tmp_path / 'theirs'
    sharded(folder)
    (folder / 'tokenizer.json').write_text('{"a": 1}')
    name, content, message = DAMAGE[damage]
    if content is None:
        (folder / name).unlink()
    else:
        content = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(content)
    for dtype in (None, 'bfloat16'):
        error = refusal(folder, dtype)
        assert name in error and message in error


@pytest.mark.parametrize('share', [0.001, 0.01, 0.5, 0.99])
def test_a_download_cut_short_is_named(tmp_path, share):
    folder = tmp_path / 'theirs'
    sharded(folder)
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(content[: max(1, int(len(content) * share))])
    error = refusal(folder)
    assert SHARD in error and 'not a safetensors file' in error


def test_a_byte_order_mark_is_read_over(tmp_path):
    folder = tmp_path / 'theirs'
    sharded(folder)
    for name in ('config.json', INDEX):
        (folder / name).write_bytes(b'\xef\xbb\xbf' + (folder / name).read_bytes())
    assert EMBEDDING in imported(folder)


def test_a_second_copy_of_a_tensor_in_another_file_is_not_read(tmp_path):
    folder = tmp_path / 'theirs'
    index = sharded(folder)
    name = next(n for n, file in index['weight_map'].items() if file != SHARD)
    tensors = safetensors.numpy.load_file(folder / SHARD)
    other = peers.weights(test_convert.shapes_of('qwen2'), model_type='qwen2')[name]
    safetensors.numpy.save_file(tensors | {name: other + 1}, folder / SHARD)
    np.testing.assert_array_equal(imported(folder)[name], other)


def test_files_of_other_formats_are_named(tmp_path):
    write(tmp_path / 'theirs', 'qwen2')
    (tmp_path / 'theirs' / 'model.safetensors').rename(tmp_path / 'theirs' / 'pytorch_model.bin')
    assert 'pytorch_model.bin has another format' in refusal(tmp_path / 'theirs')


# Other forms


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'module.', 'base_model.model.'])
def test_wrappers_around_names_are_removed(tmp_path, prefix):
    source = tmp_path / 'theirs'
    tensors = write(source, 'qwen3')
    renamed = {prefix + name: values for name, values in tensors.items()}
    safetensors.numpy.save_file(renamed, source / 'model.safetensors')
    test_convert.assert_same_tensors(imported(source), tensors)


def test_two_tensors_of_one_name_are_refused(tmp_path):
    write(tmp_path / 'theirs', 'qwen2', edit=lambda t: t | {f'module.{n}': t[n] + 1 for n in t})
    message = refusal(tmp_path / 'theirs')
    assert 'module.model.' in message and ' are the same weight; remove one of them' in message


@pytest.mark.parametrize('name', ['qwen2', 'gemma3', 'llama2'])
def test_a_body_saved_without_its_head_is_read(tmp_path, name):
    source = tmp_path / 'theirs'
    tensors = write(source, name)
    body = {n.removeprefix('model.'): v for n, v in tensors.items()}
    safetensors.numpy.save_file(body, source / 'model.safetensors')
    test_convert.assert_same_tensors(imported(source), tensors)


NULLS = ['rope_scaling', 'rope_parameters', 'rope_theta', 'quantization_config', 'layer_types',
         'attention_bias', 'mlp_bias', 'hidden_act', 'use_sliding_window', 'max_window_layers',
         'sliding_window_pattern', 'rope_local_base_freq', 'hidden_activation', 'torch_dtype',
         'dtype', 'pretraining_tp', 'auto_map', 'use_bidirectional_attention']  # fmt: skip


@pytest.mark.parametrize(
    'name', ['llama2', 'mistral', 'qwen2', 'qwen3', 'gemma2', 'gemma3-default']
)
def test_nulls_mean_that_a_key_is_missing(tmp_path, name):
    case = peers.CASES[name]
    family = huggingface.family_of(case)
    for key in NULLS:
        without = {k: v for k, v in case.items() if k != key}
        assert family.read_config(without | {key: None}) == family.read_config(without), key
    for key in ('tie_word_embeddings', 'rms_norm_eps'):
        without = {k: v for k, v in case.items() if k != key}
        assert family.read_config(without | {key: None}) == family.read_config(without), key


def test_extra_keys_and_newer_spellings_are_carried(tmp_path):
    extra = {'dtype': 'float32', 'torch_dtype': None, 'transformers_version': '5.0.0',
             'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e6}, 'my_key': {'a': [1]},
             'head_dim': None, 'use_cache': True, 'pad_token_id': None}  # fmt: skip
    tensors = write(tmp_path / 'theirs', 'qwen2', changes=extra)
    test_convert.assert_same_tensors(imported(tmp_path / 'theirs'), tensors)
    back = json.loads((tmp_path / 'theirs_back' / 'config.json').read_text())
    assert back['my_key'] == {'a': [1]} and back['rope_theta'] == 1e6 and back['head_dim'] == 6
    assert 'dtype' not in back and back['torch_dtype'] == 'float32'


def test_derived_tensors_have_no_say_in_the_dtype(tmp_path):
    derived = {'model.layers.0.self_attn.rotary_emb.inv_freq': np.ones(3, np.float32)}
    write(tmp_path / 'theirs', 'llama2', edit=lambda t: {
        n: v.astype(ml_dtypes.bfloat16) for n, v in t.items()
    } | derived)  # fmt: skip
    assert imported(tmp_path / 'theirs')[EMBEDDING].dtype == ml_dtypes.bfloat16


def test_an_embedding_with_more_rows_than_the_config_says_is_named(tmp_path):
    padded = lambda t: t | {EMBEDDING: np.pad(t[EMBEDDING], ((0, 24), (0, 0)))}  # noqa: E731
    write(tmp_path / 'theirs', 'qwen2', edit=padded)
    assert f'misshaped: {EMBEDDING} (64, 24), not (40, 24)' in refusal(tmp_path / 'theirs')
    write(tmp_path / 'padded', 'qwen2', edit=padded, changes={'vocab_size': 64})
    assert imported(tmp_path / 'padded')[EMBEDDING].shape == (64, 24)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'hidden_size': '24'}, "hidden_size='24' must be a positive integer"),
    ({'num_hidden_layers': 0}, 'num_hidden_layers=0 must be a positive integer'),
    ({'num_hidden_layers': True}, 'num_hidden_layers=True must be'),
    ({'vocab_size': 40.5}, 'vocab_size=40.5 must be'),
    ({'num_key_value_heads': -1}, 'num_key_value_heads=-1 must be'),
    ({'rms_norm_eps': 'small'}, "rms_norm_eps='small' must be a finite number"),
    ({'tie_word_embeddings': 'true'}, "tie_word_embeddings='true' must be true or false"),
    ({'sliding_window': [4]}, r'sliding_window=[4] must be an integer'),
    ({'use_sliding_window': True, 'layer_types': ['full_attention']}, 'must be a list of 2 names'),
    ({'use_sliding_window': True, 'layer_types': ['chunked_attention'] * 2}, 'unknown layer_types'),
    ({'model_type': None}, 'unknown model_type'),
    ({'model_type': ['qwen2']}, 'unknown model_type'),
])  # fmt: skip
def test_values_of_another_type_are_named(tmp_path, changes, message):
    source = tmp_path / 'theirs'
    write(source, 'qwen2')
    (source / 'config.json').write_text(json.dumps(peers.CASES['qwen2'] | changes))
    assert message in refusal(source)
