"""TrainState: what a step changes and a checkpoint keeps."""

import dataclasses

import jax
import optax

from elenchus.model.lora import Adapters
from elenchus.model.transformer import Transformer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """What is trained, its optimizer state and the number of steps taken.

    Randomness is fold_in(key(seed), step), so it is not state; reference and sampling copies of
    the weights are arguments of whoever uses them.
    """

    step: jax.Array  # int32 scalar
    model: Transformer | Adapters  # the latter where the base under them is frozen
    opt_state: optax.OptState


def init_state(
    model: Transformer | Adapters, optimizer: optax.GradientTransformation
) -> TrainState:
    """The state before the first step."""
    return TrainState(jax.numpy.zeros((), 'int32'), model, optimizer.init(model))
