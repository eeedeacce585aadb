"""Qwen 2, 2.5 and 3: 2 and 2.5 have biases on queries, keys and values; 3 has norms on them.

Qwen 3 also has models with experts. All of their blocks must have them.
"""

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


def _read_experts(hf_config):
    """Their number, by the key of published files or by that of `transformers` 5."""
    stated = {k: hf_config[k] for k in ('num_experts', 'num_local_experts') if k in hf_config}
    if len(set(stated.values())) > 1:
        raise ValueError(f'config.json: {stated} name different numbers of experts')
    number, chosen = next(iter(stated.values()), 128), hf_config['num_experts_per_tok']
    if chosen > number:
        raise ValueError(
            f'config.json: num_experts_per_tok={chosen} (8 if it is not stated) is more than the '
            f'{number} experts; nearest: {number}'
        )
    return {'num_experts': number}


QWEN3_MOE = Family(
    model_type='qwen3_moe',
    architecture='Qwen3MoeForCausalLM',
    field_maps=(
        *config_fields.SHARED_SIZES,
        config_fields.renamed(
            mlp_dim='moe_intermediate_size',
            experts_per_token='num_experts_per_tok',
            normalise_experts='norm_topk_prob',
        ),
        FieldMap(_read_experts, lambda config: {'num_experts': config.num_experts}),
        rope.ROPE,
        config_fields.fixed(
            {**config_fields.NON_GEMMA, 'windows': (0,), 'qkv_bias': False, 'qk_norm': True},
            hidden_act='silu',
            attention_bias=False,
            use_sliding_window=False,
            decoder_sparse_step=1,
            mlp_only_layers=[],
        ),
    ),
    defaults={
        'tie_word_embeddings': False,
        'rms_norm_eps': 1e-6,
        'num_key_value_heads': 4,
        'num_experts_per_tok': 8,
        'moe_intermediate_size': 768,
        'norm_topk_prob': False,
    },
    weights={
        **tensor_names.experts('mlp', gate='gate_proj', up='up_proj', down='down_proj'),
        **tensor_names.QK_NORMS,
    },
)
