"""Low-rank adapters: small trained weights beside a base that is frozen and shared.

Adapters are a pytree of their own. `attach` lays them onto a base without copying an array, so two
players can be two adapters on one base; `split` takes them off again: what a train step
differentiates, an optimizer's state follows and a checkpoint holds is the first part alone.
Source: arXiv 2106.09685.
"""

import dataclasses
import functools
import math
from typing import Literal

import jax
from flax import nnx

from elenchus.model import layers, weights
from elenchus.model.config import ModelConfig
from elenchus.model.transformer import Transformer
from elenchus.model.weights import CONTRACT, LowRank

Target = Literal['query', 'key', 'value', 'out', 'gate', 'up', 'down']


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """W + alpha / rank * a @ b at each target; rank 0 trains all weights and has no adapters."""

    rank: int
    alpha: float
    targets: tuple[Target, ...]

    def __post_init__(self):
        if self.rank < 0:
            raise ValueError(f'lora.rank={self.rank} must be at least 0, which is full fine-tuning')
        if self.rank and self.alpha <= 0:
            raise ValueError(f'lora.alpha={self.alpha} must be positive; nearest: {self.rank}')
        if self.rank and (not self.targets or len(set(self.targets)) < len(self.targets)):
            raise ValueError(
                f'lora.targets={self.targets} must be different names, at least one of '
                f'{tuple(CONTRACT)}'
            )


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """How a base is adapted, and which saved model that base is."""

    settings: LoraSettings
    folder: str  # absolute
    fingerprint: int  # of its parameters
    quantize: weights.Quantize  # how it is held


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapters:
    """The two factors by target, float32 whatever the base's dtype: steps are small beside them."""

    a: dict[str, nnx.Param]  # [L, *in, r]
    b: dict[str, nnx.Param]  # [L, r, *out]
    adaptation: Adaptation = dataclasses.field(metadata={'static': True})


@functools.partial(jax.jit, static_argnames=('config', 'adaptation'))
def init_adapters(config: ModelConfig, adaptation: Adaptation, key: jax.Array) -> Adapters:
    """Fresh adapters: a is random and b zero, so that they change nothing yet.

    A target's noise does not depend on which others there are.
    """
    settings, a, b = adaptation.settings, {}, {}
    model = jax.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0)))
    for i, (target, contract) in enumerate(CONTRACT.items()):
        if target not in settings.targets:
            continue
        param = getattr(weights.block_part(model, target), target)
        axes, (depth, *shape) = param.get_metadata()['axes'], param.shape
        init = functools.partial(
            layers.init_weight,
            shape=(*shape[:contract], settings.rank),
            axes=(*axes[:contract], 'rank'),
            fan_in=math.prod(shape[:contract]),
            dtype='float32',
        )
        a[target] = jax.vmap(init)(jax.random.split(jax.random.fold_in(key, i), depth))
        b[target] = layers.zeros(
            (depth, settings.rank, *shape[contract:]), ('rank', *axes[contract:]), 'float32'
        )
    return Adapters(a, b, adaptation)


def attach(base: Transformer, adapters: Adapters) -> Transformer:
    """The base with the adapters' effect; every array is the base's or the adapters' own."""
    settings = adapters.adaptation.settings

    def low_rank(target: str, param: nnx.Param) -> LowRank:
        a, b = adapters.a[target][...], adapters.b[target][...]
        return LowRank(param[...], a, b, settings.alpha / settings.rank)

    model = weights.replace_weights(base, low_rank, targets=settings.targets)
    model.adaptation = adapters.adaptation
    return model


def adaptation(model: Transformer) -> Adaptation | None:
    """How a model is adapted; None where no adapters are attached."""
    return getattr(model, 'adaptation', None)


def split(model: Transformer) -> tuple[Transformer | Adapters, Transformer | None]:
    """(what is trained, what is frozen) of a model: its adapters and its base, or all and None."""
    how = adaptation(model)
    if how is None:
        return model, None
    a, b = {}, {}
    base = weights.replace_weights(model, lambda _, p: p[...].base, targets=how.settings.targets)
    del base.adaptation
    for target in how.settings.targets:
        param = getattr(weights.block_part(model, target), target)
        axes, contract = param.get_metadata()['axes'], CONTRACT[target]
        a[target] = nnx.Param(param[...].a, axes=(*axes[:contract], 'rank'))
        b[target] = nnx.Param(param[...].b, axes=('rank', *axes[contract:]))
    return Adapters(a, b, how), base


def join(trained: Transformer | Adapters, frozen: Transformer | None) -> Transformer:
    """The model of which `split` gave these two parts."""
    return trained if frozen is None else attach(frozen, trained)


@jax.jit
def merge(model: Transformer) -> Transformer:
    """A model of full arrays: adapters summed into their base, in float32, nothing quantized."""
    dtype = model.config.param_dtype

    def summed(target: str, param: nnx.Param) -> jax.Array:
        weight = param[...]
        if not isinstance(weight, LowRank):
            return weights.dense(weight, dtype)
        change = jax.vmap(lambda a, b: jax.numpy.tensordot(a, b, 1))(weight.a, weight.b)
        return (weights.dense(weight.base, 'float32') + weight.scale * change).astype(dtype)

    merged = weights.replace_weights(model, summed)
    if adaptation(merged) is not None:
        del merged.adaptation
    return merged
