"""Families against golden numbers of `transformers`, and round trips of config.json."""

import dataclasses
import functools
import json
import pathlib

import jax
import numpy as np
import pytest

from elenchus.model import config as config_lib
from elenchus.model import huggingface, sharding, transformer
from elenchus.model.config import ModelConfig
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.train.checkpoints import saved_models
from tests.support import hf_models, slow_cases, tiny_model

FOLDER = pathlib.Path(__file__).parents[1] / 'golden'
GOLDEN = json.loads((FOLDER / 'families_golden.json').read_text())
NUMERICS = {
    'dtype': 'float32',
    'param_dtype': 'float32',
    'attention': 'einsum',
    'remat': 'none',
    'scan_layers': True,
    'logits_chunk': 64,
}
each = pytest.mark.parametrize('name', GOLDEN)


def config_of(hf_config):
    family = huggingface.family_of(hf_config)
    return ModelConfig(**family.read_config(hf_config), **NUMERICS)


@functools.cache
def model_of(name):
    """The model of a golden case, loaded through the tables of its family."""
    hf_config, tensors = GOLDEN[name]['config'], GOLDEN[name]['tensors']
    layers = range(hf_config['num_hidden_layers'])
    values = hf_models.weights(
        {n.format(i): shape for n, shape in tensors.items() for i in layers},
        model_type=hf_config['model_type'],
    )
    return model_from(hf_config, values)


def model_from(hf_config, values):
    """The model of a config.json with these tensors."""
    config, values = config_of(hf_config), dict(values)
    model = saved_models.abstract_model(config, sharding.make_mesh((8, 1, 1)))
    shapes = {n: tuple(leaf.shape) for n, leaf in saved_models.parameters(model).items()}
    parameters = {n: np.zeros(shape, np.float32) for n, shape in shapes.items()}
    for t in huggingface.family_of(hf_config).tensors(shapes):
        assert values[t.name].shape == t.shape
        parameters[t.parameter][t.index] = t.to_parameter(values.pop(t.name))
    assert not values
    return saved_models.with_parameters(model, jax.tree.map(jax.numpy.asarray, parameters))


@tiny_model.jit
def logits_of(model, tokens, positions, segments):
    hidden, _ = model(tokens, positions, segments=segments)
    return model.logits(hidden)


def inputs():
    tokens = hf_models.tokens().astype(np.int32)
    positions = np.broadcast_to(np.arange(hf_models.LENGTH, dtype=np.int32), tokens.shape)
    return tokens, positions


def test_the_cases_are_those_that_the_script_writes():
    assert list(GOLDEN) == list(hf_models.CASES)
    assert {case['model_type'] for case in hf_models.CASES.values()} == set(huggingface.FAMILIES)


