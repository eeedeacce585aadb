"""Optimizers and learning-rate schedules from optax, selected by the config."""

import dataclasses
from typing import Literal

import jax
import optax
from flax import nnx
from optax import contrib

from elenchus.train import muon
from elenchus.train.master_weights import with_float32_masters


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Optimizer, schedule, weight decay and gradient clipping of one training stage."""

    name: Literal['adamw', 'muon']
    learning_rate: float  # peak of the schedule; with Muon, of the blocks' matrices only
    adam_learning_rate: float  # with Muon: peak for all other parameters, which Adam updates
    schedule: Literal['constant', 'cosine', 'linear']  # after warm-up; the last two decay to 0
    warmup_fraction: float  # share of all steps, in [0, 1); linear from 0
    weight_decay: float  # of matrices only
    beta1: float  # Adam's first moment; also with Muon for the parameters that Adam updates
    beta2: float  # Adam's second moment
    clip_norm: float  # largest global norm of the gradient

    def __post_init__(self):
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f'optimizer.warmup_fraction={self.warmup_fraction} must be in [0, 1)')
        if self.learning_rate <= 0 or self.clip_norm <= 0:
            raise ValueError(
                f'optimizer.learning_rate={self.learning_rate} and '
                f'optimizer.clip_norm={self.clip_norm} must be above 0'
            )


def make_schedule(settings: OptimizerSettings, peak: float, *, num_steps: int) -> optax.Schedule:
    """Returns the learning rate by step: linear warm-up, then constant or decay to 0."""
    warmup = int(settings.warmup_fraction * num_steps)
    rest = max(num_steps - warmup, 1)
    decay = {
        'constant': optax.constant_schedule(peak),
        'cosine': optax.cosine_decay_schedule(peak, rest),
        'linear': optax.linear_schedule(peak, 0.0, rest),
    }[settings.schedule]
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup, 1)), decay], [warmup])


def make_optimizer(settings: OptimizerSettings, *, num_steps: int) -> optax.GradientTransformation:
    """Returns gradient clipping followed by AdamW or Muon.

    Weights stored in bfloat16 have float32 masters in its state (master_weights.py).
    Sources: AdamW, arXiv 1711.05101; Muon, Jordan et al. 2024.
    """
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
        inner = muon.muon(
            schedule,
            weight_decay=settings.weight_decay,
            dimensions=_muon_dimensions,
            adam=optax.adamw(
                adam, b1=settings.beta1, b2=settings.beta2, weight_decay=0.0, nesterov=True
            ),
        )
    return with_float32_masters(optax.chain(optax.clip_by_global_norm(settings.clip_norm), inner))


MATRIX_AXES = {'embed', 'rank'}
"""Logical axes that every matrix has on one side: 'embed' in blocks, 'rank' in adapters."""


def _is_variable(leaf) -> bool:
    return isinstance(leaf, nnx.Variable)


def _axes(leaf) -> tuple[str | None, ...]:
    return leaf.get_metadata().get('axes', ()) if _is_variable(leaf) else ()


def _is_matrix(params):
    """Mask of weight decay: True on matrices, False on norms and biases.

    A [heads, H] bias has two axes as well, so the number of axes alone would not do.
    """

    def of_leaf(leaf):
        axes = _axes(leaf)
        return jax.tree.map(lambda _: len(axes) > 1 and bool(MATRIX_AXES & set(axes)), leaf)

    return jax.tree.map(of_leaf, params, is_leaf=_is_variable)


def _muon_dimensions(params):
    """Input and output axes of every block matrix, as Muon flattens it; None means Adam.

    A block's weight has a leading layer axis (scanned layers), which Muon must treat as a batch.
    """

    def of_leaf(leaf):
        axes = _axes(leaf)
        if not jax.tree.leaves(leaf):  # optax masked this parameter: Adam updates it
            return leaf
        stacked = len(leaf.shape) - len(axes)
        if not stacked or len(axes) < 2 or not MATRIX_AXES & set(axes):
            return jax.tree.map(lambda _: None, leaf)
        split = 1 if axes[0] in MATRIX_AXES else len(axes) - 1
        dims = range(stacked, len(leaf.shape))
        numbers = contrib.MuonDimensionNumbers(
            reduction_axis=tuple(dims[:split]), output_axis=tuple(dims[split:])
        )
        return jax.tree.map(lambda _: numbers, leaf)

    return jax.tree.map(of_leaf, params, is_leaf=_is_variable)
