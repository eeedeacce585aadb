"""Mixtral: Mistral with experts in every block, whose weights always sum to 1."""

from elenchus.model.huggingface import config_fields, rope, tensor_names
from elenchus.model.huggingface.family import Family
from elenchus.model.huggingface.mistral import WINDOW

MIXTRAL = Family(
    model_type='mixtral',
    architecture='MixtralForCausalLM',
    field_maps=(
        *config_fields.SHARED_SIZES,
        config_fields.renamed(
            mlp_dim='intermediate_size',
            num_experts='num_local_experts',
            experts_per_token='num_experts_per_tok',
        ),
        rope.ROPE,
        WINDOW,
        config_fields.fixed(
            {
                **config_fields.NON_GEMMA,
                'qkv_bias': False,
                'qk_norm': False,
                'normalise_experts': True,
            },
            hidden_act='silu',
            router_jitter_noise=0.0,
        ),
    ),
    defaults={
        'tie_word_embeddings': False,
        'rms_norm_eps': 1e-5,
        'rope_theta': 1e6,
        'sliding_window': None,
        'num_key_value_heads': 8,
        'num_local_experts': 8,
        'num_experts_per_tok': 2,
    },
    weights=tensor_names.experts('block_sparse_moe', gate='w1', up='w3', down='w2'),
)
