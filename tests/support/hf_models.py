"""Small random models of every Hugging Face family: config.json and tensors."""

import json
import pathlib
import zlib

import numpy as np
from safetensors.numpy import save_file

LENGTH, ROWS = 24, 2
PROMPT, GENERATED = 8, 64
VOCAB = 40
KEPT = slice(2, None, 3)  # positions whose logits are in the golden file

_LLAMA3 = {
    'rope_type': 'llama3',
    'factor': 8.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 32,
}


def _case(model_type, *, width=24, heads=4, kv_heads=2, head_dim=None, layers=2, tied, **others):
    return {
        'model_type': model_type,
        'vocab_size': VOCAB,
        'hidden_size': width,
        'intermediate_size': 40,
        'num_hidden_layers': layers,
        'num_attention_heads': heads,
        'num_key_value_heads': kv_heads,
        'head_dim': head_dim or width // heads,
        'max_position_embeddings': 128,
        'tie_word_embeddings': tied,
        'rms_norm_eps': 1e-5,
        **others,
    }


def _gemma(model_type, *, layers, query_pre_attn_scalar, window, **others):
    return _case(
        model_type,
        layers=layers,
        tied=True,
        hidden_activation='gelu_pytorch_tanh',
        query_pre_attn_scalar=query_pre_attn_scalar,
        sliding_window=window,
        **others,
    )


CASES = {
    'llama2': _case('llama', kv_heads=4, tied=False),
    'llama3': _case(
        'llama', kv_heads=1, head_dim=8, tied=True, rope_theta=5000.0, rope_scaling=_LLAMA3
    ),
    'llama-linear': _case(
        'llama', tied=False, rope_scaling={'rope_type': 'linear', 'factor': 4.0}
    ),
    'mistral-window': _case('mistral', kv_heads=1, tied=False, sliding_window=7),
    'mistral': _case('mistral', kv_heads=4, tied=False, sliding_window=None, head_dim=10),
    'qwen2': _case('qwen2', tied=True, rope_theta=1000000.0),
    'qwen2-window': _case(
        'qwen2', layers=3, kv_heads=1, tied=False, use_sliding_window=True, sliding_window=5,
        max_window_layers=1,
    ),
    'qwen2-yarn': _case(
        'qwen2', head_dim=12, tied=True, rope_theta=1000.0, rope_scaling={
            'type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 32,
        },
    ),
    'llama-yarn': _case(
        'llama', tied=False, head_dim=16, rope_theta=500.0, rope_scaling={
            'rope_type': 'yarn', 'factor': 16.0, 'mscale': 1.0, 'mscale_all_dim': 0.4,
            'beta_fast': 8.0, 'truncate': False, 'original_max_position_embeddings': 64,
        },
    ),
    'qwen3': _case('qwen3', head_dim=10, tied=False, rope_theta=1000000.0),
    'qwen3-tied': _case('qwen3', kv_heads=1, head_dim=4, tied=True),
    'gemma2': _gemma(
        'gemma2', layers=2, query_pre_attn_scalar=9, window=6, head_dim=8,
        attn_logit_softcapping=3.0, final_logit_softcapping=4.0,
    ),
    'gemma2-uncapped': _gemma(
        'gemma2', layers=2, query_pre_attn_scalar=6, window=11, kv_heads=4,
        attn_logit_softcapping=None, final_logit_softcapping=None,
    ),
    'gemma3': _gemma(
        'gemma3_text', layers=3, query_pre_attn_scalar=5, window=6, head_dim=8, kv_heads=1,
        sliding_window_pattern=2, rope_theta=100000.0, rope_local_base_freq=100.0,
        rope_scaling={'rope_type': 'linear', 'factor': 8.0},
    ),
    'gemma3-default': _gemma('gemma3_text', layers=2, query_pre_attn_scalar=6, window=9),
    'mixtral': _case(
        'mixtral', kv_heads=1, tied=False, sliding_window=7, num_local_experts=4,
        num_experts_per_tok=2,
    ),
    'qwen3-moe': _case(
        'qwen3_moe', head_dim=10, tied=False, rope_theta=1000000.0, num_experts=6,
        num_experts_per_tok=3, moe_intermediate_size=20, norm_topk_prob=True,
    ),
    'qwen3-moe-tied': _case(
        'qwen3_moe', kv_heads=4, tied=True, num_experts=5, num_experts_per_tok=1,
        moe_intermediate_size=16, norm_topk_prob=False,
    ),
}  # fmt: skip
"""Name -> config.json, with the keys of older `transformers`."""

GENERATING = ('mistral-window', 'qwen2', 'gemma2', 'gemma3', 'mixtral', 'qwen3-moe')
"""Cases with greedy continuations in the golden file."""


def weights(shapes, *, model_type: str) -> dict[str, np.ndarray]:
    """Returns random values by name; the name is the seed, so they are the same everywhere."""
    tensors = {}
    for name, shape in shapes.items():
        noise = np.random.default_rng(zlib.crc32(f'2 {name}'.encode())).standard_normal(shape)
        if 'norm' in name:
            values = 0.2 * noise + (0.0 if model_type.startswith('gemma') else 1.0)
        elif 'embed' in name:
            values = 0.05 * noise  # small, or greedy text of tied models repeats itself
        else:
            values = noise * 3.0 * shape[-1] ** -0.5
        tensors[name] = values.astype(np.float32)
    return tensors


def tokens() -> np.ndarray:
    """Returns [ROWS, LENGTH] token ids; all rows are different."""
    return np.random.default_rng(7).integers(2, VOCAB, (ROWS, LENGTH))


def write(folder: pathlib.Path, hf_config: dict, shapes) -> dict[str, np.ndarray]:
    """Writes a model folder as `transformers` does; returns its tensors."""
    folder.mkdir(parents=True)
    tensors = weights(shapes, model_type=hf_config['model_type'])
    save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})
    (folder / 'config.json').write_text(json.dumps(hf_config))
    return tensors
