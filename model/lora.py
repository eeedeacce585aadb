"""Low-rank adapters (LoRA): small trained weights on top of a frozen, shared base model.

Adapters are a separate pytree. `attach` adds them to a base without copying any array, so the actor
and the critic can be two adapters on one base. `split` separates them again: only the adapters are
differentiated, have optimizer state and are saved. Source: arXiv 2106.09685.

Example, with `config` as in the example of `model.transformer.Transformer`:

    >>> import jax
    >>> from elenchus.model import lora, transformer
    >>> base = transformer.init_model(config, jax.random.key(0))
    >>> settings = lora.LoraSettings(rank=4, alpha=8.0, targets=('query', 'value'))
    >>> adaptation = lora.Adaptation(settings, '/models/base', fingerprint=0, quantize='none')
    >>> adapters = lora.init_adapters(config, adaptation, jax.random.key(1))
    >>> adapters.a['query'].shape, adapters.b['query'].shape
    ((2, 16, 4), (2, 4, 4, 4))
    >>> model = lora.attach(base, adapters)  # a Transformer: `model(tokens, positions)` works
    >>> trainable, frozen = lora.split(model)
    >>> merged = lora.merge(model)  # plain arrays again: base + alpha / rank * a @ b
    >>> jax.tree.structure(merged) == jax.tree.structure(base)
    True
"""

import dataclasses
import functools
import math
from typing import Annotated, Literal

import jax
from flax import nnx

from elenchus.model import block_weights, layers
from elenchus.model.config import ModelConfig
from elenchus.model.placement import pinned_jit
from elenchus.model.projection import NUM_INPUT_DIMS, LowRank, dense
from elenchus.model.quantization import Quantization
from elenchus.model.ranges import Range, checked
from elenchus.model.transformer import Transformer

Target = Literal['query', 'key', 'value', 'out', 'gate', 'up', 'down']


@dataclasses.dataclass(frozen=True)
@checked('lora')
class LoraSettings:
    """Settings of the adapters: each target computes W + alpha / rank * a @ b."""

    rank: Annotated[int, Range(1, 65_536, off=0)]  # columns of a; 0 = all weights are trained
    alpha: Annotated[float, Range(1e-3, 1e6)]  # scale of the update
    targets: tuple[Target, ...]  # matrices of a block that get adapters

    def __post_init__(self):
        nearest = tuple(dict.fromkeys(self.targets)) or ('query', 'value')
        if self.rank and nearest != tuple(self.targets):
            raise ValueError(
                f'lora.targets={self.targets} must be at least one name, without duplicates, of '
                f'{tuple(NUM_INPUT_DIMS)}; nearest: {nearest}'
            )


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """Adapter settings together with the identity of the saved base model."""

    settings: LoraSettings
    folder: str  # absolute path of the base model
    fingerprint: int  # hash of the base's parameters
    quantize: Quantization  # storage of the base in memory


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapters:
    """The two factors of every target.

    They are float32 whatever the dtype of the base, because updates are small next to the weights.
    """

    a: dict[str, nnx.Param]  # target -> [L, *in, r]
    b: dict[str, nnx.Param]  # target -> [L, r, *out]
    adaptation: Adaptation = dataclasses.field(metadata={'static': True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HeadedAdapters(Adapters):
    """Adapters and an output head, which are trained together."""

    head: nnx.Param  # [D, outputs]


def check_targets(settings: LoraSettings, config: ModelConfig, *, name: str) -> None:
    """Raises ValueError, naming the settings, if a target is a matrix of experts."""
    refused = [t for t in settings.targets if t in ('gate', 'up', 'down')]
    if settings.rank and refused and config.num_experts:
        nearest = tuple(t for t in settings.targets if t not in refused) or ('query', 'value')
        raise ValueError(
            f'{name}.targets={settings.targets!r}: {refused[0]!r} is a matrix of '
            f'model.num_experts={config.num_experts} experts, which have no adapters; '
            f'nearest: {nearest!r}'
        )


@pinned_jit(static_argnames=('config', 'adaptation'))
def init_adapters(config: ModelConfig, adaptation: Adaptation, key: jax.Array) -> Adapters:
    """Returns fresh adapters: a is random and b is zero, so the model equals its base.

    The random numbers of a target do not depend on the other targets.
    """
    settings, a, b = adaptation.settings, {}, {}
    check_targets(settings, config, name='lora')
    model = jax.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0)))
    for i, (target, contract) in enumerate(NUM_INPUT_DIMS.items()):
        if target not in settings.targets:
            continue
        param = getattr(block_weights.find_module(model, target), target)
        axes, (depth, *shape) = param.get_metadata()['axes'], param.shape
        init = functools.partial(
            layers.init_weight,
            shape=(*shape[:contract], settings.rank),
            axes=(*axes[:contract], 'rank'),
            fan_in=math.prod(shape[:contract]),
            dtype='float32',
        )
        a[target] = jax.vmap(init)(jax.random.split(jax.random.fold_in(key, i), depth))
        b[target] = layers.init_zeros(
            (depth, settings.rank, *shape[contract:]),
            axes=('rank', *axes[contract:]),
            dtype='float32',
        )
    return Adapters(a, b, adaptation)


