"""Rotary positions of config.json in every spelling: applied as `transformers` does, or refused."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from elenchus.model import huggingface
from elenchus.model.config import ModelConfig, RopeScaling, YarnScaling
from elenchus.train.config import build
from tests.model import test_huggingface as families
from tests.support import hf_models

QWEN = {
    'model_type': 'qwen2', 'vocab_size': 64, 'hidden_size': 32, 'intermediate_size': 48,
    'num_hidden_layers': 2, 'num_attention_heads': 2, 'num_key_value_heads': 2,
    'max_position_embeddings': 64, 'tie_word_embeddings': True, 'rms_norm_eps': 1e-6,
}  # fmt: skip
GEMMA = QWEN | {'model_type': 'gemma3_text', 'head_dim': 16}
LLAMA3 = {'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0}
LENGTH = {'original_max_position_embeddings': 32}
YARN = YarnScaling('yarn', 4.0, 1.0, 32.0, 32, 0.1 * np.log(4) + 1, True)
LLAMA3_SCALING = RopeScaling('llama3', 8.0, 1.0, 4.0, 32)


def read(changes, base=QWEN):
    fields = huggingface.family_of(base).read_config(base | changes)
    return fields['rope_theta'], fields['rope_scaling']


def both_forms(rope, theta=None):
    """The older and the newer spelling of the same rotary positions."""
    outside = {} if theta is None else {'rope_theta': theta}
    yield {'rope_scaling': {**rope, 'rope_type': rope['kind']}} | outside
    yield {'rope_scaling': {**rope, 'type': rope['kind']}, 'rope_parameters': None} | outside
    yield {'rope_parameters': {**rope, 'rope_type': rope['kind']} | outside}
    yield {'rope_parameters': {**rope, 'type': rope['kind'], 'rope_type': None} | outside}


KINDS = {
    'default': ({}, None),
    'linear': ({'factor': 4}, RopeScaling('linear', 4.0, 0.0, 0.0, 0)),
    'llama3': (LLAMA3 | LENGTH, LLAMA3_SCALING),
    'yarn': ({'factor': 4.0} | LENGTH, YARN),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('theta', [None, 5000, 1e6])
def test_every_spelling_of_a_scaling_reads_the_same(kind, theta):
    rope, expected = KINDS[kind]
    for form in both_forms(rope | {'kind': kind}, theta):
        for section in form.values():
            if isinstance(section, dict):
                del section['kind']
        assert read(form) == (theta or 10000.0, expected)


@pytest.mark.parametrize('nothing', [
    {}, {'rope_scaling': None}, {'rope_parameters': None}, {'rope_scaling': {}},
    {'rope_scaling': {'rope_type': None, 'type': None, 'factor': None}},
    {'rope_parameters': {'rope_theta': 10000.0}}, {'rope_theta': None},
    {'rope_parameters': {'rope_type': 'default', 'rope_theta': None}},
    {'partial_rotary_factor': 1.0}, {'rope_parameters': {'partial_rotary_factor': 1}},
])  # fmt: skip
def test_nulls_and_empty_sections_scale_nothing(nothing):
    assert read(nothing) == (10000.0, None)


def yarn(**changes):
    return {'rope_scaling': {'rope_type': 'yarn', 'factor': 4.0} | LENGTH | changes}


@pytest.mark.parametrize(('changes', 'message'), [
    ({'rope_scaling': {'factor': 4.0}}, r'factor=4.0 but no rope_type; add one of'),
    ({'rope_parameters': {'factor': 2.0, 'rope_theta': 1e4}}, r'factor=2.0 but no rope_type'),
    ({'rope_scaling': LLAMA3}, r'factor=8.0 but no rope_type'),
    ({'rope_scaling': {'type': 'dynamic', 'factor': 2.0}}, r"rope_type='dynamic' is not supported"),
    ({'rope_scaling': {'rope_type': 'longrope'}}, r"rope_type='longrope' is not supported"),
    ({'rope_scaling': {'type': 'su', 'factor': 2.0}}, r"rope_type='su' is not supported"),
    ({'rope_parameters': {'rope_type': 'ntk'}}, r"rope_type='ntk' is not supported; known"),
    ({'rope_scaling': {'type': 3}}, r"rope_type='3' is not supported"),
    ({'rope_scaling': {'type': 'mrope', 'mrope_section': [1]}}, r"'mrope' is not supported"),
    ({'rope_scaling': {'type': 'yarn', 'rope_type': 'linear'}}, r"type='yarn' .* differ"),
    ({'rope_scaling': {'type': 'linear'}}, r"missing key 'factor' of rotary positions"),
    ({'rope_scaling': {'type': 'linear', 'factor': '4'}}, r"factor='4' .* must be positive"),
    ({'rope_scaling': {'type': 'linear', 'factor': True}}, r'factor=True .* must be positive'),
    ({'rope_scaling': {'type': 'linear', 'factor': 0}}, r'factor=0 .* must be positive'),
    ({'rope_scaling': {'type': 'linear', 'factor': float('nan')}}, r'factor=nan'),
    ({'rope_scaling': {'type': 'default', 'factor': 4.0}}, r'factor=4.0 .* is not supported with'),
    ({'rope_scaling': {'type': 'llama3', 'factor': 4.0}}, r"missing key 'low_freq_factor'"),
    ({'rope_scaling': 'yarn'}, r"rope_scaling='yarn' must be an object or null"),
    ({'rope_scaling': [1]}, r'rope_scaling=\[1\] must be an object or null'),
    ({'rope_theta': 0}, r'rope_theta=0 .* must be positive'),
    ({'rope_theta': '1e6'}, r"rope_theta='1e6' .* must be positive"),
    ({'partial_rotary_factor': 0.5}, r'partial_rotary_factor=0.5 is not supported'),
    ({'rope_parameters': {'partial_rotary_factor': 0.25}}, r'partial_rotary_factor=0.25'),
    (yarn() | {'rope_parameters': {'rope_type': 'default'}}, r'rope_scaling=.* differ'),
    (yarn(attn_factor=1.0), r"attn_factor=1.0 .* not supported with rope_type='yarn'"),
    (yarn(original_max_position_embeddings=0), r'original_max_position_embeddings=0 must be'),
    (yarn(original_max_position_embeddings='32'), r"original_max_position_embeddings='32' must be"),
    (yarn(attention_factor=0), r'attention_factor=0 .* must be positive'),
    (yarn(beta_fast=1, beta_slow=2), r'low_frequency=2.0 must be between 0 and high_frequency'),
])  # fmt: skip
def test_what_cannot_be_applied_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        read(changes)
    assert '\n' not in str(error.value)


def test_yarn_reads_the_defaults_of_transformers():
    assert read(yarn(factor=None))[1].factor == 2.0  # maximum / original
    assert read(yarn(original_max_position_embeddings=None))[1].original_length == 64
    outside = {'original_max_position_embeddings': 16}
    assert read(yarn() | outside)[1].original_length == 16
    assert read(yarn(beta_fast=None, beta_slow=0))[1] == YARN
    assert read(yarn(mscale=1.0))[1] == YARN
    both = read(yarn(mscale=1.0, mscale_all_dim=0.5))[1].attention_factor
    assert both == pytest.approx((0.1 * np.log(4) + 1) / (0.05 * np.log(4) + 1))
    assert read(yarn(factor=0.5))[1].attention_factor == 1.0
    assert read(yarn(attention_factor=1.5, mscale=1.0, mscale_all_dim=2.0))[1].attention_factor == (
        1.5
    )
    assert read(yarn(truncate=False))[1].truncate is False


def test_gemma_reads_both_kinds_of_layers():
    rope, scaling = {'rope_type': 'yarn', 'factor': 4.0} | LENGTH, YARN
    by_type = {'full_attention': rope, 'sliding_attention': None}
    fields = huggingface.family_of(GEMMA).read_config
    for form in ({'rope_scaling': rope}, {'rope_parameters': by_type}):
        values = fields(GEMMA | form)
        assert (values['rope_theta'], values['local_rope_theta']) == (1e6, 1e4)
        assert values['rope_scaling'] == scaling
    null = dict.fromkeys(('rope_theta', 'rope_local_base_freq', 'rope_scaling', 'rope_parameters'))
    assert fields(GEMMA | null) == fields(GEMMA)
    for form, message in (
        ({'rope_parameters': rope}, 'unknown rope_parameters.factor'),
        ({'rope_parameters': {'sliding_attention': rope}}, 'rope scaling in sliding_attention'),
        ({'rope_parameters': {'full_attention': {'factor': 2.0}}}, 'but no rope_type'),
        ({'rope_scaling': {'type': 'dynamic', 'factor': 2.0}}, "rope_type='dynamic'"),
    ):
        with pytest.raises(ValueError, match=message):
            fields(GEMMA | form)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('base', [QWEN, GEMMA], ids=['qwen2', 'gemma3'])
def test_what_is_written_is_read_back(kind, base):
    rope, _ = KINDS[kind]
    family = huggingface.family_of(base)
    config = ModelConfig(
        **family.read_config(base | {'rope_scaling': rope | {'rope_type': kind}}),
        **families.NUMERICS,
    )
    written = json.loads(json.dumps(family.write_config(config)))
    assert family.read_config(written) == family.read_config(
        base | {'rope_scaling': rope | {'rope_type': kind}}
    )


def test_a_scaling_survives_the_description_of_a_saved_model():
    for kind, (rope, scaling) in KINDS.items():
        config = families.config_of(QWEN | {'rope_scaling': rope | {'type': kind}})
        description = json.loads(json.dumps(dataclasses.asdict(config)))
        assert build.build(ModelConfig, description) == config
        assert config.rope_scaling == scaling


FILES = {
    'yarn': {'rope_type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 32},
    'yarn-old': {'type': 'yarn', 'factor': 2.0, 'original_max_position_embeddings': 64},
    'yarn-no-length': {'rope_type': 'yarn', 'factor': 4.0},
    'yarn-mscale': {'rope_type': 'yarn', 'factor': 8.0, 'mscale': 1.0, 'mscale_all_dim': 0.7,
                    'original_max_position_embeddings': 16},
    'yarn-attention': {'rope_type': 'yarn', 'factor': 8.0, 'attention_factor': 0.8,
                       'beta_fast': 4, 'beta_slow': 0.5, 'original_max_position_embeddings': 40},
    'yarn-exact': {'rope_type': 'yarn', 'factor': 8.0, 'truncate': False,
                   'original_max_position_embeddings': 100},
    'llama3': {'rope_type': 'llama3', **LLAMA3, **LENGTH},
    'llama3-no-length': {'rope_type': 'llama3', **LLAMA3},
    'linear': {'type': 'linear', 'factor': 3.0},
    'default': {'rope_type': 'default'},
}  # fmt: skip
BASES = ('llama2', 'mistral-window', 'qwen2', 'qwen3', 'gemma2', 'gemma3')


@pytest.fixture(scope='module')
def peer():
    """The module that drives `transformers`."""
    for name in ('torch', 'transformers'):
        pytest.importorskip(name, exc_type=ImportError)
    from tests.golden import make_families_golden

    return make_families_golden


@functools.cache
def unscaled_peer(name):
    """The model of `transformers` without a scaling."""
    from tests.golden import make_families_golden

    hf_config = {k: v for k, v in hf_models.CASES[name].items() if k != 'rope_scaling'}
    return make_families_golden.make_peer(hf_config | {'rope_theta': 500.0})


@pytest.mark.filterwarnings('default')
@pytest.mark.parametrize('file', FILES)
@pytest.mark.parametrize('name', BASES)
def test_logits_are_those_of_transformers_at_short_and_long_positions(peer, name, file):
    import torch

    if name.startswith('gemma3') and 'exact' in file:
        pytest.skip('transformers reads `truncate` of one rope for all layers only')
    hf_config = hf_models.CASES[name] | {'rope_scaling': dict(FILES[file]), 'rope_theta': 500.0}
    spelt = dict(FILES[file])
    if name.startswith('gemma3') and 'type' in spelt:
        # `transformers` ignores `type` in older files of Gemma 3 alone, though it is declared.
        spelt['rope_type'] = spelt.pop('type')
    theirs = peer.make_peer(hf_config | {'rope_scaling': spelt})
    ours = families.model_from(
        hf_config, {n: t.detach().numpy() for n, t in peer.parameters_of(theirs).items()}
    )
    tokens = hf_models.tokens()
    plain = unscaled_peer(name)
    for start, tolerance in ((0, 3e-4), (1000, 2e-3)):
        positions = np.broadcast_to(start + np.arange(hf_models.LENGTH), tokens.shape)
        places = torch.from_numpy(positions.copy())
        with torch.no_grad():
            expected, unscaled = (
                model(torch.from_numpy(tokens), position_ids=places).logits.numpy()
                for model in (theirs, plain)
            )
        actual = families.logits_of(
            ours, tokens.astype(np.int32), positions.astype(np.int32), np.ones_like(tokens)
        )
        # Float32 angles of position 1000 are exact to about 1e-4 radians.
        np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=0)
        assert file == 'default' or np.abs(expected - unscaled).max() > 20 * tolerance
