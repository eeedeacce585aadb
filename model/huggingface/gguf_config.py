"""Computes the config.json of a GGUF file from its metadata.

The keys are those of llama.cpp (`class Keys` of its gguf-py). Some values have no key: llama.cpp
derives them from architecture and size, and so does this module. Unknown keys of rotary scaling are
an error: a model whose scaling is ignored would read long texts wrongly, without any error.
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from elenchus.model.huggingface import gguf_files
from elenchus.model.huggingface.gguf_files import GgufFile

MODEL_TYPES = {
    'llama': 'llama',
    'qwen2': 'qwen2',
    'qwen3': 'qwen3',
    'gemma2': 'gemma2',
    'gemma3': 'gemma3_text',
}
"""Architecture of a file -> model_type in config.json. Files of Mistral have `llama` too."""

# (architecture, layers) of models whose queries are scaled by embed width / heads, not head width.
_SCALED_BY_WIDTH = {('gemma2', 46), ('gemma3', 62)}
_SIZES = {
    'block_count': 'num_hidden_layers',
    'embedding_length': 'hidden_size',
    'feed_forward_length': 'intermediate_size',
    'context_length': 'max_position_embeddings',
    'attention.head_count': 'num_attention_heads',
}
_ROPE_KEYS = {
    *('dimension_count', 'freq_base', 'freq_base_swa', 'scale_linear', 'scaling.type'),
    *('scaling.factor', 'scaling.original_context_length', 'scaling.finetuned'),
    *('scaling.attn_factor', 'scaling.yarn_attn_factor', 'scaling.yarn_ext_factor'),
    *('scaling.yarn_beta_fast', 'scaling.yarn_beta_slow'),
}
_SCALINGS = ('none', 'linear', 'yarn')
_LENGTH = 'original_max_position_embeddings'
_LLAMA3 = {'low_freq_factor': 1.0, 'high_freq_factor': 4.0, _LENGTH: 8192}


def read_config(file: GgufFile) -> dict[str, Any]:
    """Returns the config.json of a file.

    Raises ValueError, naming the key, if one is missing or not supported.
    """
    values = _Values(file)
    architecture = file.architecture
    if architecture not in MODEL_TYPES:
        near = difflib.get_close_matches(architecture, MODEL_TYPES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f'{file.path}: general.architecture={architecture!r} is not supported; known: '
            f'{list(MODEL_TYPES)}; nearest: {near!r}'
        )
    if values.get('expert_count'):
        raise ValueError(
            f'{file.path}: {architecture}.expert_count={values.get("expert_count")}: mixtures of '
            'experts are not supported; nearest: 0'
        )
    embedding = file.tensors.get('model.embed_tokens.weight')
    if embedding is None:
        raise ValueError(f'{file.path}: the tensor token_embd.weight is missing')
    config = {key: values.integer(name) for name, key in _SIZES.items()}
    config |= {
        'model_type': MODEL_TYPES[architecture],
        'vocab_size': embedding.shape[0],
        'rms_norm_eps': _shortest(values.required('attention.layer_norm_rms_epsilon')),
        'tie_word_embeddings': 'lm_head.weight' not in file.tensors,
        'num_key_value_heads': values.integer(
            'attention.head_count_kv', config['num_attention_heads']
        ),
    }
    config |= _heads(values, config) | _rope(values, config) | _windows(values, config)
    config |= _gemma(values, config) if architecture.startswith('gemma') else {}
    return config | _token_ids(file.metadata)


class _Values:
    """Metadata of the file's architecture, by key without the architecture's prefix."""

    def __init__(self, file: GgufFile):
        self.file = file
        prefix = f'{file.architecture}.'
        self.items = {
            key.removeprefix(prefix): value
            for key, value in file.metadata.items()
            if key.startswith(prefix)
        }

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a value, `default` if there is none."""
        return self.items.get(name, default)

    def required(self, name: str) -> Any:
        """Returns a value. Raises ValueError if there is none."""
        if name not in self.items:
            near = difflib.get_close_matches(name, self.items, n=1, cutoff=0.0)
            raise ValueError(
                f'{self.file.path}: missing key {self.file.architecture}.{name}'
                + (f'; nearest: {self.file.architecture}.{near[0]}' if near else '')
            )
        return self.items[name]

    def integer(self, name: str, default: int | None = None) -> int:
        """Returns an integer. Raises ValueError for anything else, such as one value per layer."""
        value = self.required(name) if default is None else self.get(name, default)
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(
                f'{self.file.path}: {self.file.architecture}.{name}={str(value)[:60]} must be one '
                'integer for all layers'
            )
        return value