def attach(base: Transformer, adapters: Adapters) -> Transformer:
    """Returns the base with adapters; it shares all arrays with the arguments."""
    settings = adapters.adaptation.settings

    def low_rank(target: str, param: nnx.Param) -> LowRank:
        a, b = adapters.a[target][...], adapters.b[target][...]
        return LowRank(param[...], a, b, settings.alpha / settings.rank)

    model = block_weights.replace_weights(base, low_rank, targets=settings.targets)
    model.adaptation = adapters.adaptation
    if isinstance(adapters, HeadedAdapters):
        model.head = adapters.head
    return model


def adaptation_of(model: Transformer) -> Adaptation | None:
    """Returns the adaptation of a model, or None if it has no adapters."""
    return getattr(model, 'adaptation', None)


def split(model: Transformer) -> tuple[Transformer | Adapters, Transformer | None]:
    """Returns the (trainable, frozen) parts of a model.

    These are its adapters and its base or, for a model without adapters, (model, None).
    """
    adaptation = adaptation_of(model)
    if adaptation is None:
        return model, None
    a, b = {}, {}
    base = block_weights.replace_weights(
        model, lambda _, p: p[...].base, targets=adaptation.settings.targets
    )
    del base.adaptation
    for target in adaptation.settings.targets:
        param = getattr(block_weights.find_module(model, target), target)
        axes, contract = param.get_metadata()['axes'], NUM_INPUT_DIMS[target]
        a[target] = nnx.Param(param[...].a, axes=(*axes[:contract], 'rank'))
        b[target] = nnx.Param(param[...].b, axes=('rank', *axes[contract:]))
    return Adapters(a, b, adaptation), base


def join(trained: Transformer | Adapters, frozen: Transformer | None) -> Transformer:
    """Inverse of `split`."""
    return trained if frozen is None else attach(frozen, trained)


@pinned_jit
def merge(model: Transformer) -> Transformer:
    """Returns a model of plain arrays: adapters added to their base in float32, dequantized."""
    dtype = model.config.param_dtype

    def merge_weight(_, param: nnx.Param) -> jax.Array:
        weight = param[...]
        if not isinstance(weight, LowRank):
            return dense(weight, dtype)
        # vmap over the layers: a [*in, r] times b [r, *out].
        change = jax.vmap(lambda a, b: jax.numpy.tensordot(a, b, 1))(weight.a, weight.b)
        return (dense(weight.base, 'float32') + weight.scale * change).astype(dtype)

    merged = block_weights.replace_weights(model, merge_weight)
    if adaptation_of(merged) is not None:
        del merged.adaptation
    return merged
