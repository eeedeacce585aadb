"""Every key of every family's config.json with odd values: read, or refused in one line."""

import json

import pytest

from elenchus.model import huggingface
from elenchus.train.checkpoints import convert
from tests.model.test_huggingface import GOLDEN
from tests.support import hf_models

ODD = [None, 0, -1, 1, 3, 10**12, 1.5, -0.5, float('nan'), float('inf'), True, False, '', 'x', '4',
       [], [1], ['x'], {}, {'a': 1}, {'rope_type': 'linear'}, {'factor': 2.0},
       {'rope_type': ['x']}, {'type': {}}, {'full_attention': 3},
       {'full_attention': 'x'}]  # fmt: skip
GENERAL = ['rope_scaling', 'rope_parameters', 'rope_theta', 'rope_local_base_freq', 'layer_types',
           'head_dim', 'num_key_value_heads', 'sliding_window', 'sliding_window_pattern',
           'max_window_layers', 'use_sliding_window', 'attention_bias', 'mlp_bias', 'hidden_act',
           'hidden_activation', 'query_pre_attn_scalar', 'attn_logit_softcapping',
           'final_logit_softcapping', 'partial_rotary_factor', 'tie_word_embeddings',
           'original_max_position_embeddings', 'use_bidirectional_attention',
           'text_config', 'quantization_config', 'eos_token_id', 'architectures']  # fmt: skip


def read(hf_config):
    hf_config, _ = huggingface.text_only(hf_config)
    return convert.imported_config(huggingface.family_of(hf_config), hf_config, 'float32')


@pytest.mark.parametrize('newer', [False, True], ids=['older', 'newer'])
@pytest.mark.parametrize('name', hf_models.CASES)
def test_odd_values_are_read_or_refused_in_one_line(name, newer):
    case = GOLDEN[name]['config'] if newer else hf_models.CASES[name]
    refused = 0
    for key in dict.fromkeys([*case, *GENERAL]):
        for value in ODD:
            changed = json.loads(json.dumps(case | {key: value}))
            try:
                read(changed)
            except ValueError as error:
                assert '\n' not in str(error) and len(str(error)) < 1000, (key, value)
                refused += 1
    assert refused > 100


@pytest.mark.parametrize('name', hf_models.CASES)
def test_a_config_without_one_of_its_keys_is_read_or_refused_in_one_line(name):
    for key in hf_models.CASES[name]:
        changed = {k: v for k, v in hf_models.CASES[name].items() if k != key}
        try:
            read(changed)
        except ValueError as error:
            defaults = ('num_key_value_heads', 'head_dim')  # others of a family do not fit
            assert key in str(error) or key in defaults
            assert '\n' not in str(error)
