"""Adapter folders of PEFT: adapter_config.json <-> LoraSettings, and the names of the factors.

PEFT stores `lora_A` [r, in] and `lora_B` [out, r] of a matrix [out, in] and adds
lora_alpha / r * B A, or lora_alpha / sqrt(r) * B A with `use_rslora` (arXiv 2312.03732).
Source of the format: `LoraConfig` and `get_peft_model_state_dict` of github.com/huggingface/peft.
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from elenchus.model.huggingface.family import Family, Tensor
from elenchus.model.lora import LoraSettings
from elenchus.model.projection import NUM_INPUT_DIMS

CONFIG, WEIGHTS = 'adapter_config.json', 'adapter_model.safetensors'
PREFIX = 'base_model.model.'

# Keys that change neither the sum nor which tensors there are.
_NEUTRAL = {
    *('peft_type', 'r', 'lora_alpha', 'use_rslora', 'target_modules', 'exclude_modules'),
    *('base_model_name_or_path', 'revision', 'task_type', 'auto_mapping', 'inference_mode'),
    *('lora_dropout', 'peft_version', 'megatron_core', 'layers_pattern', 'eva_config'),
    *('bias', 'init_lora_weights', 'qalora_group_size', 'runtime_config', 'ensure_weight_tying'),
}
# Starting points that leave the base as it is; others, such as PiSSA, change it.
_INITS = (True, False, None, 'gaussian', 'eva', 'orthogonal')


def read_settings(adapter_config: Mapping[str, Any], targets: Collection[str]) -> LoraSettings:
    """Returns the settings of an adapter_config.json for the targets that its tensors have.

    Raises ValueError, naming the key, if it asks for anything but plain LoRA.
    """

    def refuse(key: str, nearest: str):
        raise ValueError(f'{CONFIG}: {key}={adapter_config.get(key)!r} is not supported; {nearest}')

    if str(adapter_config.get('peft_type')).upper() != 'LORA':
        refuse('peft_type', "nearest: 'LORA'")
    for key, value in adapter_config.items():
        if value and key not in _NEUTRAL:
            refuse(
                key, 'merge the adapters with PEFT (merge_and_unload) and import the whole model'
            )
    if adapter_config.get('bias') not in (None, 'none'):
        refuse('bias', "nearest: 'none'")
    if adapter_config.get('init_lora_weights') not in _INITS:
        refuse('init_lora_weights', 'it changes the base; merge the adapters with PEFT')
    rank, alpha = (adapter_config.get(key) for key in ('r', 'lora_alpha'))
    if type(rank) is not int or rank < 1:
        refuse('r', 'it must be a positive integer')
    if type(alpha) not in (int, float) or not 0 < alpha < math.inf:
        refuse('lora_alpha', 'it must be a positive number')
    scale = math.sqrt(rank) if adapter_config.get('use_rslora') else 1.0
    return LoraSettings(rank, alpha * scale, tuple(t for t in NUM_INPUT_DIMS if t in targets))


def write_settings(settings: LoraSettings, family: Family, *, base: str | None) -> dict[str, Any]:
    """Returns the adapter_config.json of settings; `base` is the name or path of the base model."""
    return {
        'peft_type': 'LORA',
        'task_type': 'CAUSAL_LM',
        'base_model_name_or_path': base,
        'r': settings.rank,
        'lora_alpha': settings.alpha,
        'target_modules': sorted(module_name(family, target) for target in settings.targets),
        'lora_dropout': 0.0,
        'bias': 'none',
        'fan_in_fan_out': False,
        'use_rslora': False,
        'use_dora': False,
        'inference_mode': True,
    }


def module_name(family: Family, target: str) -> str:
    """Returns the name of a matrix in PEFT's `target_modules`, such as 'q_proj'."""
    return _weight(family, target)[0].split('.')[-2]


def factor_tensors(
    family: Family, shapes: Mapping[str, tuple[int, ...]], *, targets: Collection[str]
) -> list[Tensor]:
    """Returns the tensors of adapters: shapes by name, `a.query` [L, *in, r], `b.query`, ..."""
    tensors = []
    for target in targets:
        name, pattern = _weight(family, target)
        outer, inner = re.findall(r'\([^)]*\)|\S+', pattern.split(' -> ')[0])
        for factor, stored, letter in (('a', f'r {inner}', 'A'), ('b', f'{outer} r', 'B')):
            plain = stored.replace('(', '').replace(')', '')
            dims = f'{plain[2:]} r' if factor == 'a' else f'r {plain[:-2]}'
            depth, *shape = shapes[f'{factor}.{target}']
            sizes = dict(zip(dims.split(), shape, strict=True))
            groups = re.findall(r'\([^)]*\)|\S+', stored)
            lengths = tuple(
                math.prod(sizes[d] for d in group.strip('()').split()) for group in groups
            )
            stem = PREFIX + name.removesuffix('.weight')
            tensors += [
                Tensor(
                    f'{stem.format(layer)}.lora_{letter}.weight',
                    lengths, f'{factor}.{target}', (layer,), f'{stored} -> {dims}', sizes,
                )
                for layer in range(depth)
            ]  # fmt: skip
    return tensors


def target_of(family: Family, name: str) -> str | None:
    """Returns the target that a factor's tensor belongs to, None if it is no factor of a block."""
    for target in NUM_INPUT_DIMS:
        if _parameter(target) not in family.weights:  # experts have no adapters
            continue
        stem = re.escape(PREFIX + _weight(family, target)[0].removesuffix('.weight'))
        if re.fullmatch(stem.replace(r'\{\}', r'\d+') + r'\.lora_[AB]\.weight', name):
            return target
    return None


def _weight(family: Family, target: str) -> tuple[str, str]:
    """Returns (name, pattern) of a target's matrix in the family's files."""
    return family.weights[_parameter(target)]


def _parameter(target: str) -> str:
    """Returns our name of a target's matrix."""
    part = 'attention' if target in ('query', 'key', 'value', 'out') else 'mlp'
    return f'blocks.{part}.{target}'
