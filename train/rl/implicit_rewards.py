"""Step scores of a model that learns from outcomes alone: its log-ratio to the reference.

    score of a step = beta * sum over its tokens of (log pi_phi - log pi_ref)

pi_phi starts as the reference. It is trained on the attempts of every iteration, so that sigmoid of
the sum of an attempt's scores is the probability that its answer is right. This gives a process
reward without labels of steps. arXiv 2412.01981; online: 2502.01456.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import optax

from elenchus.data.records import Batch, Problem, RolloutGroup, Step
from elenchus.data.text.chat import Chat
from elenchus.model import lora
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.transformer import Transformer
from elenchus.train import objective
from elenchus.train.loop import LoopSettings, Updates, to_device
from elenchus.train.nonfinite import Update
from elenchus.train.rl import update_batch
from elenchus.train.rl.logprobs import change_layout, make_logprobs
from elenchus.train.rl.rollouts import Groups, SampledGroups
from elenchus.train.rl.settings import ReinforceSettings
from elenchus.train.state import TrainState
from elenchus.train.step import IDENTITY, make_train_step

KEY = 'implicit'
"""Its state's name among those of the players, in checkpoints and totals."""


class ImplicitTraining(NamedTuple):
    """What scores and updates need of pi_phi, except its weights, which change."""

    settings: ReinforceSettings
    layout: update_batch.RowLayout
    chat: Chat
    reference: Transformer
    frozen: Transformer | None  # base under adapters; None if all weights are trained
    shared: SharedPrompt | None  # layout of rows whose samples share a prompt
    logprobs: Callable[[Transformer, Batch], np.ndarray]
    optimizer: optax.GradientTransformation
    train_step: Callable


def make_training(
    settings: ReinforceSettings,
    chat: Chat,
    reference: Transformer,
    *,
    shared: SharedPrompt | None,
    loop: LoopSettings,
    optimizer: optax.GradientTransformation,
) -> ImplicitTraining:
    """Builds the training of a copy of `reference`, and its compiled functions."""
    s = settings
    rows = s.rows // s.num_minibatches // loop.num_microbatches
    step = make_train_step(
        objective=objective.outcome(s.implicit.beta),
        optimizer=optimizer,
        transform=IDENTITY,
        num_microbatches=loop.num_microbatches,
        skip_nonfinite=loop.nonfinite == 'skip',
        shared=shared,
    )
    return ImplicitTraining(
        settings=s,
        layout=update_batch.RowLayout('actor', s.length, s.num_samples, 0.0, False),
        chat=chat,
        reference=reference,
        frozen=lora.split(reference)[1],
        shared=shared,
        # The plain likelihood: under a truncated distribution a ratio may be infinite.
        logprobs=make_logprobs(transform=IDENTITY, shared=shared, rows=rows),
        optimizer=optimizer,
        train_step=step,
    )


def scoring(
    training: ImplicitTraining | None,
    states: Mapping[str, TrainState],
    sample: Callable[..., tuple[Groups, int]],
) -> Callable[..., tuple[Groups, int]]:
    """Returns `sample`, or with a training the function that also scores the attempts."""
    if training is None:
        return sample
    model = lora.join(states[KEY].model, training.frozen)

    def sample_and_score(problems: Sequence[Problem], *, seed: int) -> tuple[Groups, int]:
        groups, num_tokens = sample(problems, seed=seed)
        return score_groups(training, model, groups), num_tokens

    return sample_and_score


def score_groups(
    training: ImplicitTraining, model: Transformer, groups: Sequence[RolloutGroup]
) -> Groups:
    """Returns the groups with the implicit score of every step of their attempts."""
    episodes = [episode for group in groups for episode in group]
    batch = _attempts(training, episodes)
    ratio = training.logprobs(model, batch) - training.logprobs(training.reference, batch)
    scored = []
    for row, episode in enumerate(episodes):
        steps = batch.steps[row] * (batch.loss_mask[row] > 0)
        size = len(episode.attempt.steps) + 1
        sums = np.bincount(steps, training.settings.implicit.beta * ratio[row], size)[1:]
        ends = zip(episode.attempt.step_ends, sums.tolist(), strict=True)
        attempt = dataclasses.replace(episode.attempt, steps=tuple(Step(*pair) for pair in ends))
        turns = tuple(attempt if turn is episode.attempt else turn for turn in episode.turns)
        scored.append(dataclasses.replace(episode, turns=turns))
    size = training.settings.num_samples
    return [
        RolloutGroup(group.problem, tuple(scored[i * size : (i + 1) * size]))
        for i, group in enumerate(groups)
    ]


def update(
    training: ImplicitTraining, state: TrainState, sampled: SampledGroups
) -> tuple[TrainState, dict, Updates]:
    """Trains pi_phi on the outcomes of sampled groups; returns (state, metrics, updates).

    Groups that only fill the batch are not trained on, as in the update of the actor.
    """
    s, episodes = training.settings, [e for group in sampled.groups for e in group]
    batch = _attempts(training, episodes)
    reference = training.logprobs(training.reference, batch)
    right = np.array([[bool(e.attempt.facts.correct)] for e in episodes])
    informative = np.arange(len(episodes)) < sampled.num_informative * s.num_samples
    loss_mask = batch.loss_mask * informative[:, None].astype(np.float32)
    batch = batch._replace(
        ref_logprobs=reference,
        weights=np.where(right, np.float32(1), np.float32(-1)) * loss_mask,
        loss_mask=loss_mask,
    )
    updates = []
    for part in np.split(np.arange(s.rows), s.num_minibatches):
        rows = update_batch.expand_groups(part, s.samples_per_row)
        minibatch = update_batch.select_rows(batch, rows)
        merged, _ = change_layout(minibatch, training.shared)
        state, values = training.train_step(state, to_device(merged), training.frozen)
        updates.append(Update(values, minibatch, KEY))
    means = update_batch.mean_of_updates([update.metrics for update in updates])
    names = {'total': 'loss', 'preferred': 'accuracy', 'margin': 'margin'}
    metrics = {f'implicit/{name}': means[f'loss/{key}'] for key, name in names.items()}
    return state, metrics, updates


def _attempts(training: ImplicitTraining, episodes: Sequence) -> Batch:
    """Returns a batch with one episode a row, in which only the attempts are trained."""
    batch = update_batch.batch_without_weights(episodes, training.layout, training.chat)
    numbers = [next(n for n, turn in enumerate(e.turns, 1) if turn is e.attempt) for e in episodes]
    in_attempt = batch.turns == np.array(numbers)[:, None]
    return batch._replace(loss_mask=batch.loss_mask * in_attempt.astype(np.float32))