def _heads(values: _Values, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the head width, and whether attention has biases.

    Raises ValueError if values have another width than keys, or positions rotate part of a head.
    """
    heads, rotary = config['num_attention_heads'], values.get('rope.dimension_count')
    width = values.get('attention.key_length') or config['hidden_size'] // max(heads, 1)
    if values.get('attention.value_length') not in (None, width):
        raise ValueError(
            f'{values.file.path}: {values.file.architecture}.attention.value_length='
            f'{values.get("attention.value_length")} is not supported; nearest: {width}'
        )
    if rotary not in (None, width):
        raise ValueError(
            f'{values.file.path}: {values.file.architecture}.rope.dimension_count={rotary}: '
            f'rotary positions on a part of a head are not supported; nearest: {width}'
        )
    has_bias = any(name.endswith('.q_proj.bias') for name in values.file.tensors)
    bias = {} if config['model_type'] == 'qwen2' else {'attention_bias': has_bias}
    return {'head_dim': width} | bias


def _rope(values: _Values, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns base and scaling of rotary positions. Raises ValueError for an unknown key."""
    path, prefix = values.file.path, f'{values.file.architecture}.rope.'
    names = [key.removeprefix('rope.') for key in values.items if key.startswith('rope.')]
    if unknown := [name for name in names if name not in _ROPE_KEYS]:
        raise ValueError(
            f'{path}: {prefix}{unknown[0]}={values.get("rope." + unknown[0])!r} is not supported; '
            f'nearest: leave it out'
        )
    rope = {'rope_theta': float(values.get('rope.freq_base', 10000.0))}
    kind = values.get('rope.scaling.type', 'none')
    factor = values.get('rope.scaling.factor', values.get('rope.scale_linear'))
    if kind == 'none' and factor not in (None, 0.0, 1.0):
        kind = 'linear'
    if kind not in _SCALINGS:
        near = difflib.get_close_matches(str(kind), _SCALINGS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f'{path}: {prefix}scaling.type={kind!r} is not supported; nearest: {near!r}'
        )
    long = [name for name in values.file.tensors if name.startswith('rope_factors_')]
    if long:
        raise ValueError(f'{path}: {long[0]}: rotary positions of kind longrope are not supported')
    if gguf_files.ROPE_FACTORS in values.file.tensors:
        divisors = values.file.read_raw(gguf_files.ROPE_FACTORS)
        scaling = llama3_scaling(divisors, theta=rope['rope_theta'], head_dim=config['head_dim'])
        return rope | {'rope_scaling': scaling}
    if kind == 'none':
        return rope
    if factor is None:
        values.required('rope.scaling.factor')
    scaling = {'rope_type': kind, 'factor': _shortest(factor)}
    if kind == 'yarn':
        scaling |= _yarn(values)
    return rope | {'rope_scaling': scaling}


def _yarn(values: _Values) -> dict[str, Any]:
    """Returns the further keys of YaRN's scaling."""
    keys = {
        _LENGTH: 'original_context_length',
        'beta_fast': 'yarn_beta_fast',
        'beta_slow': 'yarn_beta_slow',
    }
    named = {key: values.get(f'rope.scaling.{name}') for key, name in keys.items()}
    for name in ('attn_factor', 'yarn_attn_factor', 'yarn_ext_factor'):
        if values.get(f'rope.scaling.{name}') not in (None, 1.0):
            raise ValueError(
                f'{values.file.path}: {values.file.architecture}.rope.scaling.{name}='
                f'{values.get(f"rope.scaling.{name}")} is not supported; nearest: 1.0'
            )
    return {key: value for key, value in named.items() if value is not None}


def llama3_scaling(divisors: np.ndarray, *, theta: float, head_dim: int) -> dict[str, Any] | None:
    """Returns the scaling of kind llama3 that gives these divisors; None if all are 1.

    llama.cpp stores only the divisors [head_dim / 2]. Their inverses are linear in the frequency
    between the two wavelengths of the scaling, so a line fit recovers the wavelengths. Raises
    ValueError if no scaling gives these divisors.
    """
    divisors = np.asarray(divisors, np.float64).reshape(-1)
    if np.allclose(divisors, 1):
        return None
    frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    factor = _shortest(divisors.max())
    scaling = {'rope_type': 'llama3', 'factor': factor, **_LLAMA3}
    if divisors.shape == frequencies.shape:
        candidates = [scaling]
        inner = (divisors > 1 + 1e-6) & (divisors < factor * (1 - 1e-6))
        if inner.sum() > 1:
            smooth = (1 / divisors[inner] - 1 / factor) / (1 - 1 / factor)
            slope, start = np.polyfit(frequencies[inner] / (2 * math.pi), smooth, 1)
            if start < 0:  # with low_freq_factor 1
                fitted = {'high_freq_factor': 1 - 1 / start, _LENGTH: round(-slope / start)}
                candidates.append(scaling | fitted)
        for candidate in candidates:
            if np.allclose(_divisors(candidate, frequencies), divisors, rtol=1e-4):
                return candidate
    raise ValueError(
        f'{gguf_files.ROPE_FACTORS} has divisors up to {factor} that are no scaling of kind llama3'
    )


def _divisors(scaling: Mapping[str, Any], frequencies: np.ndarray) -> np.ndarray:
    """Returns the divisor of each frequency under scaling of kind llama3."""
    low, high = scaling['low_freq_factor'], scaling['high_freq_factor']
    turns = scaling[_LENGTH] * frequencies / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / scaling['factor'] + smooth)


