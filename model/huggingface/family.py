"""Family: a config.json and the tensors that go with it, mapped to ours and back."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import einops

from elenchus.model.config import ModelConfig

Described = Mapping[str, Any]
"""The values of a config.json."""


class Part(NamedTuple):
    """Some fields of ModelConfig, read from a config.json and written into one."""

    read: Callable[[Described], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]


class Tensor(NamedTuple):
    """A tensor of a family's files, and where it stands among our parameters."""

    name: str
    shape: tuple[int, ...]
    parameter: str
    layer: int | None  # of a stacked parameter; None where it is not stacked
    pattern: str  # theirs -> ours, as einops has it
    sizes: dict[str, int]  # of the dimensions in the pattern

    def to_ours(self, values):
        """The parameter, or its layer, that the tensor holds."""
        return einops.rearrange(values, self.pattern, **self.sizes)

    def to_theirs(self, values):
        """The tensor that a parameter, or its layer, becomes."""
        theirs, ours = self.pattern.split(' -> ')
        return einops.rearrange(values, f'{ours} -> {theirs}', **self.sizes)


@dataclasses.dataclass(frozen=True)
class Family:
    """Models that share a config.json and names of tensors."""

    model_type: str
    architecture: str  # the class of `transformers` that runs it
    parts: tuple[Part, ...]  # all fields of ModelConfig but its numerics
    defaults: Described  # what `transformers` takes for what a config.json leaves out
    weights: Mapping[str, tuple[str, str]]  # parameter -> (name, pattern); {} is the layer

    def read_config(self, described: Described) -> dict[str, Any]:
        """Fields of a ModelConfig, all but numerics.

        Raises ValueError where something is missing, or beyond what the model can do.
        """
        fields, described = {}, {**self.defaults, **described}
        for part in self.parts:
            try:
                fields |= part.read(described)
            except KeyError as error:
                raise ValueError(f'a {self.model_type} config.json without {error}') from error
        return fields

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """The values of a config.json that say what `config` does.

        Raises ValueError where this family has no words for some field.
        """
        described = {'model_type': self.model_type, 'architectures': [self.architecture]}
        for part in self.parts:
            described |= part.write(config)
        said = dataclasses.replace(config, **self.read_config(described))
        fields = [f.name for f in dataclasses.fields(config) if f.name != 'windows']
        unsaid = [
            f'{name}={getattr(config, name)!r}'
            for name in (*fields, 'layer_windows')
            if getattr(said, name) != getattr(config, name)
        ]
        if unsaid:
            raise ValueError(f'{self.model_type} cannot have {", ".join(unsaid)}')
        return described

    def tensors(self, shapes: Mapping[str, tuple[int, ...]]) -> list[Tensor]:
        """All tensors of a model whose parameters have these names and shapes."""
        return [tensor for name, shape in shapes.items() for tensor in self._of(name, shape)]

    def _of(self, parameter: str, shape: tuple[int, ...]) -> list[Tensor]:
        name, pattern = self.weights[parameter]
        theirs, ours = pattern.split(' -> ')
        stacked = '{}' in name
        sizes = dict(zip(ours.split(), shape[stacked:], strict=True))
        groups = re.findall(r'\([^)]*\)|\S+', theirs)
        lengths = tuple(math.prod(sizes[d] for d in group.strip('()').split()) for group in groups)
        layers = range(shape[0]) if stacked else [None]
        return [Tensor(name.format(i), lengths, parameter, i, pattern, sizes) for i in layers]
