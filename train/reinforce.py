"""Reinforcement: sample, judge, score, weigh, update; GRPO with outcome and step rewards."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
import optax

from data import packing
from data.records import Batch, Episode, Example, Problem
from model import lora
from model.lora import LoraSettings
from model.transformer import Transformer
from sampling import episodes as episode_lib
from sampling.methods import Greedy, Sampling
from sampling.search import Players
from sampling.steps import StepScorer
from sampling.strategies import score_steps
from train import advantages, metrics
from train.objective import Objective
from train.optimizer import OptimizerSettings, make_optimizer
from train.state import TrainState
from train.step import batch_logprobs, make_train_step
from train.supervised import LoopSettings, start, to_device, train_loop


@dataclasses.dataclass(frozen=True)
class ReinforceSettings:
    """G samples of each of P problems a step; advantage = outcome_coef * A(outcome) +
    step_coef * A(steps), the critic judging steps only where step_coef is not 0."""

    num_steps: int
    num_problems: int
    num_samples: int
    length: int  # longest question and attempt, one a row
    advantage: Literal['grpo', 'dr_grpo', 'rloo']
    epsilon: float
    outcome_coef: float
    step_coef: float
    checkpoint_every: int
    objective: Objective
    optimizer: OptimizerSettings
    lora: LoraSettings  # of an actor with adapters, which are then trained on, its own

    @property
    def rows(self) -> int:
        """Sequences a step."""
        return self.num_problems * self.num_samples


def reinforce(
    players: Players,
    problems: Sequence[Problem],
    *,
    settings: ReinforceSettings,
    loop: LoopSettings,
    scorer: StepScorer,
    method: Sampling,
    folder: pathlib.Path,
    writer: metrics.Writer,
    seed: int,
) -> tuple[Transformer, dict[str, float]]:
    """Trains players.actor, or its adapters; the actor as given is the KL term's reference.

    A step follows from (seed, step) and the weights. Resumes from folder/checkpoints."""
    optimizer = make_optimizer(settings.optimizer, num_steps=settings.num_steps)
    update = make_update(players.actor, optimizer, settings=settings, loop=loop, method=method)
    adapters_or_all, frozen = lora.split(players.actor)
    spent = {'tokens': 0}

    def advance(step: int, state: TrainState):
        rng = np.random.default_rng((seed, step))
        chosen = rng.choice(len(problems), settings.num_problems, replace=False)
        groups, rewards = rollouts(
            dataclasses.replace(players, actor=lora.join(state.model, frozen)),
            [problems[i] for i in chosen],
            settings=settings,
            scorer=scorer,
            method=method,
            seed=seed + step,
        )
        spent['tokens'] += sum(episode_lib.sampled_tokens(group) for group in groups)
        batch = to_device(group_batch(players, groups, settings=settings))
        state, values = update(state, batch)
        return state, values | rewards

    state, _ = train_loop(
        start(adapters_or_all, optimizer),
        advance,
        num_steps=settings.num_steps,
        loop=dataclasses.replace(loop, log_every=1, checkpoint_every=settings.checkpoint_every),
        folder=folder,
        writer=writer,
        description='reinforce',
        cursor=lambda: dict(spent),
        set_cursor=spent.update,
    )
    trained = settings.num_steps * settings.rows * settings.length
    totals = {'tokens_sampled': spent['tokens'], 'tokens_trained': trained}
    return lora.join(state.model, frozen), totals


def make_update(
    reference: Transformer,
    optimizer: optax.GradientTransformation,
    *,
    settings: ReinforceSettings,
    loop: LoopSettings,
    method: Sampling,
):
    """Returns update(state, batch) -> (state, metrics), with the reference's log-probabilities."""
    train_step = make_train_step(
        objective=settings.objective,
        optimizer=optimizer,
        transform=method.transform,
        num_microbatches=loop.num_microbatches,
    )
    logprobs = jax.jit(lambda model, batch: batch_logprobs(model, batch, method.transform)[0])
    _, frozen = lora.split(reference)

    def update(state: TrainState, batch: Batch):
        if settings.objective.kl != 'none':
            batch = batch._replace(ref_logprobs=logprobs(reference, batch))
        return train_step(state, batch, frozen)

    return update


def rollouts(
    players: Players,
    problems: Sequence[Problem],
    *,
    settings: ReinforceSettings,
    scorer: StepScorer,
    method: Sampling,
    seed: int,
):
    """(groups of judged and scored episodes, reward metrics)."""
    episodes = episode_lib.attempts(
        players.sampler,
        players.actor,
        problems,
        judge=players.judge,
        method=method,
        seed=seed,
        num_samples=settings.num_samples,
        first_id=0,
    )
    if settings.step_coef:
        episodes = score_steps(
            players, episodes, scorer=scorer, greedy=Greedy(method.banned), seed=seed
        )
    size = settings.num_samples
    groups = [episodes[i : i + size] for i in range(0, len(episodes), size)]
    correct = np.array([[e.outcome['correct'] for e in group] for group in groups], float)
    equal = (correct.min(axis=1) == correct.max(axis=1)).mean()
    scores = [s for e in episodes for s in e.turn('attempt').step_scores]
    return groups, {
        'reward/correct': correct.mean(),
        'reward/groups_without_variance': equal,
        'reward/step': float(np.mean(scores)) if scores else 0.0,
    }


def group_batch(
    players: Players, groups: Sequence[Sequence[Episode]], *, settings: ReinforceSettings
) -> Batch:
    """One row an episode, each token at its advantage within the episode's group."""
    examples = [e for group in groups for e in group_examples(players, group, settings=settings)]
    return packing.pad(examples, length=settings.length)


def group_examples(
    players: Players, group: Sequence[Episode], *, settings: ReinforceSettings
) -> list[Example]:
    """One Example an episode of a group: question and attempt, each token at its advantage."""
    weigh = advantages.ADVANTAGES[settings.advantage]
    outcome = weigh([float(e.outcome['correct']) for e in group], epsilon=settings.epsilon)
    attempts = [e.turn('attempt') for e in group]
    values = [
        np.full(len(turn.step_ends), settings.outcome_coef * value, np.float32)
        for turn, value in zip(attempts, outcome, strict=True)
    ]
    if settings.step_coef:
        scored = advantages.process_normalised(
            [turn.step_scores for turn in attempts], epsilon=settings.epsilon
        )
        values = [v + settings.step_coef * s for v, s in zip(values, scored, strict=True)]
    examples = []
    for episode, turn, value in zip(group, attempts, values, strict=True):
        turns = tuple(t for t in episode.turns if t.role != 'critique')
        weights = advantages.over_tokens(value, turn.step_ends)
        examples.append(
            players.sampler.chat.example(
                turns,
                trained=('attempt',),
                weights=lambda _, weights=weights: weights,
                last_only=True,
            )
        )
    return examples
