"""A value model of a player: what it gives to advantages, and its updates.

It is a model of its own that begins as the player (`model/value_head.py`). A head on the player's
own Transformer would save its memory and its pass, but the sampler, saved models, adapters and the
player's loss would have to know of it, and the two losses would move the same weights, with a
coefficient to tune. So it is one more state beside the player's, in the same checkpoints, updated
by the same train step on the same rows; what is saved of the player has no trace of it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax

from elenchus.data.records import Batch
from elenchus.model import lora, placement, value_head
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.config import ModelConfig
from elenchus.model.transformer import Transformer
from elenchus.train import loop, objective
from elenchus.train.loop import LoopSettings, Updates, to_device
from elenchus.train.nonfinite import Update
from elenchus.train.optimizer import make_optimizer
from elenchus.train.rl import gae, update_batch
from elenchus.train.rl.logprobs import change_layout, make_logprobs
from elenchus.train.rl.settings import ReinforceSettings
from elenchus.train.state import TrainState
from elenchus.train.step import IDENTITY, make_train_step


class ValueTraining(NamedTuple):
    """What values and updates need of a value model, except its weights, which change."""

    settings: gae.ValueSettings
    key: str  # of its state
    player: Transformer  # that it begins as
    frozen: Transformer | None  # base under adapters; None if all weights are trained
    shared: SharedPrompt | None  # layout of rows whose samples share a prompt
    values: Callable[[Transformer, Batch], np.ndarray]
    optimizer: optax.GradientTransformation
    train_step: Callable


def make_training(
    settings: ReinforceSettings,
    name: str,
    player: Transformer,
    *,
    shared: SharedPrompt | None,
    loop_settings: LoopSettings,
) -> ValueTraining:
    """Builds the training of a value model of the player `name`, and its compiled functions."""
    s = settings
    optimizer = make_optimizer(s.value_optimizer, num_steps=s.num_steps * s.num_updates)
    rows = s.rows // s.num_minibatches // loop_settings.num_microbatches
    numbers = {'numbers': value_head.token_values, 'shared': shared, 'transform': IDENTITY}
    return ValueTraining(
        settings=s.value,
        key=f'{name}_value',
        player=player,
        frozen=lora.split(player)[1],
        shared=shared,
        values=make_logprobs(**numbers, rows=rows),
        optimizer=optimizer,
        train_step=make_train_step(
            **numbers,
            objective=objective.value(s.value.clip),
            optimizer=optimizer,
            num_microbatches=loop_settings.num_microbatches,
            skip_nonfinite=loop_settings.nonfinite == 'skip',
        ),
    )


def initial_state(training: ValueTraining) -> TrainState:
    """Returns the state before the first update."""
    trained, config = lora.split(training.player)[0], training.player.config
    return placement.current().init(state_initializer(training.optimizer, config), trained)


def state_initializer(
    optimizer: optax.GradientTransformation, config: ModelConfig
) -> Callable[[Transformer | lora.Adapters], TrainState]:
    """Returns the function of `initial_state`: trained part of a player -> state."""
    init = loop.state_initializer(optimizer)
    return lambda trained: init(value_head.with_value_head(trained, config))


def values_of(training: ValueTraining, state: TrainState, batch: Batch) -> np.ndarray:
    """Returns the value before each token of a batch of host arrays, [B, T]."""
    return training.values(lora.join(state.model, training.frozen), batch)


def update(
    training: ValueTraining, state: TrainState, minibatches: Sequence[Batch]
) -> tuple[TrainState, dict[str, jax.Array], Updates]:
    """Takes an update for each minibatch; returns (state, metrics, updates).

    Their weights are returns, their old log-probabilities the old values.
    """
    updates = []
    for minibatch in minibatches:
        merged, _ = change_layout(minibatch, training.shared)
        state, numbers = training.train_step(state, to_device(merged), training.frozen)
        updates.append(Update(numbers, minibatch, training.key))
    means = update_batch.mean_of_updates([update.metrics for update in updates])
    metrics = {
        'value/loss': means['loss/total'],
        'value/clipped': means['value/clipped'],
        'value/gradient': means['grads/norm'],
    }
    return state, metrics, updates
