"""Optimizers, from optax, chosen and scheduled by configuration."""

import dataclasses
from typing import Literal

import jax
import optax
from flax import nnx
from optax import contrib


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """learning_rate is the peak; Muon's applies to matrices, adam_learning_rate to the rest."""

    name: Literal['adamw', 'muon']
    learning_rate: float
    adam_learning_rate: float
    schedule: Literal['constant', 'cosine', 'linear']
    warmup_fraction: float  # of all steps
    weight_decay: float
    beta1: float
    beta2: float
    clip_norm: float

    def __post_init__(self):
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f'optimizer.warmup_fraction={self.warmup_fraction} is not in [0, 1)')
        if self.learning_rate <= 0 or self.clip_norm <= 0:
            raise ValueError('optimizer.learning_rate and optimizer.clip_norm must be positive')


def make_schedule(settings: OptimizerSettings, peak: float, *, num_steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant, or a decay to 0 at num_steps."""
    warmup = int(settings.warmup_fraction * num_steps)
    rest = max(num_steps - warmup, 1)
    decay = {
        'constant': optax.constant_schedule(peak),
        'cosine': optax.cosine_decay_schedule(peak, rest),
        'linear': optax.linear_schedule(peak, 0.0, rest),
    }[settings.schedule]
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup, 1)), decay], [warmup])


def make_optimizer(settings: OptimizerSettings, *, num_steps: int) -> optax.GradientTransformation:
    """Gradient clipping, then AdamW or Muon. Source of Muon: Jordan et al. 2024."""
    schedule = make_schedule(settings, settings.learning_rate, num_steps=num_steps)
    if settings.name == 'adamw':
        inner = optax.adamw(
            schedule,
            b1=settings.beta1,
            b2=settings.beta2,
            weight_decay=settings.weight_decay,
            mask=_is_matrix,
        )
    else:
        adam = make_schedule(settings, settings.adam_learning_rate, num_steps=num_steps)
        inner = contrib.muon(
            schedule,
            adam_learning_rate=adam,
            adam_b1=settings.beta1,
            adam_b2=settings.beta2,
            weight_decay=settings.weight_decay,
            muon_weight_dimension_numbers=_muon_dimensions,
        )
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), inner)


INNER = {'embed', 'rank'}
"""Dimensions that the matrices of a block, and those of an adapter, lead from or to."""


def _is_variable(leaf) -> bool:
    return isinstance(leaf, nnx.Variable)


def _axes(leaf) -> tuple[str | None, ...]:
    return leaf.get_metadata().get('axes', ()) if _is_variable(leaf) else ()


def _is_matrix(params):
    """True on weights, which alone are decayed; not on norms and the [heads, H] biases."""

    def of_leaf(leaf):
        axes = _axes(leaf)
        return jax.tree.map(lambda _: len(axes) > 1 and bool(INNER & set(axes)), leaf)

    return jax.tree.map(of_leaf, params, is_leaf=_is_variable)


def _muon_dimensions(params):
    """Which axes of a block's weight are its matrix's input and output; None means Adam."""

    def of_leaf(leaf):
        axes = _axes(leaf)
        if not jax.tree.leaves(leaf):  # masked away by optax: Adam's share
            return leaf
        stacked = len(leaf.shape) - len(axes)
        if not stacked or len(axes) < 2 or not INNER & set(axes):
            return jax.tree.map(lambda _: None, leaf)
        split = 1 if axes[0] in INNER else len(axes) - 1
        dims = range(stacked, len(leaf.shape))
        numbers = contrib.MuonDimensionNumbers(
            reduction_axis=tuple(dims[:split]), output_axis=tuple(dims[split:])
        )
        return jax.tree.map(lambda _: numbers, leaf)

    return jax.tree.map(of_leaf, params, is_leaf=_is_variable)
