"""Writes GGUF files of tiny random `transformers` models with the library `gguf`.

What llama.cpp's converter does is done here: names, rows of queries and keys interleaved for Llama,
1 added to Gemma's norms, quantization of matrices. The K-quants, which the library only reads, are
random blocks: any bytes are a valid block if its two scales are finite.
"""

import pathlib

import numpy as np

ARCHITECTURES = {
    'llama': 'llama',
    'mistral': 'llama',
    'qwen2': 'qwen2',
    'qwen3': 'qwen3',
    'gemma3_text': 'gemma3',
}
"""model_type of `transformers` -> architecture of the file."""

_BASE = {
    'vocab_size': 320,
    'hidden_size': 256,
    'intermediate_size': 256,
    'num_hidden_layers': 3,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'max_position_embeddings': 64,
    'rms_norm_eps': 1e-5,
    'initializer_range': 0.1,
    'tie_word_embeddings': True,
}
CONFIGS = {
    'llama': {'head_dim': 64, 'rope_theta': 500000.0},
    'mistral': {'head_dim': 64, 'sliding_window': 8, 'tie_word_embeddings': False},
    'qwen2': {'rope_theta': 1000000.0},
    'qwen3': {'head_dim': 128, 'rope_theta': 1000000.0, 'rms_norm_eps': 1e-6},
    'gemma3_text': {
        'head_dim': 64, 'sliding_window': 8, 'query_pre_attn_scalar': 64, 'rms_norm_eps': 1e-6,
        'num_hidden_layers': 7, 'rope_theta': 1000000.0, 'rope_local_base_freq': 10000.0,
    },
}  # fmt: skip
"""Fields of each family's tiny config. `transformers` reads no head_dim of a Qwen 3 file: 128."""

# Quantization -> places of its f16 scales in a block of 256 weights, and the block's bytes.
_SCALES = {'Q4_K': ((0, 2), 144), 'Q6_K': ((208,), 210)}


def make_model(kind: str, *, seed: int = 0, **changes):
    """Returns a random model of a family, with norms and biases that are not those of the start."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(kind, **(_BASE | CONFIGS[kind] | changes))
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(('norm.weight', 'bias')):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def write_file(path: pathlib.Path, model, *, quantization: str = 'F32', tied: bool) -> None:
    """Writes a model as a GGUF file whose matrices have this quantization."""
    import gguf

    config = model.config
    architecture = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(path, architecture)
    _write_metadata(writer, config)
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    noise = np.random.default_rng(0)
    for name, values in model.state_dict().items():
        if tied and name == 'lm_head.weight':
            continue
        base, _, part = name.rpartition('.')
        values = _stored(name, values.numpy(), config)
        stored_name = f'{names.get_name(base)}.{part}'
        if values.ndim == 1:
            writer.add_tensor(stored_name, values)
            continue
        kind = gguf.GGMLQuantizationType[quantization]
        if quantization in _SCALES:
            raw = random_blocks(noise, values.shape, quantization)
        else:
            raw = gguf.quantize(values, kind)
        writer.add_tensor(stored_name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_blocks(noise: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Returns random blocks [rows, bytes] whose weights are of the size of initial ones."""
    places, size = _SCALES[kind]
    blocks = noise.integers(0, 256, (shape[0], shape[1] // 256, size), np.uint8)
    for place in places:
        scale = noise.uniform(0.5, 1.5, blocks.shape[:2]) * (1e-4 if kind == 'Q4_K' else 2e-5)
        blocks[..., place : place + 2] = scale.astype(np.float16)[..., None].view(np.uint8)
    return blocks.reshape(shape[0], -1)


def _write_metadata(writer, config) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    head = getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head)
    writer.add_value_length(head)
    rope = config.rope_parameters
    rope = rope.get('full_attention', rope)
    writer.add_rope_freq_base(rope['rope_theta'])
    if config.model_type in ('llama', 'mistral'):
        writer.add_rope_dimension_count(head)
    if config.model_type == 'mistral':
        writer.add_name('tiny mistral')  # by which `transformers` knows the family
    if config.model_type in ('mistral', 'gemma3_text'):
        writer.add_sliding_window(config.sliding_window)


def _stored(name: str, values: np.ndarray, config) -> np.ndarray:
    """Returns a weight as llama.cpp's converter stores it."""
    if config.model_type in ('llama', 'mistral') and ('q_proj' in name or 'k_proj' in name):
        query = 'q_proj' in name
        heads = config.num_attention_heads if query else config.num_key_value_heads
        rows = values.shape[0]
        halves = values.reshape(heads, 2, rows // heads // 2, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
    if config.model_type.startswith('gemma') and name.endswith('norm.weight'):
        return values + np.float32(1)
    return values
