"""Shapes of released models as published, and what their runs share; not a run itself.

Sources: the config.json of each model's repository, meta-llama/Meta-Llama-3-8B,
Qwen/Qwen2.5-Math-1.5B, Qwen/Qwen3-0.6B, google/gemma-3-1b-pt,
HuggingFaceTB/SmolLM2-135M-Instruct.
"""

from ml_collections import ConfigDict

from elenchus.configs import gsm8k, sections

LLAMA3_8B = {
    'vocab_size': 128256,
    'num_layers': 32,
    'embed_dim': 4096,
    'mlp_dim': 14336,
    'num_heads': 32,
    'num_kv_heads': 8,
    'head_dim': 128,
    'rope_theta': 500_000.0,
    'norm_epsilon': 1e-5,
    'qkv_bias': False,
    'qk_norm': False,
    'tie_embeddings': False,
    'activation': 'silu',
}

QWEN2P5_MATH_1P5B = {
    'vocab_size': 151936,
    'num_layers': 28,
    'embed_dim': 1536,
    'mlp_dim': 8960,
    'num_heads': 12,
    'num_kv_heads': 2,
    'head_dim': 128,
    'rope_theta': 10_000.0,
    'norm_epsilon': 1e-6,
    'qkv_bias': True,
    'qk_norm': False,
    'tie_embeddings': True,
    'activation': 'silu',
}

QWEN3_0P6B = {
    'vocab_size': 151936,
    'num_layers': 28,
    'embed_dim': 1024,
    'mlp_dim': 3072,
    'num_heads': 16,
    'num_kv_heads': 8,
    'head_dim': 128,
    'rope_theta': 1_000_000.0,
    'norm_epsilon': 1e-6,
    'qkv_bias': False,
    'qk_norm': True,
    'tie_embeddings': True,
    'activation': 'silu',
}

SMOLLM2_135M = {
    'vocab_size': 49152,
    'num_layers': 30,
    'embed_dim': 576,
    'mlp_dim': 1536,
    'num_heads': 9,
    'num_kv_heads': 3,
    'head_dim': 64,
    'rope_theta': 100_000.0,
    'norm_epsilon': 1e-5,
    'qkv_bias': False,
    'qk_norm': False,
    'tie_embeddings': True,
    'activation': 'silu',
}

GEMMA3_1B = {
    'vocab_size': 262144,
    'num_layers': 26,
    'embed_dim': 1152,
    'mlp_dim': 6912,
    'num_heads': 4,
    'num_kv_heads': 1,
    'head_dim': 256,
    'rope_theta': 1_000_000.0,
    'norm_epsilon': 1e-6,
    'qkv_bias': False,
    'qk_norm': True,
    'tie_embeddings': True,
    'activation': 'gelu',
    'windows': (512, 512, 512, 512, 512, 0),
    'local_rope_theta': 10_000.0,
    'zero_centered_norms': True,
    'post_norms': True,
    'scale_embeddings': True,
}


def adamw(learning_rate: float, **changes) -> dict:
    """Returns AdamW as released models are usually fine-tuned with it."""
    return sections.optimizer(learning_rate, **{'name': 'adamw', 'beta2': 0.999} | changes)


def config(
    model: dict, folder: str, optimizer: dict, *, template: str, num_steps: int
) -> ConfigDict:
    """Returns GSM8K's stages, starting from a model that scripts/convert.py wrote to `folder`."""
    result = gsm8k.get_config()
    result.model.update(model)
    result.model.update(remat='full', logits_chunk=512, attention='auto')
    result.tokenizer.update(
        kind='file', path=f'{folder}/tokenizer.json', vocab_size=0, template=template
    )
    result.base.checkpoint = folder
    result.base.fit.update(num_steps=0, optimizer=optimizer)
    for stage in (result.actor, result.critic, result.self_talk, result.improve):
        stage.fit.update(num_steps=num_steps, optimizer=optimizer)
    result.reinforce.optimizer = optimizer | {'schedule': 'constant'}
    rate = 0.1 * optimizer['learning_rate']
    result.prefer.fit.optimizer = optimizer | {'schedule': 'constant', 'learning_rate': rate}
    return result


def with_adapters(config: ConfigDict, lora: dict) -> ConfigDict:
    """Returns the config with adapters in every stage that trains, on a base in bfloat16."""
    config.model.param_dtype = 'bfloat16'
    fitted = (config.actor, config.critic, config.self_talk, config.improve, config.prefer)
    for stage in (*fitted, config.reinforce):
        stage.lora = lora
    return config
