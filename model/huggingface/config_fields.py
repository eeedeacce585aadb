"""What families share: parts of their config.json, and names of their tensors."""

import difflib
from collections.abc import Callable
from typing import Any

from elenchus.model.config import ModelConfig, RopeScaling
from elenchus.model.huggingface.family import Described, Part

LOCAL, GLOBAL = 'sliding_attention', 'full_attention'


def renamed(**keys: str) -> Part:
    """Fields that a config.json has by another name."""
    return Part(
        lambda described: {field: described[key] for field, key in keys.items()},
        lambda config: {key: getattr(config, field) for field, key in keys.items()},
    )


def fixed(fields: dict[str, Any], **keys: Any) -> Part:
    """Fields that are the same in all models of a family, and keys that go with them.

    Reading raises ValueError where a key has another value. A key for what is off is not written:
    without it, it is off as well.
    """

    def read(described):
        for key, value in keys.items():
            if described.get(key) not in (None, value):
                raise ValueError(f'config.json: {key}={described[key]!r}; nearest read: {value!r}')
        return fields

    return Part(read, lambda config: {key: value for key, value in keys.items() if value})


def or_off(**keys: str) -> Part:
    """Fields for which 0 is off, where a config.json has null."""
    return Part(
        lambda described: {field: float(described[key] or 0) for field, key in keys.items()},
        lambda config: {key: getattr(config, field) or None for field, key in keys.items()},
    )


def _read_heads(described: Described) -> dict[str, Any]:
    width, heads = described['hidden_size'], described['num_attention_heads']
    return {
        'num_heads': heads,
        'num_kv_heads': described.get('num_key_value_heads') or heads,
        'head_dim': described.get('head_dim') or width // heads,
    }


SIZES = (
    renamed(
        vocab_size='vocab_size',
        num_layers='num_hidden_layers',
        embed_dim='hidden_size',
        mlp_dim='intermediate_size',
        max_length='max_position_embeddings',
        norm_epsilon='rms_norm_eps',
        tie_embeddings='tie_word_embeddings',
    ),
    Part(
        _read_heads,
        lambda config: {
            'num_attention_heads': config.num_heads,
            'num_key_value_heads': config.num_kv_heads,
            'head_dim': config.head_dim,
        },
    ),
)

PLAIN = {
    'zero_centered_norms': False,
    'post_norms': False,
    'query_scale_dim': 0,
    'attention_soft_cap': 0.0,
    'logits_soft_cap': 0.0,
    'scale_embeddings': False,
    'activation': 'silu',
}
"""What only the Gemmas have otherwise."""


# Rotary positions


def rope_of(described: Described) -> tuple[float, RopeScaling | None]:
    """Base and scaling, as `rope_parameters` or as the older `rope_theta` and `rope_scaling`.

    Raises ValueError on a scaling that is not known here.
    """
    told = described.get('rope_parameters') or described.get('rope_scaling') or {}
    theta = float(told.get('rope_theta', described.get('rope_theta', 10000.0)))
    kind = told.get('rope_type', told.get('type', 'default'))
    if kind == 'default':
        return theta, None
    if kind == 'linear':
        return theta, RopeScaling('linear', float(told['factor']), 0.0, 0.0, 0)
    if kind == 'llama3':
        factors = (float(told[f'{name}factor']) for name in ('', 'low_freq_', 'high_freq_'))
        return theta, RopeScaling('llama3', *factors, told['original_max_position_embeddings'])
    near = difflib.get_close_matches(kind, ('linear', 'llama3', 'default'), n=1, cutoff=0.0)[0]
    raise ValueError(f'config.json: rope_type={kind!r} is not known; nearest: {near!r}')


def rope_scaling(config: ModelConfig) -> dict[str, Any] | None:
    """The `rope_scaling` of a config.json."""
    scaling = config.rope_scaling
    if scaling is None:
        return None
    said = {'rope_type': scaling.kind, 'factor': scaling.factor}
    if scaling.kind == 'linear':
        return said
    return said | {
        'low_freq_factor': scaling.low_frequency,
        'high_freq_factor': scaling.high_frequency,
        'original_max_position_embeddings': scaling.original_length,
    }


