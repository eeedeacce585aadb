"""Mistral: Llama with the same window in all layers; from version 0.2 on without a window."""

from elenchus.model.huggingface import config_fields, rope, tensor_names
from elenchus.model.huggingface.family import Family, FieldMap

WINDOW = FieldMap(
    lambda hf_config: {'windows': (hf_config['sliding_window'] or 0,)},
    lambda config: {'sliding_window': config.windows[0] or None},
)

MISTRAL = Family(
    model_type='mistral',
    architecture='MistralForCausalLM',
    field_maps=(
        *config_fields.SIZES,
        rope.ROPE,
        WINDOW,
        config_fields.fixed(
            {**config_fields.NON_GEMMA, 'qkv_bias': False, 'qk_norm': False}, hidden_act='silu'
        ),
    ),
    defaults={
        'tie_word_embeddings': False,
        'rms_norm_eps': 1e-6,
        'sliding_window': 4096,
        'num_key_value_heads': 8,
    },
    weights=tensor_names.WEIGHTS,
)
