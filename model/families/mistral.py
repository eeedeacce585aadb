"""Mistral: Llama with one window in all layers, or none from version 0.2 on."""

from model.families import parts
from model.families.family import Family, Part

MISTRAL = Family(
    model_type='mistral',
    architecture='MistralForCausalLM',
    parts=(
        *parts.SIZES,
        parts.ROPE,
        Part(
            lambda described: {'windows': (described['sliding_window'] or 0,)},
            lambda config: {'sliding_window': config.windows[0] or None},
        ),
        parts.fixed({**parts.PLAIN, 'qkv_bias': False, 'qk_norm': False}, hidden_act='silu'),
    ),
    defaults={'tie_word_embeddings': False, 'rms_norm_eps': 1e-6, 'sliding_window': 4096},
    weights=parts.WEIGHTS,
)
