"""Qwen 2, 2.5 and 3: 2 and 2.5 have biases on queries, keys and values; 3 has norms on them."""

from elenchus.model.huggingface import config_fields, rope, tensor_names
from elenchus.model.huggingface.family import Family, FieldMap

_LAYER_WINDOWS = config_fields.windows_by_layer(
    lambda hf_config, i: i >= hf_config['max_window_layers']
)


def _read_windows(hf_config):
    return _LAYER_WINDOWS.read(hf_config) if hf_config['use_sliding_window'] else {'windows': (0,)}


def _write_windows(config):
    windows = config.layer_windows
    if not any(windows):
        return {'use_sliding_window': False}
    first = next(i for i, window in enumerate(windows) if window)
    return _LAYER_WINDOWS.write(config) | {'use_sliding_window': True, 'max_window_layers': first}


# `use_sliding_window` false disables the window whatever its size.
WINDOWS = FieldMap(_read_windows, _write_windows)

DEFAULTS = {
    'tie_word_embeddings': False,
    'rms_norm_eps': 1e-6,
    'num_key_value_heads': 32,
    'use_sliding_window': False,
    'sliding_window': 4096,
    'max_window_layers': 28,
}

QWEN2 = Family(
    model_type='qwen2',
    architecture='Qwen2ForCausalLM',
    field_maps=(
        *config_fields.SIZES,
        rope.ROPE,
        WINDOWS,
        config_fields.fixed(
            {**config_fields.NON_GEMMA, 'qkv_bias': True, 'qk_norm': False}, hidden_act='silu'
        ),
    ),
    defaults=DEFAULTS,
    weights={**tensor_names.WEIGHTS, **tensor_names.QKV_BIASES},
)

QWEN3 = Family(
    model_type='qwen3',
    architecture='Qwen3ForCausalLM',
    field_maps=(
        *config_fields.SIZES,
        rope.ROPE,
        WINDOWS,
        config_fields.fixed(
            {**config_fields.NON_GEMMA, 'qkv_bias': False, 'qk_norm': True},
            hidden_act='silu',
            attention_bias=False,
        ),
    ),
    defaults={**DEFAULTS, 'head_dim': 128},
    weights={**tensor_names.WEIGHTS, **tensor_names.QK_NORMS},
)
