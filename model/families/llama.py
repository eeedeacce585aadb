"""Llama 2 and 3: rotary positions, scaled from 3.1 on."""

from model.families import parts
from model.families.family import Family

LLAMA = Family(
    model_type='llama',
    architecture='LlamaForCausalLM',
    parts=(
        *parts.SIZES,
        parts.ROPE,
        parts.fixed(
            {**parts.PLAIN, 'windows': (0,), 'qkv_bias': False, 'qk_norm': False},
            hidden_act='silu',
            attention_bias=False,
            mlp_bias=False,
        ),
    ),
    defaults={'tie_word_embeddings': False, 'rms_norm_eps': 1e-6},
    weights=parts.WEIGHTS,
)
