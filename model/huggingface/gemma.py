"""Gemma 2 and Gemma 3 (text): norms before and after, windows in most layers, soft caps."""

from elenchus.model.huggingface import config_fields
from elenchus.model.huggingface.family import Family, Part

SHARED = {
    'zero_centered_norms': True,
    'post_norms': True,
    'qkv_bias': False,
    'scale_embeddings': True,
    'activation': 'gelu',
}

SAME_KEYS = {
    'hidden_activation': 'gelu_pytorch_tanh',
    'attention_bias': False,
    'use_bidirectional_attention': False,
}

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

QUERY_SCALE = config_fields.renamed(query_scale_dim='query_pre_attn_scalar')


def _read_two_ropes(described):
    by_type = described.get('rope_parameters') or {
        config_fields.GLOBAL: {
            'rope_theta': described['rope_theta'],
            **(described.get('rope_scaling') or {}),
        },
        config_fields.LOCAL: {'rope_theta': described['rope_local_base_freq']},
    }
    theta, scaling = config_fields.rope_of({'rope_parameters': by_type[config_fields.GLOBAL]})
    local, local_scaling = config_fields.rope_of({'rope_parameters': by_type[config_fields.LOCAL]})
    if local_scaling is not None:
        raise ValueError(
            f'config.json: scaled rotary positions in {config_fields.LOCAL} are not known'
        )
    return {'rope_theta': theta, 'rope_scaling': scaling, 'local_rope_theta': local}


TWO_ROPES = Part(
    _read_two_ropes,
    lambda config: {
        'rope_theta': config.rope_theta,
        'rope_scaling': config_fields.rope_scaling(config),
        'rope_local_base_freq': config.local_rope_theta,
    },
)

GEMMA2 = Family(
    model_type='gemma2',
    architecture='Gemma2ForCausalLM',
    parts=(
        *config_fields.SIZES,
        config_fields.ROPE,
        config_fields.layered_windows(lambda described, i: i % 2 == 0),
        QUERY_SCALE,
        config_fields.or_off(
            attention_soft_cap='attn_logit_softcapping', logits_soft_cap='final_logit_softcapping'
        ),
        config_fields.fixed({**SHARED, 'qk_norm': False}, **SAME_KEYS),
    ),
    defaults={**DEFAULTS, 'attn_logit_softcapping': 50.0, 'final_logit_softcapping': 30.0},
    weights={**config_fields.WEIGHTS, **config_fields.POST_NORMS},
)

GEMMA3 = Family(
    model_type='gemma3_text',
    architecture='Gemma3ForCausalLM',
    parts=(
        *config_fields.SIZES,
        TWO_ROPES,
        config_fields.layered_windows(
            lambda described, i: (i + 1) % described['sliding_window_pattern']
        ),
        QUERY_SCALE,
        config_fields.or_off(logits_soft_cap='final_logit_softcapping'),
        config_fields.fixed(
            {**SHARED, 'qk_norm': True, 'attention_soft_cap': 0.0},
            **SAME_KEYS,
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
    weights={**config_fields.WEIGHTS, **config_fields.POST_NORMS, **config_fields.QK_NORMS},
)