def _windows(values: _Values, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the window of attention and the layers that have it."""
    kind = config['model_type']
    # Early files of Gemma 2 have no key for the window; llama.cpp then takes 4096.
    default = 4096 if kind == 'gemma2' else None
    window = values.get('attention.sliding_window', default) or None
    if kind.startswith('gemma'):
        return {'sliding_window': window, 'layer_types': _layer_types(values, config)}
    if window is None:
        return {}
    if kind == 'llama':  # Llama itself has no windows: the file is one of Mistral
        return {'model_type': 'mistral', 'sliding_window': window}
    return {'use_sliding_window': True, 'sliding_window': window, 'max_window_layers': 0}


def _layer_types(values: _Values, config: Mapping[str, Any]) -> list[str]:
    """Returns the kind of each layer of Gemma: every second or sixth has no window."""
    period = 2 if config['model_type'] == 'gemma2' else 6
    pattern = values.get('attention.sliding_window_pattern', period)
    layers = config['num_hidden_layers']
    if isinstance(pattern, int) and pattern > 0:
        pattern = [bool((i + 1) % pattern) for i in range(layers)]
    if not isinstance(pattern, list):
        raise ValueError(
            f'{values.file.path}: {values.file.architecture}.attention.sliding_window_pattern='
            f'{pattern!r} must be a positive integer or a list of booleans; nearest: {period}'
        )
    return ['sliding_attention' if is_local else 'full_attention' for is_local in pattern[:layers]]


def _gemma(values: _Values, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys that only Gemma has."""
    size = (values.file.architecture, config['num_hidden_layers'])
    scale = config['head_dim']
    if size in _SCALED_BY_WIDTH:
        scale = config['hidden_size'] // config['num_attention_heads']
    caps = {
        'attn_logit_softcapping': values.get('attn_logit_softcapping'),
        'final_logit_softcapping': values.get('final_logit_softcapping'),
    }
    if size[0] == 'gemma2':
        caps = {'attn_logit_softcapping': 50.0, 'final_logit_softcapping': 30.0} | {
            key: value for key, value in caps.items() if value is not None
        }
    local = {'rope_local_base_freq': float(values.get('rope.freq_base_swa', 10000.0))}
    return {'query_pre_attn_scalar': scale, **caps} | (local if size[0] == 'gemma3' else {})


def _token_ids(metadata: Mapping[str, Any]) -> dict[str, Any]:
    names = {'bos': 'bos', 'eos': 'eos', 'padding': 'pad'}
    ids = {f'{ours}_token_id': metadata.get(f'tokenizer.ggml.{name}_token_id')
           for name, ours in names.items()}  # fmt: skip
    return {key: value for key, value in ids.items() if value is not None}


def _shortest(value: Any) -> float:
    """Returns the shortest decimal that is this float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
