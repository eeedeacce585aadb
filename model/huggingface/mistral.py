"""Mistral: Llama with one window in all layers, or none from version 0.2 on."""

from elenchus.model.huggingface import config_fields
from elenchus.model.huggingface.family import Family, Part

MISTRAL = Family(
    model_type='mistral',
    architecture='MistralForCausalLM',
    parts=(
        *config_fields.SIZES,
        config_fields.ROPE,
        Part(
            lambda described: {'windows': (described['sliding_window'] or 0,)},
            lambda config: {'sliding_window': config.windows[0] or None},
        ),
        config_fields.fixed(
            {**config_fields.PLAIN, 'qkv_bias': False, 'qk_norm': False}, hidden_act='silu'
        ),
    ),
    defaults={'tie_word_embeddings': False, 'rms_norm_eps': 1e-6, 'sliding_window': 4096},
    weights=config_fields.WEIGHTS,
)
