"""Updates of a player, and of its value model, on the rollouts of an iteration."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from elenchus.model import lora
from elenchus.train.loop import Updates, to_device
from elenchus.train.nonfinite import Update
from elenchus.train.rl import update_batch, value_model
from elenchus.train.rl.iterations import PlayerTraining
from elenchus.train.rl.logprobs import change_layout
from elenchus.train.rl.overlap import Rollouts


def update_player(
    training: PlayerTraining, states: dict[str, Any], rollouts: Rollouts
) -> tuple[dict[str, Any], dict, Updates]:
    """Takes the updates of one iteration on its rollouts; returns (states, metrics, updates).

    A value model takes as many, on the same rows.
    """
    s, iteration, value = training.settings, rollouts.iteration, training.value
    objective, state = iteration.objective, states[training.key]
    batch = make_player_batch(training, states, rollouts)
    metrics = batch.metrics
    if s.staleness:
        metrics['sampler/staleness'] = state.step - rollouts.weights[training.key].step
    if s.reuses_update_logprobs:
        objective = dataclasses.replace(objective, on_policy=True)
    chosen = [
        update_batch.expand_groups(np.sort(part), s.samples_per_row)
        for _ in range(s.num_epochs)
        for part in np.split(iteration.rng.permutation(s.rows), s.num_minibatches)
    ]
    train_step, updates = training.make_step(objective), []
    for rows in chosen:
        minibatch = update_batch.select_rows(batch.policy, rows)
        if s.drop_zero_advantage_rows:
            minibatch = update_batch.drop_zero_advantage_rows(
                minibatch, objective, parts=training.parts, samples_per_row=s.samples_per_row
            )
        merged, _ = change_layout(minibatch, training.shared)
        state, values = train_step(state, to_device(merged), training.frozen)
        updates.append(Update(values, minibatch, training.key))
    states = states | {training.key: state}
    metrics = metrics | update_batch.mean_of_updates([update.metrics for update in updates])
    if value is None:
        return states, metrics, updates
    minibatches = [update_batch.select_rows(batch.values, rows) for rows in chosen]
    state, more, more_updates = value_model.update(value, states[value.key], minibatches)
    return states | {value.key: state}, metrics | more, [*updates, *more_updates]


def make_player_batch(
    training: PlayerTraining, states: Mapping[str, Any], rollouts: Rollouts
) -> update_batch.PlayerBatch:
    """Returns the rows of rollouts, with old log-probabilities, advantages and values.

    Log-probabilities are of the weights that sampled, values of the current value model.
    """
    s, player, value = training.settings, training.player, training.value
    iteration, sampled_by = rollouts.iteration, rollouts.weights[training.key]
    policy = functools.partial(training.logprobs, lora.join(sampled_by.model, training.frozen))
    values = None
    if value is not None:
        of = functools.partial(value_model.values_of, value, states[value.key])
        values = update_batch.Values(value.settings, of, iteration.turn_discount)
    return update_batch.make_batch(
        rollouts.sampled,
        update_batch.RowLayout(
            player, s.row_length(player), s.num_samples, s.importance_cap, s.mask_truncated
        ),
        training.setup.models.sampler.chat,
        assign_credit=iteration.assign_credit,
        objective=iteration.objective,
        logprobs=update_batch.LogprobFunctions(
            None if s.reuses_update_logprobs else policy,
            functools.partial(training.logprobs, training.teacher),
        ),
        values=values,
        keep=iteration.keep,
    )
