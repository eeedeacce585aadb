"""Quantized files: fp8 is dequantized with its scales, and all others are refused by name."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from elenchus.model.huggingface import quantized_files
from tests.scripts import test_convert
from tests.scripts.test_convert_files import imported, refusal, write
from tests.support import slow_cases


def matrices(change, others=ml_dtypes.bfloat16):
    """Edits all matrices of the blocks; other tensors get another dtype."""

    def edit(tensors):
        edited = {}
        for name, values in tensors.items():
            is_matrix = 'proj.weight' in name
            edited |= change(name, values) if is_matrix else {name: values.astype(others)}
        return edited

    return edit


def packed(name, values):
    return {name.replace('.weight', '.qweight'): np.zeros((4, 4), np.int32),
            name.replace('.weight', '.qzeros'): np.zeros((4, 1), np.int32),
            name.replace('.weight', '.scales'): np.ones((4, 4), np.float16)}  # fmt: skip


INTEGERS = {
    'bitsandbytes': lambda n, v: {
        n: np.zeros((v.size // 2, 1), np.uint8), f'{n}.absmax': np.zeros(4, np.uint8),
        f'{n}.quant_map': np.zeros(16, np.float32),
        f'{n}.quant_state.bitsandbytes__nf4': np.zeros(8, np.uint8),
    },
    'bitsandbytes 8': lambda n, v: {
        n: np.zeros(v.shape, np.int8), n.replace('weight', 'SCB'): np.ones(v.shape[0], np.float32)
    },
    'gptq': packed,
    'awq': packed,
    'compressed-tensors': lambda n, v: {
        n: v.astype(np.int8), f'{n}_scale': np.ones((v.shape[0], 1), ml_dtypes.bfloat16)
    },
    'mxfp4': lambda n, v: {f'{n}_blocks': np.zeros((4, 2), np.uint8)},
    '': lambda n, v: {n: np.round(v * 100).clip(-127, 127).astype(np.int8)},
    ' uint8': lambda n, v: {n: v.astype(np.uint8)},
}  # fmt: skip


@pytest.mark.parametrize('dtype', [None, 'float32', 'bfloat16'])
@pytest.mark.parametrize('kind', INTEGERS)
@pytest.mark.parametrize('said', [True, False], ids=['in-config', 'by-tensors'])
def test_integers_are_refused_at_once_with_a_name(tmp_path, kind, dtype, said):
    method = kind.split()[0] if kind.split() else None
    changes = {'quantization_config': {'quant_method': method} if said and method else None}
    write(tmp_path / 'theirs', 'qwen2', changes=changes, edit=matrices(INTEGERS[kind]))
    message = refusal(tmp_path / 'theirs', dtype)
    assert 'model.safetensors: model.layers.0.' in message and 'has dtype' in message
    assert 'cannot be imported' in message and len(message) < 400
    if said and method:
        assert f'quantized ({method})' in message
    elif kind.strip() in ('', 'uint8'):
        assert 'integers without scales' in message
    elif method not in ('compressed-tensors',):
        assert 'quantized (' in message


def blocks(shape, block):
    return tuple(-(-n // b) for n, b in zip(shape, block, strict=True))


def fp8(kind, block, dtype=ml_dtypes.float8_e4m3fn):
    """Edits matrices into fp8 with random scales of one kind."""

    def change(name, values):
        rng = np.random.default_rng(len(name))
        shape = {'block': block and blocks(values.shape, block), 'matrix': (), 'one': (1,),
                 'row': (values.shape[0], 1), 'rows': values.shape[:1]}[kind]  # fmt: skip
        scale = rng.uniform(0.001, 0.01, shape).astype(np.float32)
        end = '_scale_inv' if kind == 'block' else '_scale'
        return {name: (values * 100).astype(dtype), name + end: scale,
                name.replace('weight', 'input_scale'): np.ones((), np.float32)}  # fmt: skip

    return matrices(change)


@slow_cases.combinations(
    {(('block', (7, 5)), 'E4M3'), (('matrix', None), 'E5M2'), (('one', None), 'E4M3'),
     (('row', None), 'E5M2'), (('rows', None), 'E4M3')},
    scaled=[('block', (128, 128)), ('block', (7, 5)), ('block', (16, 40)), ('block', (64, 3)),
            ('matrix', None), ('one', None), ('row', None), ('rows', None)],
    dtype=['E4M3', 'E5M2'],
)  # fmt: skip
def test_fp8_is_dequantized_with_its_scales(tmp_path, scaled, dtype):
    kind, block = scaled
    types = {'E4M3': ml_dtypes.float8_e4m3fn, 'E5M2': ml_dtypes.float8_e5m2}
    said = {'quant_method': 'fp8', 'weight_block_size': list(block) if block else None}
    tensors = write(
        tmp_path / 'theirs', 'qwen2', changes={'quantization_config': said},
        edit=fp8(kind, block, types[dtype]),
    )  # fmt: skip
    back = imported(tmp_path / 'theirs', 'float32')
    for name, values in tensors.items():
        if values.dtype != types[dtype]:
            continue
        scale = tensors.get(f'{name}_scale_inv', tensors.get(f'{name}_scale'))
        for i in range(values.shape[0]):
            for j in range(values.shape[1]):
                factor = (
                    scale[i // block[0], j // block[1]] if kind == 'block'
                    else scale.reshape(-1)[i if kind[:3] == 'row' else 0]
                )  # fmt: skip
                assert back[name][i, j] == np.float32(values[i, j]) * factor


def test_fp8_takes_the_dtype_of_the_other_weights(tmp_path):
    write(tmp_path / 'theirs', 'qwen2', edit=fp8('block', (128, 128)))
    back = imported(tmp_path / 'theirs')
    assert {v.dtype.name for v in back.values()} == {'bfloat16'}


def test_fp8_without_fitting_scales_is_refused(tmp_path):
    raw = matrices(lambda n, v: {n: v.astype(ml_dtypes.float8_e4m3fn)})
    write(tmp_path / 'raw', 'qwen2', edit=raw)
    for dtype in (None, 'bfloat16'):
        message = refusal(tmp_path / 'raw', dtype)
        assert 'has dtype F8_E4M3, but its scale is missing' in message
        assert 'proj.weight_scale_inv' in message
    for kind, block, said in (('block', (8, 8), [16, 16]), ('block', (7, 5), None)):
        folder = tmp_path / f'{kind}{said}'
        method = {'quantization_config': {'quant_method': 'fp8', 'weight_block_size': said}}
        write(folder, 'qwen2', changes=method, edit=fp8(kind, block))
        assert 'must be floats of one of the shapes' in refusal(folder)
    bad = {'quantization_config': {'quant_method': 'fp8', 'weight_block_size': [0, 'a']}}
    write(tmp_path / 'bad', 'qwen2', changes=bad, edit=fp8('block', (128, 128)))
    assert 'weight_block_size' in refusal(tmp_path / 'bad')


@pytest.mark.parametrize('key', quantized_files.CONFIG_KEYS)
def test_a_leftover_quantization_is_not_exported(tmp_path, key):
    leftover = {key: {'quant_method': 'bitsandbytes', 'load_in_4bit': True}}
    tensors = write(tmp_path / 'theirs', 'qwen2', changes=leftover)
    test_convert.assert_same_tensors(imported(tmp_path / 'theirs'), tensors)
    assert key not in json.loads((tmp_path / 'theirs_back' / 'config.json').read_text())


@pytest.mark.slow
@pytest.mark.filterwarnings('default')
def test_fp8_blocks_are_dequantized_as_transformers_does(tmp_path):
    for module in ('torch', 'transformers'):
        pytest.importorskip(module, exc_type=ImportError)
    import transformers

    said = {'quant_method': 'fp8', 'activation_scheme': 'dynamic', 'weight_block_size': [8, 4]}
    source = tmp_path / 'theirs'
    tensors = write(source, 'qwen3-tied', changes={'quantization_config': said},
                    edit=fp8('block', (8, 4)))  # fmt: skip
    kept = {n: v for n, v in tensors.items() if not n.endswith('input_scale')}
    safetensors.numpy.save_file(kept, source / 'model.safetensors', metadata={'format': 'pt'})
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype='float32',
        quantization_config=transformers.FineGrainedFP8Config(
            weight_block_size=(8, 4), dequantize=True
        ),
    )  # fmt: skip
    back = imported(source, 'float32')
    theirs = {name: t.detach().float().numpy() for name, t in model.named_parameters()}
    assert back.keys() == theirs.keys()
    for name, values in back.items():
        np.testing.assert_allclose(values, theirs[name], rtol=1e-2, err_msg=name)
