"""Optimizers and learning-rate schedules from optax, selected by the config."""

import dataclasses
from typing import Annotated, Literal

import jax
import optax
from flax import nnx
from optax import contrib

from elenchus.model import experts
from elenchus.model.ranges import Range, checked
from elenchus.train import muon
from elenchus.train.master_weights import with_float32_masters

Rate = Annotated[float, Range(1e-12, 1e3)]
Decay = Annotated[float, Range(0.0, 0.99999)]  # at 1 the bias correction divides by 0


@dataclasses.dataclass(frozen=True)
@checked('optimizer')
class OptimizerSettings:
    """Optimizer, schedule, weight decay and gradient clipping of one training stage."""

    name: Literal['adamw', 'muon']
    learning_rate: Rate  # peak of the schedule; with Muon, of the blocks' matrices only
    # With Muon: peak for all other parameters, which Adam updates; at 0 they stay as they are.
    adam_learning_rate: Annotated[float, Range(1e-12, 1e3, off=0.0)]
    schedule: Literal['constant', 'cosine', 'linear']  # after warm-up; the last two decay to 0
    warmup_fraction: Annotated[float, Range(0.0, 0.99)]  # share of all steps; linear, above 0
    weight_decay: Annotated[float, Range(0.0, 1e3)]  # of matrices only
    beta1: Decay  # Adam's first moment; also with Muon for the parameters that Adam updates
    beta2: Decay  # Adam's second moment
    clip_norm: Annotated[float, Range(1e-9, 1e12)]  # largest global norm of the gradient


def make_schedule(settings: OptimizerSettings, peak: float, *, num_steps: int) -> optax.Schedule:
    """Returns the learning rate by step: linear warm-up, then constant or decay to 0.

    With w steps of warm-up, step i < w has the rate peak * (i + 1) / (w + 1), so that the first
    update already moves the weights, and step w has the peak. A decay would reach 0 at step
    `num_steps`, after the last update; a run of one step has the peak.
    """
    warmup = int(settings.warmup_fraction * num_steps)
    rest = max(num_steps - warmup, 1)
    decay = {
        'constant': optax.constant_schedule(peak),
        'cosine': optax.cosine_decay_schedule(peak, rest),
        'linear': optax.linear_schedule(peak, 0.0, rest),
    }[settings.schedule]
    if not warmup:
        return decay
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optax.join_schedules([rise, decay], [warmup])


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

    A block's weight has a leading layer axis (scanned layers), which Muon must treat as a batch; so
    has a weight of experts, each of which is a matrix of its own.
    """

    def of_leaf(leaf):
        axes = _axes(leaf)
        if not jax.tree.leaves(leaf):  # optax masked this parameter: Adam updates it
            return leaf
        stacked = len(leaf.shape) - len(axes)
        if not stacked or len(axes) < 2 or not MATRIX_AXES & set(axes):
            return jax.tree.map(lambda _: None, leaf)
        first = 1 if axes[0] in experts.AXES else 0
        dims, axes = range(stacked + first, len(leaf.shape)), axes[first:]
        split = 1 if axes[0] in MATRIX_AXES else len(axes) - 1
        numbers = contrib.MuonDimensionNumbers(
            reduction_axis=tuple(dims[:split]), output_axis=tuple(dims[split:])
        )
        return jax.tree.map(lambda _: numbers, leaf)

    return jax.tree.map(of_leaf, params, is_leaf=_is_variable)