def _read_rope(described: Described) -> dict[str, Any]:
    theta, scaling = rope_of(described)
    return {'rope_theta': theta, 'rope_scaling': scaling, 'local_rope_theta': 0.0}


ROPE = Part(
    _read_rope,
    lambda config: {'rope_theta': config.rope_theta, 'rope_scaling': rope_scaling(config)},
)
"""One base for all layers."""


# Windows


def layered_windows(is_local: Callable[[Described, int], bool]) -> Part:
    """One size of window, in the layers that `layer_types` names or else `is_local` does."""

    def read(described):
        layers, size = range(described['num_hidden_layers']), described['sliding_window'] or 0
        types = described.get('layer_types')
        local = [is_local(described, i) if types is None else types[i] == LOCAL for i in layers]
        windows = tuple(size if here else 0 for here in local)
        periods = (windows[:n] for n in range(1, len(windows) + 1))
        return {
            'windows': next(
                p for p in periods if all(w == p[i % len(p)] for i, w in enumerate(windows))
            )
        }

    return Part(
        read,
        lambda config: {
            'sliding_window': max(config.layer_windows) or None,
            'layer_types': [LOCAL if window else GLOBAL for window in config.layer_windows],
        },
    )


# Tensors

_LAYER = 'model.layers.{}.'

WEIGHTS = {
    'embedding': ('model.embed_tokens.weight', 'V D -> V D'),
    'final_norm.scale': ('model.norm.weight', 'D -> D'),
    'head': ('lm_head.weight', 'V D -> D V'),
    'blocks.attention_norm.scale': (f'{_LAYER}input_layernorm.weight', 'D -> D'),
    'blocks.attention.query': (f'{_LAYER}self_attn.q_proj.weight', '(N H) D -> D N H'),
    'blocks.attention.key': (f'{_LAYER}self_attn.k_proj.weight', '(K H) D -> D K H'),
    'blocks.attention.value': (f'{_LAYER}self_attn.v_proj.weight', '(K H) D -> D K H'),
    'blocks.attention.out': (f'{_LAYER}self_attn.o_proj.weight', 'D (N H) -> N H D'),
    'blocks.mlp_norm.scale': (f'{_LAYER}post_attention_layernorm.weight', 'D -> D'),
    'blocks.mlp.gate': (f'{_LAYER}mlp.gate_proj.weight', 'F D -> D F'),
    'blocks.mlp.up': (f'{_LAYER}mlp.up_proj.weight', 'F D -> D F'),
    'blocks.mlp.down': (f'{_LAYER}mlp.down_proj.weight', 'D F -> F D'),
}
"""Tensors of Llama and Mistral."""

QKV_BIASES = {
    'blocks.attention.query_bias': (f'{_LAYER}self_attn.q_proj.bias', '(N H) -> N H'),
    'blocks.attention.key_bias': (f'{_LAYER}self_attn.k_proj.bias', '(K H) -> K H'),
    'blocks.attention.value_bias': (f'{_LAYER}self_attn.v_proj.bias', '(K H) -> K H'),
}

QK_NORMS = {
    'blocks.attention.query_norm.scale': (f'{_LAYER}self_attn.q_norm.weight', 'H -> H'),
    'blocks.attention.key_norm.scale': (f'{_LAYER}self_attn.k_norm.weight', 'H -> H'),
}

POST_NORMS = {
    'blocks.attention_post_norm.scale': (f'{_LAYER}post_attention_layernorm.weight', 'D -> D'),
    'blocks.mlp_norm.scale': (f'{_LAYER}pre_feedforward_layernorm.weight', 'D -> D'),
    'blocks.mlp_post_norm.scale': (f'{_LAYER}post_feedforward_layernorm.weight', 'D -> D'),
}
"""The Gemmas' norms around attention and MLP; one takes the name that WEIGHTS gives another."""
