"""Rotary positions: maps `rope_parameters`, `rope_scaling` and `rope_theta` to fields and back.

Files of `transformers` 5 have one section `rope_parameters`; older ones have `rope_theta` and, with
`type` or `rope_type`, `rope_scaling`. What a file declares is either applied or refused by name: a
model whose scaling is ignored reads long texts wrongly, without an error.
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any

from elenchus.model.config import ModelConfig, RopeScaling, YarnScaling
from elenchus.model.huggingface.family import FieldMap, HFConfig

DEFAULT_THETA = 10000.0

_LENGTH = 'original_max_position_embeddings'
_ANY_KIND = {'rope_type', 'type', 'rope_theta', 'partial_rotary_factor'}
# Keys of each kind. `finetuned` (of early YaRN files) says nothing about frequencies, and neither
# does the original length where nothing depends on it.
_IGNORED = {_LENGTH, 'finetuned'}
_KEYS = {
    'default': _IGNORED,
    'linear': {'factor', *_IGNORED},
    'llama3': {'factor', 'low_freq_factor', 'high_freq_factor', *_IGNORED},
    'yarn': {
        *('factor', 'attention_factor', 'mscale', 'mscale_all_dim'),
        *('beta_fast', 'beta_slow', 'truncate', *_IGNORED),
    },
}
_REFUSED = {
    'dynamic': 'its frequencies change with the length of the text',
    'longrope': 'it chooses between two sets of frequencies by the length of the text',
}


def read_rope(hf_config: HFConfig) -> tuple[float, RopeScaling | YarnScaling | None]:
    """Returns the base and the scaling of rotary frequencies.

    Raises ValueError if the file asks for a scaling that the model does not have, if it contradicts
    itself, or if it has the numbers of a scaling without its kind.
    """
    rope = _merged(hf_config)
    theta = rope.get('rope_theta', hf_config.get('rope_theta'))
    theta = DEFAULT_THETA if theta is None else _number(theta, 'rope_theta')
    partial = rope.get('partial_rotary_factor', hf_config.get('partial_rotary_factor'))
    if partial not in (None, 1):
        raise ValueError(
            f'config.json: partial_rotary_factor={partial!r} is not supported; nearest: 1.0'
        )
    return theta, _read_scaling(rope, hf_config)


def _merged(hf_config: HFConfig) -> dict[str, Any]:
    """Returns the one description of rotary positions, without its nulls."""
    sections = {}
    for name in ('rope_scaling', 'rope_parameters'):
        section = hf_config.get(name)
        if section is not None and not isinstance(section, Mapping):
            raise ValueError(f'config.json: {name}={section!r} must be an object or null')
        sections[name] = {k: value for k, value in (section or {}).items() if value is not None}
    old, new = sections.values()
    if old and new and _scaling_of(old) != _scaling_of(new):
        raise ValueError(
            f'config.json: rope_parameters={new} and rope_scaling={old} differ; keep one of them'
        )
    return {**old, **new}


def _scaling_of(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a section says about scaling, however it spells the kind."""
    kind = {'kind': rope.get('rope_type', rope.get('type', 'default'))}
    return {key: value for key, value in rope.items() if key not in _ANY_KIND} | kind


def _read_scaling(rope: Mapping[str, Any], hf_config: HFConfig) -> RopeScaling | YarnScaling | None:
    kind = _read_kind(rope)
    if unknown := sorted(rope.keys() - _KEYS[kind] - _ANY_KIND):
        raise ValueError(
            f'config.json: {unknown[0]}={rope[unknown[0]]!r} of rotary positions is not supported '
            f'with rope_type={kind!r}'
        )
    if kind == 'default':
        return None
    if kind == 'yarn':
        return _read_yarn(rope, hf_config)
    factor = _required(rope, 'factor', kind)
    if kind == 'linear':
        return RopeScaling('linear', factor, 0.0, 0.0, 0)
    low, high = (_required(rope, f'{name}_freq_factor', kind) for name in ('low', 'high'))
    return RopeScaling('llama3', factor, low, high, _original_length(rope, hf_config))


