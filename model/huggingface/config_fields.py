"""Field maps that families share: keys of config.json <-> fields of ModelConfig."""

from collections.abc import Callable
from typing import Any

from elenchus.model.huggingface.family import FieldMap, HFConfig

LOCAL, GLOBAL = 'sliding_attention', 'full_attention'
"""Values of `layer_types`: layers with and without a window."""


def renamed(**keys: str) -> FieldMap:
    """Maps fields to keys with another name: renamed(field='key')."""
    return FieldMap(
        lambda hf_config: {field: hf_config[key] for field, key in keys.items()},
        lambda config: {key: getattr(config, field) for field, key in keys.items()},
    )


def fixed(fields: dict[str, Any], **keys: Any) -> FieldMap:
    """Maps fields that are equal in all models of a family, with the keys that imply them.

    Reading raises ValueError if a key has another value. Keys with a false value are not written,
    because a missing key means the same.
    """

    def read(hf_config):
        for key, value in keys.items():
            if hf_config.get(key) not in (None, value):
                raise ValueError(
                    f'config.json: {key}={hf_config[key]!r} is not supported; nearest: {value!r}'
                )
        return fields

    return FieldMap(read, lambda config: {key: value for key, value in keys.items() if value})


def zero_for_null(**keys: str) -> FieldMap:
    """Maps fields that use 0 for "disabled" where config.json uses null."""
    return FieldMap(
        lambda hf_config: {field: float(hf_config[key] or 0) for field, key in keys.items()},
        lambda config: {key: getattr(config, field) or None for field, key in keys.items()},
    )


def _read_heads(hf_config: HFConfig) -> dict[str, Any]:
    width, heads = hf_config['hidden_size'], hf_config['num_attention_heads']
    return {
        'num_heads': heads,
        'num_kv_heads': hf_config.get('num_key_value_heads') or heads,
        'head_dim': hf_config.get('head_dim') or width // heads,
    }


SHARED_SIZES = (
    renamed(
        vocab_size='vocab_size',
        num_layers='num_hidden_layers',
        embed_dim='hidden_size',
        max_length='max_position_embeddings',
        norm_epsilon='rms_norm_eps',
        tie_embeddings='tie_word_embeddings',
    ),
    FieldMap(
        _read_heads,
        lambda config: {
            'num_attention_heads': config.num_heads,
            'num_key_value_heads': config.num_kv_heads,
            'head_dim': config.head_dim,
        },
    ),
)
"""Sizes that all families have under the same keys."""

SIZES = (
    *SHARED_SIZES,
    renamed(mlp_dim='intermediate_size'),
    fixed({'num_experts': 0, 'experts_per_token': 0, 'normalise_experts': False}),
)
"""Sizes of families with one MLP in a block."""

NON_GEMMA = {
    'zero_centered_norms': False,
    'post_norms': False,
    'query_scale_dim': 0,
    'attention_soft_cap': 0.0,
    'logits_soft_cap': 0.0,
    'scale_embeddings': False,
    'activation': 'silu',
}
"""Fields of all families except Gemma."""


# Windows


def _layer_types(hf_config: HFConfig) -> list[str] | None:
    """Returns the kinds of all layers, None in older files. Raises ValueError if one is unknown."""
    types, layers = hf_config.get('layer_types'), hf_config['num_hidden_layers']
    if types is None:
        return None
    if not isinstance(types, list) or len(types) != layers:
        raise ValueError(f'config.json: layer_types={types!r} must be a list of {layers} names')
    if unknown := [name for name in types if name not in (LOCAL, GLOBAL)]:
        raise ValueError(
            f'config.json: unknown layer_types {unknown[0]!r}; known: {LOCAL!r}, {GLOBAL!r}'
        )
    return types


def windows_by_layer(is_local: Callable[[HFConfig, int], bool]) -> FieldMap:
    """Maps windows of one size, in the layers that `layer_types` marks as local.

    `is_local(hf_config, layer)` decides where older files have no `layer_types`.
    """

    def read(hf_config):
        layers, size = range(hf_config['num_hidden_layers']), hf_config['sliding_window'] or 0
        types = _layer_types(hf_config)
        local = [is_local(hf_config, i) if types is None else types[i] == LOCAL for i in layers]
        windows = tuple(size if is_windowed else 0 for is_windowed in local)
        # The shortest pattern whose repetition gives the windows of all layers.
        periods = (windows[:n] for n in range(1, len(windows) + 1))
        return {
            'windows': next(
                p for p in periods if all(w == p[i % len(p)] for i, w in enumerate(windows))
            )
        }

    return FieldMap(
        read,
        lambda config: {
            'sliding_window': max(config.layer_windows) or None,
            'layer_types': [LOCAL if window else GLOBAL for window in config.layer_windows],
        },
    )
