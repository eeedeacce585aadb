"""Family: maps a config.json and its tensors to a ModelConfig and its parameters, and back."""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import einops

from elenchus.model.config import ModelConfig

HFConfig = Mapping[str, Any]
"""Keys and values of a config.json."""


NULL_HAS_MEANING = frozenset(
    {
        *('num_key_value_heads', 'head_dim', 'sliding_window'),
        *('attn_logit_softcapping', 'final_logit_softcapping'),
    }
)
"""Keys whose null is a value of its own; elsewhere null is the same as a missing key."""

_POSITIVE_INTEGERS = (
    *('vocab_size', 'num_hidden_layers', 'hidden_size', 'intermediate_size'),
    *('max_position_embeddings', 'num_attention_heads', 'num_key_value_heads', 'head_dim'),
    *('sliding_window_pattern', 'moe_intermediate_size', 'num_experts', 'num_local_experts'),
    *('num_experts_per_tok', 'decoder_sparse_step'),
)
_INTEGERS = ('sliding_window', 'max_window_layers', 'query_pre_attn_scalar')
_NUMBERS = ('rms_norm_eps', 'attn_logit_softcapping', 'final_logit_softcapping')
_BOOLEANS = ('tie_word_embeddings', 'use_sliding_window', 'norm_topk_prob')


_MOST_LAYERS = 10_000  # a damaged number would fill the memory with names of layers


def _check_types(hf_config: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the key, if a value of a config.json has another type."""
    for keys, wanted, fits in (
        (_POSITIVE_INTEGERS, 'a positive integer', lambda v: type(v) is int and v > 0),
        (_INTEGERS, 'an integer of at least 0', lambda v: type(v) is int and v >= 0),
        (_NUMBERS, 'a finite number', lambda v: type(v) in (int, float) and math.isfinite(v)),
        (_BOOLEANS, 'true or false', lambda v: type(v) is bool),
    ):
        for key in keys:
            value = hf_config.get(key)
            if value is not None and not fits(value):
                raise ValueError(f'config.json: {key}={value!r} must be {wanted}')
    if (hf_config.get('num_hidden_layers') or 0) > _MOST_LAYERS:
        raise ValueError(
            f'config.json: num_hidden_layers={hf_config["num_hidden_layers"]} must be at most '
            f'{_MOST_LAYERS}'
        )


class FieldMap(NamedTuple):
    """Reads some fields of ModelConfig from a config.json and writes them into one."""

    read: Callable[[HFConfig], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]


class Tensor(NamedTuple):
    """A tensor of a family's files and its place among our parameters."""

    name: str
    shape: tuple[int, ...]
    parameter: str  # our name of the parameter
    index: tuple[int, ...]  # into a stacked parameter: layer, and expert; () if it is not stacked
    pattern: str  # einops pattern: tensor -> parameter
    sizes: dict[str, int]  # sizes of the dimensions in the pattern

    def to_parameter(self, values):
        """Rearranges the tensor into the parameter, or into its part of a stacked one."""
        return einops.rearrange(values, self.pattern, **self.sizes)

    def to_tensor(self, values):
        """Rearranges the parameter, or its part of a stacked one, into the tensor."""
        tensor, parameter = self.pattern.split(' -> ')
        return einops.rearrange(values, f'{parameter} -> {tensor}', **self.sizes)


@dataclasses.dataclass(frozen=True)
class Family:
    """Models with the same keys in config.json and the same names of tensors."""

    model_type: str
    architecture: str  # class of `transformers`
    field_maps: tuple[FieldMap, ...]  # together, all fields of ModelConfig except numerics
    defaults: HFConfig  # values that `transformers` uses for keys missing in config.json
    # Parameter -> (name, pattern); the first {} is the layer, a second the expert.
    weights: Mapping[str, tuple[str, str]]

    def read_config(self, hf_config: HFConfig) -> dict[str, Any]:
        """Returns the fields of a ModelConfig, except numerics.

        Raises ValueError if a key is missing or asks for something that the model cannot do.
        """
        stated = {k: v for k, v in hf_config.items() if v is not None or k in NULL_HAS_MEANING}
        fields, hf_config = {}, {**self.defaults, **stated}
        _check_types(hf_config)
        for field_map in self.field_maps:
            try:
                fields |= field_map.read(hf_config)
            except KeyError as error:
                raise ValueError(
                    f'config.json of {self.model_type}: missing key {error}'
                ) from error
        return fields

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """Returns the config.json of `config`.

        Raises ValueError if this family cannot express a field.
        """
        hf_config = {'model_type': self.model_type, 'architectures': [self.architecture]}
        for field_map in self.field_maps:
            hf_config |= field_map.write(config)
        # Reads back what was written: a field that differs now has no key in this family.
        written = dataclasses.replace(config, **self.read_config(hf_config))
        # Different `windows` can be the same pattern over these layers, so compares layer_windows.
        fields = [f.name for f in dataclasses.fields(config) if f.name != 'windows']
        differing = [
            f'{name}={getattr(config, name)!r}'
            for name in (*fields, 'layer_windows')
            if getattr(written, name) != getattr(config, name)
        ]
        if differing:
            raise ValueError(f'{self.model_type} cannot express {", ".join(differing)}')
        return hf_config

    def tensors(self, shapes: Mapping[str, tuple[int, ...]]) -> list[Tensor]:
        """Returns all tensors of a model, from the names and shapes of its parameters."""
        return [
            tensor for name, shape in shapes.items() for tensor in self._tensors_of(name, shape)
        ]

    def _tensors_of(self, parameter: str, shape: tuple[int, ...]) -> list[Tensor]:
        """Returns the tensors of one parameter: one per layer, and expert, if it is stacked."""
        name, pattern = self.weights[parameter]
        tensor_dims, parameter_dims = pattern.split(' -> ')
        stacked = name.count('{}')
        sizes = dict(zip(parameter_dims.split(), shape[stacked:], strict=True))
        groups = re.findall(r'\([^)]*\)|\S+', tensor_dims)  # '(N H) D' -> ['(N H)', 'D']
        lengths = tuple(math.prod(sizes[d] for d in group.strip('()').split()) for group in groups)
        return [
            Tensor(name.format(*index), lengths, parameter, index, pattern, sizes)
            for index in itertools.product(*map(range, shape[:stacked]))
        ]