def _read_kind(rope: Mapping[str, Any]) -> str:
    """Returns the kind of scaling, 'default' without one. Raises ValueError if it is not known."""
    kinds = [rope[key] for key in ('rope_type', 'type') if key in rope]
    if len(set(map(str, kinds))) > 1:
        raise ValueError(
            f'config.json: rope_type={kinds[0]!r} and type={kinds[1]!r} of rotary positions '
            'differ; keep one of them'
        )
    kind = kinds[0] if kinds else 'default'
    kind = kind if isinstance(kind, str) else str(kind)
    if not kinds and (declared := sorted(rope.keys() - _ANY_KIND)):
        raise ValueError(
            f'config.json: rotary positions have {declared[0]}={rope[declared[0]]!r} but no '
            f'rope_type; add one of {list(_KEYS)}'
        )
    if kind in _KEYS:
        return kind
    reason = f' ({_REFUSED[kind]})' if kind in _REFUSED else ''
    nearest = difflib.get_close_matches(str(kind), _KEYS, n=1, cutoff=0.0)[0]
    raise ValueError(
        f'config.json: rope_type={kind!r} is not supported{reason}; known: {list(_KEYS)}; '
        f'nearest: {nearest!r}'
    )


def _read_yarn(rope: Mapping[str, Any], hf_config: HFConfig) -> YarnScaling:
    """Returns YaRN's scaling with the values that `transformers` uses for missing keys."""
    length = _original_length(rope, hf_config)
    maximum = hf_config.get('max_position_embeddings', length)
    factor = _number(rope.get('factor', maximum / length), 'factor')
    mscale, mscale_all = (rope.get(key) for key in ('mscale', 'mscale_all_dim'))
    attention = rope.get('attention_factor')
    if attention is None and mscale and mscale_all:
        attention = _magnitude(factor, _number(mscale, 'mscale')) / _magnitude(
            factor, _number(mscale_all, 'mscale_all_dim')
        )
    elif attention is None:
        attention = _magnitude(factor, 1.0)
    return YarnScaling(
        kind='yarn',
        factor=factor,
        low_frequency=_number(rope.get('beta_slow') or 1.0, 'beta_slow'),
        high_frequency=_number(rope.get('beta_fast') or 32.0, 'beta_fast'),
        original_length=length,
        attention_factor=_number(attention, 'attention_factor'),
        truncate=bool(rope.get('truncate', True)),
    )


def _magnitude(factor: float, mscale: float) -> float:
    """Returns the scale of queries and keys for a factor. Source: arXiv 2309.00071, eq. 22."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _original_length(rope: Mapping[str, Any], hf_config: HFConfig) -> int:
    """Returns the context length of pre-training: without a key the model's own maximum."""
    places = (hf_config.get(_LENGTH), rope.get(_LENGTH), hf_config.get('max_position_embeddings'))
    length = next((place for place in places if place is not None), None)
    if isinstance(length, float) and length.is_integer():
        length = int(length)
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise ValueError(f'config.json: {_LENGTH}={length!r} must be an integer of at least 1')
    return length


def _required(rope: Mapping[str, Any], key: str, kind: str) -> float:
    if key not in rope:
        raise ValueError(f'config.json: missing key {key!r} of rotary positions of kind {kind!r}')
    return _number(rope[key], key)


def _number(value: Any, key: str) -> float:
    """Returns a positive finite number as float; raises ValueError for anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise ValueError(f'config.json: {key}={value!r} of rotary positions must be positive')
    return float(value)


def write_rope_scaling(config: ModelConfig) -> dict[str, Any] | None:
    """Returns the value of `rope_scaling` in a config.json."""
    scaling = config.rope_scaling
    if scaling is None:
        return None
    values = {'rope_type': scaling.kind, 'factor': scaling.factor}
    if scaling.kind == 'linear':
        return values
    values[_LENGTH] = scaling.original_length
    low, high = scaling.low_frequency, scaling.high_frequency
    if scaling.kind == 'llama3':
        return values | {'low_freq_factor': low, 'high_freq_factor': high}
    return values | {
        'beta_slow': low,
        'beta_fast': high,
        'attention_factor': scaling.attention_factor,
        'truncate': scaling.truncate,
    }


def _read_one_rope(hf_config: HFConfig) -> dict[str, Any]:
    theta, scaling = read_rope(hf_config)
    return {'rope_theta': theta, 'rope_scaling': scaling, 'local_rope_theta': 0.0}


ROPE = FieldMap(
    _read_one_rope,
    lambda config: {'rope_theta': config.rope_theta, 'rope_scaling': write_rope_scaling(config)},
)
"""Rotary positions with one base for all layers."""
