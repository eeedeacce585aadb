"""Gemma 2 and 3 (text): norms before and after each sublayer, windows, soft caps.

The two versions share a file because they differ in a few lines. Their norms are stored as
scale - 1, as published: adding 1 on import would lose bits in bfloat16.
"""

from collections.abc import Mapping

from elenchus.model.huggingface import config_fields, rope, tensor_names
from elenchus.model.huggingface.family import Family, FieldMap

SHARED_FIELDS = {
    'zero_centered_norms': True,
    'post_norms': True,
    'qkv_bias': False,
    'scale_embeddings': True,
    'activation': 'gelu',
}

REQUIRED_KEYS = {
    'hidden_activation': 'gelu_pytorch_tanh',
    'attention_bias': False,
    'use_bidirectional_attention': False,
}

# Values of `transformers` for keys that a config.json leaves out.
DEFAULTS = {
    'vocab_size': 256000,
    'num_attention_heads': 8,
    'num_key_value_heads': 4,
    'head_dim': 256,
    'rms_norm_eps': 1e-6,
    'tie_word_embeddings': True,
    'query_pre_attn_scalar': 256,
    'sliding_window': 4096,
}

SHARED_ROPE_KEYS = (
    'max_position_embeddings',
    'original_max_position_embeddings',
    'partial_rotary_factor',
)

QUERY_SCALE = config_fields.renamed(query_scale_dim='query_pre_attn_scalar')


def _rope_of_layers(hf_config, layers: str, theta_key: str) -> dict:
    """Returns the keys of rotary positions of one kind of layers, spelt as for a whole model."""
    by_type = hf_config.get('rope_parameters') or {}
    if not isinstance(by_type, Mapping):
        raise ValueError(f'config.json: rope_parameters={by_type!r} must be an object or null')
    if unknown := sorted(set(by_type) - {config_fields.GLOBAL, config_fields.LOCAL}):
        raise ValueError(
            f'config.json: unknown rope_parameters.{unknown[0]}; known: '
            f'{config_fields.GLOBAL}, {config_fields.LOCAL}'
        )
    theta = hf_config[theta_key] or GEMMA3.defaults[theta_key]
    shared = {key: hf_config.get(key) for key in SHARED_ROPE_KEYS}
    return shared | {'rope_parameters': by_type.get(layers), 'rope_theta': theta}


def _read_two_ropes(hf_config):
    # Newer files have `rope_parameters` per kind of layer, older ones separate keys.
    whole = _rope_of_layers(hf_config, config_fields.GLOBAL, 'rope_theta')
    theta, scaling = rope.read_rope(whole | {'rope_scaling': hf_config.get('rope_scaling')})
    local, local_scaling = rope.read_rope(
        _rope_of_layers(hf_config, config_fields.LOCAL, 'rope_local_base_freq')
    )
    if local_scaling is not None:
        raise ValueError(
            f'config.json: rope scaling in {config_fields.LOCAL} is not supported; '
            "nearest: rope_type='default'"
        )
    return {'rope_theta': theta, 'rope_scaling': scaling, 'local_rope_theta': local}


# Layers with a window have their own base, without scaling.
TWO_ROPES = FieldMap(
    _read_two_ropes,
    lambda config: {
        'rope_theta': config.rope_theta,
        'rope_scaling': rope.write_rope_scaling(config),
        'rope_local_base_freq': config.local_rope_theta,
    },
)

GEMMA2 = Family(
    model_type='gemma2',
    architecture='Gemma2ForCausalLM',
    field_maps=(
        *config_fields.SIZES,
        rope.ROPE,
        config_fields.windows_by_layer(lambda hf_config, i: i % 2 == 0),
        QUERY_SCALE,
        config_fields.zero_for_null(
            attention_soft_cap='attn_logit_softcapping', logits_soft_cap='final_logit_softcapping'
        ),
        config_fields.fixed({**SHARED_FIELDS, 'qk_norm': False}, **REQUIRED_KEYS),
    ),
    defaults={**DEFAULTS, 'attn_logit_softcapping': 50.0, 'final_logit_softcapping': 30.0},
    weights={**tensor_names.WEIGHTS, **tensor_names.POST_NORMS},
)

GEMMA3 = Family(
    model_type='gemma3_text',
    architecture='Gemma3ForCausalLM',
    field_maps=(
        *config_fields.SIZES,
        TWO_ROPES,
        config_fields.windows_by_layer(
            lambda hf_config, i: (i + 1) % hf_config['sliding_window_pattern']
        ),
        QUERY_SCALE,
        config_fields.zero_for_null(logits_soft_cap='final_logit_softcapping'),
        config_fields.fixed(
            {**SHARED_FIELDS, 'qk_norm': True, 'attention_soft_cap': 0.0},
            **REQUIRED_KEYS,
            attn_logit_softcapping=None,
        ),
    ),
    defaults={
        **DEFAULTS,
        'vocab_size': 262208,
        'max_position_embeddings': 131072,
        'rope_theta': 1000000.0,
        'rope_local_base_freq': 10000.0,
        'sliding_window_pattern': 6,
        'final_logit_softcapping': None,
    },
    weights={**tensor_names.WEIGHTS, **tensor_names.POST_NORMS, **tensor_names.QK_NORMS},
)
