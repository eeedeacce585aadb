"""The updates of one iteration of a player, on what was sampled for it."""

import dataclasses
import functools

import numpy as np

from elenchus.data.records import Batch
from elenchus.model import lora
from elenchus.train.loop import Updates, to_device
from elenchus.train.rl import update_batch
from elenchus.train.rl.iterations import PlayerTraining
from elenchus.train.rl.logprobs import change_layout
from elenchus.train.rl.overlap import Rollouts
from elenchus.train.state import TrainState


def update_player(
    training: PlayerTraining, state: TrainState, rollouts: Rollouts
) -> tuple[TrainState, dict, Updates]:
    """Takes the updates of one iteration on its rollouts; returns (state, metrics, updates)."""
    s, player, iteration = training.settings, training.player, rollouts.iteration
    objective, sampled_by = iteration.objective, rollouts.weights[training.key]
    policy = functools.partial(training.logprobs, lora.join(sampled_by.model, training.frozen))
    if s.reuses_update_logprobs:
        objective, policy = dataclasses.replace(objective, on_policy=True), None
    batch, metrics = update_batch.make_batch(
        rollouts.sampled,
        update_batch.RowLayout(
            player, s.row_length(player), s.num_samples, s.importance_cap, s.mask_truncated
        ),
        training.setup.models.sampler.chat,
        assign_credit=iteration.assign_credit,
        objective=objective,
        logprobs=update_batch.LogprobFunctions(
            policy, functools.partial(training.logprobs, training.teacher)
        ),
        keep=iteration.keep,
    )
    if s.staleness:
        metrics['sampler/staleness'] = state.step - sampled_by.step
    train_step, updates = training.make_step(objective), []
    for _ in range(s.num_epochs):
        for part in np.split(iteration.rng.permutation(s.rows), s.num_minibatches):
            rows = update_batch.expand_groups(np.sort(part), s.samples_per_row)
            minibatch = Batch(*(values[rows] for values in batch))
            if s.drop_zero_advantage_rows:
                minibatch = update_batch.drop_zero_advantage_rows(
                    minibatch, objective, parts=training.parts, samples_per_row=s.samples_per_row
                )
            merged, _ = change_layout(minibatch, training.shared)
            state, values = train_step(state, to_device(merged), training.frozen)
            updates.append((values, minibatch))
    return state, metrics | update_batch.mean_of_updates([v for v, _ in updates]), updates
