"""Qwen 2, 2.5 and 3: the first two with biases on queries, keys and values, the last with norms."""

from elenchus.model.huggingface import config_fields
from elenchus.model.huggingface.family import Family, Part

_LAYERED = config_fields.layered_windows(lambda described, i: i >= described['max_window_layers'])


def _read_windows(described):
    return _LAYERED.read(described) if described['use_sliding_window'] else {'windows': (0,)}


def _write_windows(config):
    windows = config.layer_windows
    if not any(windows):
        return {'use_sliding_window': False}
    first = next(i for i, window in enumerate(windows) if window)
    return _LAYERED.write(config) | {'use_sliding_window': True, 'max_window_layers': first}


WINDOWS = Part(_read_windows, _write_windows)

DEFAULTS = {
    'tie_word_embeddings': False,
    'rms_norm_eps': 1e-6,
    'use_sliding_window': False,
    'sliding_window': 4096,
    'max_window_layers': 28,
}

QWEN2 = Family(
    model_type='qwen2',
    architecture='Qwen2ForCausalLM',
    parts=(
        *config_fields.SIZES,
        config_fields.ROPE,
        WINDOWS,
        config_fields.fixed(
            {**config_fields.PLAIN, 'qkv_bias': True, 'qk_norm': False}, hidden_act='silu'
        ),
    ),
    defaults=DEFAULTS,
    weights={**config_fields.WEIGHTS, **config_fields.QKV_BIASES},
)

QWEN3 = Family(
    model_type='qwen3',
    architecture='Qwen3ForCausalLM',
    parts=(
        *config_fields.SIZES,
        config_fields.ROPE,
        WINDOWS,
        config_fields.fixed(
            {**config_fields.PLAIN, 'qkv_bias': False, 'qk_norm': True},
            hidden_act='silu',
            attention_bias=False,
        ),
    ),
    defaults={**DEFAULTS, 'head_dim': 128},
    weights={**config_fields.WEIGHTS, **config_fields.QK_NORMS},
)
