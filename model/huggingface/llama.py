"""Llama 2 and 3; rotary positions are scaled from 3.1 on."""

from elenchus.model.huggingface import config_fields, rope, tensor_names
from elenchus.model.huggingface.family import Family

LLAMA = Family(
    model_type='llama',
    architecture='LlamaForCausalLM',
    field_maps=(
        *config_fields.SIZES,
        rope.ROPE,
        config_fields.fixed(
            {**config_fields.NON_GEMMA, 'windows': (0,), 'qkv_bias': False, 'qk_norm': False},
            hidden_act='silu',
            attention_bias=False,
            mlp_bias=False,
        ),
    ),
    defaults={'tie_word_embeddings': False, 'rms_norm_eps': 1e-6},
    weights=tensor_names.WEIGHTS,
)