@each
def test_logits_are_those_of_the_peer(name):
    expected = np.load(FOLDER / 'families_golden.npz')[name]
    tokens, positions = inputs()
    actual = logits_of(model_of(name), tokens, positions, np.ones_like(tokens))
    np.testing.assert_allclose(actual[:, hf_models.KEPT], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize('name', ['mistral-window', 'gemma3'])
def test_a_packed_row_with_padding_gives_the_logits_of_its_sequences_alone(name):
    """A window never reaches the sequence before it in the row."""
    tokens, positions = inputs()
    alone = logits_of(model_of(name), tokens, positions, np.ones_like(tokens))
    half, cut = hf_models.LENGTH // 2, 15
    packed, at, segments = tokens.copy(), positions.copy(), np.ones_like(tokens)
    packed[0, half:], at[0, half:], segments[0, half:] = tokens[1, :half], positions[1, :half], 2
    segments[1, cut:] = 0
    for padding in (1, 2):
        packed[1, cut:] = padding
        together = np.asarray(logits_of(model_of(name), packed, at, segments))
        np.testing.assert_allclose(together[0], np.concatenate(alone[:, :half]), atol=2e-5)
        np.testing.assert_allclose(together[1, :cut], alone[1, :cut], atol=2e-5)


@slow_cases.combinations({('gemma3',), ('mixtral',)}, name=hf_models.GENERATING)
def test_greedy_continuations_are_those_of_the_peer(name):
    """Decodes with the engine's cache, far beyond the longest window."""
    prompts = hf_models.tokens()[:, : hf_models.PROMPT]
    requests = [
        engine.Request(i, tuple(map(int, p)), hf_models.GENERATED) for i, p in enumerate(prompts)
    ]
    shapes = engine.EngineSettings(
        num_slots=2, max_length=hf_models.PROMPT + hf_models.GENERATED,
        chunk_steps=hf_models.GENERATED,
        prompt_buckets=(12,), prefill_batch_sizes=(2,),
        decode_batch_sizes=(), decode_cache_lengths=(),
    )  # fmt: skip
    sampler = engine.Engine(shapes, stop_ids=(hf_models.VOCAB,))
    completions = sampler.generate(
        model_of(name), requests, method=sampling_methods.Greedy(()), seed=0
    )
    assert [list(completion.tokens) for completion in completions] == GOLDEN[name]['continued']


@each
def test_a_config_is_read_the_same_in_the_older_form_and_after_it_was_written(name):
    config = config_of(GOLDEN[name]['config'])
    assert config_of(hf_models.CASES[name]) == config
    assert config_of(huggingface.family_of(hf_models.CASES[name]).write_config(config)) == config


@each
def test_a_family_is_chosen_by_the_config_alone(name):
    """Mistral without a window is a Llama; its tensors have the same names."""
    expected = 'llama' if name == 'mistral' else hf_models.CASES[name]['model_type']
    assert huggingface.family_for(config_of(hf_models.CASES[name])).model_type == expected


@each
def test_tensors_survive_the_round_trip_through_parameters(name):
    model = saved_models.abstract_model(
        config_of(hf_models.CASES[name]), sharding.make_mesh((8, 1, 1))
    )
    shapes = {n: tuple(leaf.shape) for n, leaf in saved_models.parameters(model).items()}
    for tensor in huggingface.family_of(hf_models.CASES[name]).tensors(shapes):
        values = np.random.default_rng(0).standard_normal(tensor.shape)
        ours = tensor.to_parameter(values)
        assert ours.shape == shapes[tensor.parameter][len(tensor.index) :]
        np.testing.assert_array_equal(tensor.to_tensor(ours), values)


LLAMA_3_1 = {
    'model_type': 'llama', 'vocab_size': 128256, 'hidden_size': 4096, 'intermediate_size': 14336,
    'num_hidden_layers': 32, 'num_attention_heads': 32, 'num_key_value_heads': 8,
    'max_position_embeddings': 131072, 'rms_norm_eps': 1e-05, 'rope_theta': 500000.0,
    'tie_word_embeddings': False, 'attention_bias': False, 'hidden_act': 'silu', 'mlp_bias': False,
    'rope_scaling': {
        'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
        'original_max_position_embeddings': 8192, 'rope_type': 'llama3',
    },
}  # fmt: skip
GEMMA_3_1B = {
    'model_type': 'gemma3_text', 'vocab_size': 262144, 'hidden_size': 1152,
    'intermediate_size': 6912, 'num_hidden_layers': 26, 'num_attention_heads': 4,
    'num_key_value_heads': 1, 'head_dim': 256, 'max_position_embeddings': 32768,
    'rms_norm_eps': 1e-06, 'rope_theta': 1000000, 'rope_local_base_freq': 10000,
    'rope_scaling': None, 'query_pre_attn_scalar': 256, 'sliding_window': 512,
    'sliding_window_pattern': 6, 'attn_logit_softcapping': None, 'final_logit_softcapping': None,
    'hidden_activation': 'gelu_pytorch_tanh', 'attention_bias': False,
}  # fmt: skip
QWEN_2_5_HALF_B = {
    'model_type': 'qwen2', 'vocab_size': 151936, 'hidden_size': 896, 'intermediate_size': 4864,
    'num_hidden_layers': 24, 'num_attention_heads': 14, 'num_key_value_heads': 2,
    'max_position_embeddings': 32768, 'rms_norm_eps': 1e-06, 'rope_theta': 1000000.0,
    'tie_word_embeddings': True, 'use_sliding_window': False, 'sliding_window': 32768,
    'max_window_layers': 24, 'hidden_act': 'silu',
}  # fmt: skip
PUBLISHED = {
    'Llama 3.1 8B': (LLAMA_3_1, 8_030_261_248, (0,)),
    'Gemma 3 1B': (GEMMA_3_1B, 999_885_952, (512, 512, 512, 512, 512, 0)),
    'Qwen 2.5 0.5B': (QWEN_2_5_HALF_B, 494_032_768, (0,)),
    'Mistral 7B': (
        {
            'model_type': 'mistral', 'vocab_size': 32000, 'hidden_size': 4096,
            'intermediate_size': 14336, 'num_hidden_layers': 32, 'num_attention_heads': 32,
            'num_key_value_heads': 8, 'max_position_embeddings': 32768, 'rms_norm_eps': 1e-05,
            'rope_theta': 10000.0, 'sliding_window': 4096, 'tie_word_embeddings': False,
        },
        7_241_732_096,
        (4096,),
    ),
    'Qwen 3 0.6B': (
        {
            **QWEN_2_5_HALF_B, 'model_type': 'qwen3', 'hidden_size': 1024, 'head_dim': 128,
            'intermediate_size': 3072, 'num_hidden_layers': 28, 'num_attention_heads': 16,
            'num_key_value_heads': 8, 'attention_bias': False, 'sliding_window': None,
        },
        596_049_920,
        (0,),
    ),
    'Gemma 2 2B': (
        {
            'model_type': 'gemma2', 'vocab_size': 256000, 'hidden_size': 2304,
            'intermediate_size': 9216, 'num_hidden_layers': 26, 'num_attention_heads': 8,
            'num_key_value_heads': 4, 'head_dim': 256, 'max_position_embeddings': 8192,
            'rms_norm_eps': 1e-06, 'rope_theta': 10000.0, 'query_pre_attn_scalar': 256,
            'sliding_window': 4096, 'attn_logit_softcapping': 50.0,
            'final_logit_softcapping': 30.0, 'hidden_activation': 'gelu_pytorch_tanh',
        },
        2_614_341_888,
        (4096, 0),
    ),
    'Qwen 3 30B-A3B': (
        {
            'model_type': 'qwen3_moe', 'vocab_size': 151936, 'hidden_size': 2048, 'head_dim': 128,
            'intermediate_size': 6144, 'moe_intermediate_size': 768, 'num_hidden_layers': 48,
            'num_attention_heads': 32, 'num_key_value_heads': 4, 'num_experts': 128,
            'num_experts_per_tok': 8, 'norm_topk_prob': True, 'decoder_sparse_step': 1,
            'mlp_only_layers': [], 'max_position_embeddings': 40960, 'rms_norm_eps': 1e-06,
            'rope_theta': 1000000.0, 'tie_word_embeddings': False, 'use_sliding_window': False,
            'sliding_window': None, 'max_window_layers': 48, 'output_router_logits': False,
            'router_aux_loss_coef': 0.001, 'attention_bias': False, 'hidden_act': 'silu',
        },
        30_532_122_624,
        (0,),
    ),
    'Mixtral 8x7B': (
        {
            'model_type': 'mixtral', 'vocab_size': 32000, 'hidden_size': 4096,
            'intermediate_size': 14336, 'num_hidden_layers': 32, 'num_attention_heads': 32,
            'num_key_value_heads': 8, 'max_position_embeddings': 32768, 'rms_norm_eps': 1e-05,
            'rope_theta': 1000000.0, 'sliding_window': None, 'tie_word_embeddings': False,
            'num_local_experts': 8, 'num_experts_per_tok': 2, 'output_router_logits': False,
        },
        46_702_792_704,
        (0,),
    ),
}  # fmt: skip
"""Published models: (config.json, number of parameters, windows)."""


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_models_have_their_number_of_parameters(name):
    hf_config, parameters, windows = PUBLISHED[name]
    config = config_of(hf_config)
    assert config_lib.num_parameters(config) == parameters
    assert config.windows == windows
    assert config_of(huggingface.family_of(hf_config).write_config(config)) == config


def test_unsupported_values_are_refused_by_key():
    for changes, message in (
        ({'attention_bias': True}, 'attention_bias=True is not supported; nearest: False'),
        ({'hidden_act': 'relu'}, "hidden_act='relu' is not supported; nearest: 'silu'"),
        ({'rope_scaling': {'rope_type': 'dynamic'}}, "rope_type='dynamic' is not supported"),
        ({'model_type': 'gemma'}, "unknown model_type='gemma'; .*; nearest: 'gemma"),
    ):
        with pytest.raises(ValueError, match=message):
            config_of(LLAMA_3_1 | changes)
    # The description of a saved model with a float could not be read.
    with pytest.raises(ValueError, match='query_pre_attn_scalar=9.5 must be an integer'):
        config_of(GEMMA_3_1B | {'query_pre_attn_scalar': 9.5})
    sparse = PUBLISHED['Qwen 3 30B-A3B'][0]
    for changes, message in (
        ({'mlp_only_layers': [0]}, r'mlp_only_layers=\[0\] is not supported; nearest: \[\]'),
        ({'decoder_sparse_step': 2}, 'decoder_sparse_step=2 is not supported; nearest: 1'),
        ({'use_sliding_window': True}, 'use_sliding_window=True is not supported; nearest: False'),
        ({'num_experts_per_tok': 0}, 'num_experts_per_tok=0 must be a positive integer'),
        ({'num_local_experts': 64}, "'num_local_experts': 64} name different numbers of experts"),
        ({'norm_topk_prob': 1}, 'norm_topk_prob=1 must be true or false'),
    ):
        with pytest.raises(ValueError, match=message):
            config_of(sparse | changes)
    with pytest.raises(ValueError, match="config.json of llama: missing key 'vocab_size'"):
        config_of({'model_type': 'llama'})


def test_a_config_that_no_family_can_express_is_refused_by_field():
    config = config_of(LLAMA_3_1)
    with pytest.raises(ValueError, match=r'llama cannot express layer_windows=\(4, 0'):
        huggingface.FAMILIES['llama'].write_config(dataclasses.replace(config, windows=(4, 0)))
    with pytest.raises(
        ValueError, match='no family can express this model: llama cannot express post_n'
    ):
        huggingface.family_for(dataclasses.replace(config, post_norms=True))
    with pytest.raises(ValueError, match='gemma2 cannot express .*zero_centered_norms=False'):
        huggingface.FAMILIES['gemma2'].write_config(config)


def test_the_layers_of_a_pattern_cut_short_keep_their_windows():
    config = config_of(GEMMA_3_1B)
    assert config.layer_windows[-3:] == (0, 512, 512)
    short = dataclasses.replace(config, num_layers=3)
    family = huggingface.FAMILIES['gemma3_text']
    assert family.write_config(short)['layer_types'] == ['sliding_attention'] * 3
    abstract = jax.eval_shape(lambda: transformer.init_model(short, jax.random.key(0)))
    assert family.tensors({n: leaf.shape for n, leaf in saved_models.parameters(abstract).items()})
