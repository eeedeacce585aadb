"""TrainState: the values that a train step updates and a checkpoint stores."""

import dataclasses

import jax
import optax

from elenchus.model.lora import Adapters
from elenchus.model.transformer import Transformer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Trained weights, their optimizer state and the number of steps taken.

    Random keys are fold_in(key(seed), step), so they are not part of the state. Reference and
    sampling copies of the weights are arguments of the functions that need them.
    """

    step: jax.Array  # int32 scalar
    model: Transformer | Adapters  # adapters if their base model is frozen
    opt_state: optax.OptState


def init_state(
    model: Transformer | Adapters, optimizer: optax.GradientTransformation
) -> TrainState:
    """Builds the state before the first step."""
    return TrainState(jax.numpy.zeros((), 'int32'), model, optimizer.init(model))
