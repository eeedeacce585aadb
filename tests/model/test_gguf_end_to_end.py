"""GGUF files of tiny models of every family: weights and logits as in `transformers`."""

import numpy as np
import pytest

from elenchus.model import sharding
from elenchus.scripts.bench import compare_import
from elenchus.train.checkpoints import convert, import_sources, saved_models
from tests.support import gguf_models

QUANTIZATIONS = ('F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_K', 'Q6_K')
READ_BY_THEM = {
    'mistral': {'sliding_window': 64},
    'gemma3_text': {'sliding_window': 64, 'head_dim': 256, 'query_pre_attn_scalar': 256},
}
"""What `transformers` takes a file to say: no window for Mistral, and Gemma 3's scale by 256."""
TOKENS = np.random.default_rng(0).integers(0, 320, (1, 24), np.int32)


@pytest.fixture(autouse=True)
def libraries():
    pytest.importorskip('gguf')
    pytest.importorskip('torch')
    pytest.importorskip('transformers', exc_type=ImportError)


def our_logits(path, folder):
    mesh = sharding.make_mesh([-1, 1, 1])  # all devices: the tests have several
    convert.import_model(path, folder, dtype=None, mesh=mesh)
    config, fingerprint = saved_models.read_description(folder)
    model = saved_models.load_model(folder, config, mesh=mesh, tokenizer_fingerprint=fingerprint)
    return compare_import.logits_of(model, TOKENS, padding=0)


@pytest.mark.slow
@pytest.mark.parametrize('kind', list(gguf_models.ARCHITECTURES))
def test_weights_are_those_that_were_written(tmp_path, kind):
    model = gguf_models.make_model(kind, num_hidden_layers=1)
    gguf_models.write_file(tmp_path / 'm.gguf', model, tied=model.config.tie_word_embeddings)
    read = import_sources.read_gguf(tmp_path / 'm.gguf')
    expected = {name: values.numpy() for name, values in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del expected['lm_head.weight']
    assert set(read.weights.tensors) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(read.weights.read(name), values, rtol=0, atol=1e-7)
    assert read.hf_config['tie_word_embeddings'] == model.config.tie_word_embeddings


@pytest.mark.slow
@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('kind', list(gguf_models.ARCHITECTURES))
def test_logits_are_those_of_the_model_that_was_written(tmp_path, kind, tied):
    model = gguf_models.make_model(kind, tie_word_embeddings=tied)
    gguf_models.write_file(tmp_path / 'm.gguf', model, tied=tied)
    ours = our_logits(tmp_path / 'm.gguf', tmp_path / 'out')
    np.testing.assert_allclose(ours, compare_import.torch_logits(model, TOKENS), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize('quantization', QUANTIZATIONS)
@pytest.mark.parametrize('kind', list(gguf_models.ARCHITECTURES))
def test_logits_are_those_of_transformers_loading_the_same_file(tmp_path, kind, quantization):
    path = tmp_path / 'm.gguf'
    model = gguf_models.make_model(kind, **READ_BY_THEM.get(kind, {}))
    tied = model.config.tie_word_embeddings
    gguf_models.write_file(path, model, quantization=quantization, tied=tied)
    theirs = compare_import.load_theirs(path)(TOKENS)
    ours = our_logits(path, tmp_path / 'out')
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize('cut', [0.3, 0.6, 0.99])
@pytest.mark.parametrize('kind', ['llama', 'gemma3_text'])
def test_a_file_that_ends_early_is_refused_in_one_line(tmp_path, kind, cut):
    model = gguf_models.make_model(kind, num_hidden_layers=1)
    gguf_models.write_file(tmp_path / 'm.gguf', model, tied=True)
    content = (tmp_path / 'm.gguf').read_bytes()
    (tmp_path / 'm.gguf').write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(ValueError, match=r'm\.gguf is damaged or cut off') as error:
        import_sources.read_gguf(tmp_path / 'm.gguf').weights.read('model.norm.weight')
    assert '\n' not in str(error.value)
