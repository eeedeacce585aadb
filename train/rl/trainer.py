"""Reinforcement of the actor, of the critic, or of both in turn.

An iteration of a player: sample groups, score them, turn rewards into advantages, and take
`num_epochs` passes of `num_minibatches` updates over the tokens that player wrote. With one update
an iteration the data are on-policy, and old log-probabilities are those that the update itself
computes; otherwise they are at most num_updates - 1 updates stale, and the clipped ratio is against
the policy that sampled.
"""

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elenchus.data.batching import shared_prompts
from elenchus.data.records import Batch, Problem
from elenchus.model import lora, sharding
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.lora import LoraSettings
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.sampling_methods import Sampling
from elenchus.sampling.exploration.context import Players
from elenchus.sampling.step_scores import StepScorer
from elenchus.train.metrics import writers
from elenchus.train.objective import Objective
from elenchus.train.optimizer import OptimizerSettings, make_optimizer
from elenchus.train.rl import diagnostics, rollouts
from elenchus.train.rl.rewards import ActorRewards, CriticRewards
from elenchus.train.rl.rollouts import (
    AdvantageSettings,
    Filled,
    Player,
    Rules,
    Table,
    TurnSettings,
    Valued,
)
from elenchus.train.rl.update_batch import LogProbs, Shape, busy_rows, make_batch, neighbours
from elenchus.train.sft import LoopSettings, start, to_device, train_loop
from elenchus.train.state import TrainState
from elenchus.train.step import Transform, batch_logprobs, make_train_step


@dataclasses.dataclass(frozen=True)
class ReinforceSettings:
    """An iteration samples G episodes of each of P problems; a critic's, G critiques each."""

    num_steps: int  # iterations
    token_budget: int  # once so many tokens are sampled no iteration begins; 0: no such limit
    num_problems: int
    num_samples: int
    num_refinements: int  # of each critique, where its helpfulness is rewarded
    refill_rounds: int  # of sampling, in which groups without variance are replaced
    num_minibatches: int  # an epoch
    num_epochs: int  # an iteration
    length: int  # longest conversation up to the actor's last turn, one a row
    critic_length: int  # and up to the critique
    advantage: AdvantageSettings
    turns: TurnSettings
    rewards: ActorRewards
    critic_rewards: CriticRewards
    overlong_tokens: int  # before a turn's limit, over which the penalty of length sets in
    importance_cap: float  # C of min(exp(trainer - sampler logp), C) on every token; 0: no weight
    drop_idle: bool  # rows without advantages are left out of the update, where the loss allows it
    samples_per_row: int  # of one group, its prompt once before them; 1: each after its own
    checkpoint_every: int
    objective: Objective
    optimizer: OptimizerSettings
    lora: LoraSettings  # of a player with adapters, which are then trained on, its own

    def __post_init__(self):
        if self.objective.surrogate == 'dpo':
            raise ValueError("reinforce.objective.surrogate='dpo' is for pairs, not for groups")
        for name in ('num_minibatches', 'num_epochs', 'num_refinements', 'overlong_tokens'):
            if getattr(self, name) < 1:
                raise ValueError(f'reinforce.{name}={getattr(self, name)} must be at least 1')
        divisors = [n for n in range(1, self.num_samples + 1) if self.num_samples % n == 0]
        if self.samples_per_row not in divisors:
            nearest = min(divisors, key=lambda n: abs(n - self.samples_per_row))
            raise ValueError(
                f'reinforce.samples_per_row={self.samples_per_row} must divide num_samples = '
                f'{self.num_samples}; nearest: {nearest}'
            )
        if self.rows % self.num_minibatches:
            raise ValueError(
                f'reinforce.num_minibatches={self.num_minibatches} must divide num_problems * '
                f'num_samples / samples_per_row = {self.rows}'
            )
        if self.num_updates > 1 and self.objective.on_policy:
            raise ValueError(
                f'reinforce.objective.on_policy=True with {self.num_updates} updates an iteration: '
                'set it to False, or num_minibatches and num_epochs to 1'
            )
        if self.importance_cap and self.importance_cap < 1:
            raise ValueError(f'reinforce.importance_cap={self.importance_cap} must be 0 or >= 1')

    @property
    def rows(self) -> int:
        """Rows of an iteration's updates."""
        return self.num_problems * self.num_samples // self.samples_per_row

    @property
    def num_updates(self) -> int:
        """Updates an iteration."""
        return self.num_minibatches * self.num_epochs

    @property
    def fresh(self) -> bool:
        """Whether nothing needs the policy's log-probabilities before its only update."""
        others = self.importance_cap or self.turns.hint_share or self.objective.kl == 'k1'
        return self.num_updates == 1 and not others

    def row_length(self, player: Player) -> int:
        return self.length if player == 'actor' else self.critic_length

    def shared_prompt(
        self, player: Player, limits: Mapping[str, int], *, overhead: int
    ) -> SharedPrompt | None:
        """How a player's samples share a row; the arguments of rollouts.written_tokens."""
        if self.samples_per_row == 1:
            return None
        written = rollouts.written_tokens(player, self.turns.episode, limits, overhead=overhead)
        return SharedPrompt(self.samples_per_row, self.row_length(player) - written, written)

    def rules(self, player: Player) -> Rules:
        rewards = self.rewards if player == 'actor' else self.critic_rewards
        return Rules(player, rewards, self.advantage, self.turns, self.overlong_tokens)


class Learner(NamedTuple):
    """What an iteration of one player needs beside the models that learn."""

    settings: ReinforceSettings
    player: Player
    reference: Transformer  # of the KL: the player as it was before
    frozen: Transformer | None  # the base under its adapters; None where all of it learns
    problems: Sequence[Problem]
    table: Callable[[Players], Table]
    update: Callable  # (objective, state, batch, frozen) -> (state, metrics)
    logprobs: Callable[[Transformer, Batch], np.ndarray]
    parts: int  # that the rows of an update divide into
    seed: int


def reinforce(
    players: Players,
    problems: Sequence[Problem],
    *,
    trained: Sequence[Player],
    settings: ReinforceSettings,
    loop: LoopSettings,
    scorer: StepScorer,
    method: Sampling,
    folder: pathlib.Path,
    writer: writers.Writer,
    seed: int,
) -> tuple[dict[Player, Transformer], dict[str, float]]:
    """Trains the players named, each iteration one after the other, against each other's newest.

    A player with adapters trains these alone. Everything a step does follows from (seed, step) and
    the weights. Resumes from folder/checkpoints, where one step holds all players. Returns the
    players and totals.
    """
    s = settings
    parts = check_rows(s, loop, jax.sharding.get_mesh())
    optimizer = make_optimizer(s.optimizer, num_steps=s.num_steps * s.num_updates)
    table = lambda now: Table(now, scorer, method, s.num_samples, s.num_refinements)  # noqa: E731
    given = {p: getattr(players, p) for p in trained}
    split = {p: lora.split(model) for p, model in given.items()}
    learners, sampler = {}, players.sampler
    for p, (_, frozen) in split.items():
        shared = s.shared_prompt(p, sampler.max_tokens, overhead=sampler.chat.overhead)
        how = {'transform': method.transform, 'shared': shared}
        tools = make_update(optimizer, loop=loop, gap=s.fresh, **how), make_logprobs(**how)
        learners[p] = Learner(s, p, given[p], frozen, problems, table, *tools, parts, seed)
    spent = {'tokens': 0, 'trained': 0}
    states, _ = train_loop(
        {p: start(adapters_or_all, optimizer) for p, (adapters_or_all, _) in split.items()},
        functools.partial(in_turn, learners, players, spent),
        num_steps=s.num_steps,
        loop=dataclasses.replace(loop, log_every=1, checkpoint_every=s.checkpoint_every),
        folder=folder,
        writer=writer,
        description=f'reinforce {" and ".join(trained)}',
        cursor=lambda: dict(spent),
        set_cursor=spent.update,
        watch=diagnostics.make_watch(diagnostics.to_stderr),
        enough=lambda: 0 < s.token_budget <= spent['tokens'],
    )
    return _joined(learners, states), {
        'tokens_sampled': spent['tokens'],
        'tokens_trained': spent['trained'],
        'updates': {p: int(state.step) for p, state in states.items()},
    }


def check_rows(settings: ReinforceSettings, loop: LoopSettings, mesh: jax.sharding.Mesh) -> int:
    """The parts that mesh and microbatches make of an update's rows.

    Raises ValueError where a minibatch does not divide into them.
    """
    rows = settings.rows // settings.num_minibatches
    parts = mesh.shape['data'] * mesh.shape['fsdp'] * loop.num_microbatches
    if rows % parts:
        raise ValueError(
            f'reinforce.num_problems * num_samples / samples_per_row / num_minibatches = {rows} '
            f'does not divide over data * fsdp * num_microbatches = {parts}; nearest: '
            f'{max(1, rows // parts) * parts}'
        )
    return parts


def in_turn(
    learners: Mapping[Player, Learner],
    players: Players,
    spent: dict[str, int],
    step: int,
    states: dict[Player, TrainState],
) -> tuple[dict[Player, TrainState], dict, list]:
    """One iteration of each player; adds the tokens sampled to `spent`."""
    row, updates = {}, []
    for player, learner in learners.items():
        now = dataclasses.replace(players, **_joined(learners, states))
        state, values, made, tokens = iterate(learner, step, states[player], now)
        states = states | {player: state}
        updates += made
        spent['tokens'] += tokens
        spent['trained'] += sum(minibatch.tokens.size for _, minibatch in made)
        row |= values if len(learners) == 1 else _named(values, player)
    return states, row | {'sampled/tokens': spent['tokens']}, updates


def _joined(
    learners: Mapping[Player, Learner], states: Mapping[Player, TrainState]
) -> dict[Player, Transformer]:
    """The players as they are now."""
    return {p: lora.join(state.model, learners[p].frozen) for p, state in states.items()}


def _named(values: Mapping[str, float], player: Player) -> dict[str, float]:
    """Metrics of one of several players: 'loss/kl' becomes 'loss/critic/kl'."""
    return {name.replace('/', f'/{player}/', 1): value for name, value in values.items()}


def iterate(learner: Learner, step: int, state: TrainState, players: Players):
    """(state, metrics, updates, sampled tokens) after a player's samples and updates."""
    s, player = learner.settings, learner.player
    first_phase = player == 'actor' and step <= s.turns.first_phase_steps
    objective = phase_objective(s) if first_phase else s.objective
    policy = functools.partial(learner.logprobs, lora.join(state.model, learner.frozen))
    if s.fresh:
        objective, policy = dataclasses.replace(objective, on_policy=True), None
    rng = make_rng(learner.seed, step, player)
    value = functools.partial(
        rollouts.value,
        rules=s.rules(player),
        limits=players.sampler.max_tokens,
        first_phase=first_phase,
    )
    found = sample(learner, players, value, rng)
    batch, told = make_batch(
        found,
        Shape(player, s.row_length(player), s.num_samples, s.importance_cap),
        players.sampler.chat,
        value=value,
        objective=objective,
        logprobs=LogProbs(policy, functools.partial(learner.logprobs, learner.reference)),
    )
    updates = []
    for _ in range(s.num_epochs):
        for part in np.split(rng.permutation(s.rows), s.num_minibatches):
            chosen = neighbours(np.sort(part), s.samples_per_row)
            minibatch = Batch(*(values[chosen] for values in batch))
            if s.drop_idle:
                minibatch = busy_rows(
                    minibatch, objective, parts=learner.parts, together=s.samples_per_row
                )
            state, values = learner.update(objective, state, minibatch, learner.frozen)
            updates.append((values, minibatch))
    return state, told | _over_updates([values for values, _ in updates]), updates, found.tokens


def make_rng(seed: int, step: int, player: Player) -> np.random.Generator:
    """All the randomness of a player's iteration: problems, noise and the order of rows."""
    return np.random.default_rng((seed, step, zlib.crc32(player.encode())))


def sample(
    learner: Learner, players: Players, value: Callable[..., Valued], rng: np.random.Generator
) -> Filled:
    """An iteration's groups of problems drawn from all, refilled as far as the settings say."""
    s, rules = learner.settings, learner.settings.rules(learner.player)
    drawn = rng.permutation(len(learner.problems))[: s.num_problems * (s.refill_rounds + 1)]
    noise = rng.integers(2**32, size=s.refill_rounds + 1).tolist()
    play, table = rollouts.PLAYS[learner.player], learner.table(players)
    return rollouts.filled(
        lambda chosen, number: play(table, rules, chosen, noise[number]),
        lambda group: value(group, penalties=None).flat,
        [learner.problems[i] for i in drawn],
        num_groups=s.num_problems,
        num_rounds=s.refill_rounds,
    )


def phase_objective(settings: ReinforceSettings) -> Objective:
    """The objective of SCoRe's stage I: attempts are held to the reference."""
    kl = settings.objective.kl if settings.objective.kl in ('k2', 'k3') else 'k3'
    kl_coef = settings.objective.kl_coef if kl == settings.objective.kl else 0.0
    return dataclasses.replace(
        settings.objective,
        kl=kl,
        kl_coef=kl_coef,
        attempt_kl_coef=settings.turns.attempt_kl_coef,
    )


def make_update(
    optimizer: optax.GradientTransformation,
    *,
    loop: LoopSettings,
    transform: Transform,
    shared: SharedPrompt | None,
    gap: bool,
):
    """Returns update(objective, state, batch of host arrays, frozen) -> (state, metrics).

    It is compiled once an objective, and for each kind of state. For the rest see make_train_step.
    """

    @functools.cache
    def step_of(objective: Objective):
        return make_train_step(
            objective=objective,
            optimizer=optimizer,
            transform=transform,
            num_microbatches=loop.num_microbatches,
            skip_nonfinite=loop.nonfinite == 'skip',
            gap=gap,
            shared=shared,
        )

    return lambda objective, state, batch, frozen: step_of(objective)(
        state, laid_out(batch, shared)[0], frozen
    )


def make_logprobs(
    *, transform: Transform, shared: SharedPrompt | None
) -> Callable[[Transformer, Batch], np.ndarray]:
    """Returns logprobs(model, batch) -> [B, T] on the host, of a batch of host arrays."""

    @jax.jit
    def forward(model: Transformer, batch: Batch) -> jax.Array:
        values = batch_logprobs(model, batch, transform, shared)[0]
        return sharding.constrain(values, (None, None))

    def logprobs(model: Transformer, batch: Batch) -> np.ndarray:
        laid, back = laid_out(batch, shared)
        return back(np.asarray(forward(model, laid)))

    return logprobs


def laid_out(
    batch: Batch, shared: SharedPrompt | None
) -> tuple[Batch, Callable[[np.ndarray], np.ndarray]]:
    """(the batch on devices, rows that share a prompt put together, a function back to its layout).

    The batch has a sequence a row.
    """
    if shared is None:
        return to_device(batch), lambda values: values
    laid, places = shared_prompts.share_prompts(batch, **shared._asdict())
    return to_device(laid), lambda values: places.scatter(values, batch.tokens.shape)


def _over_updates(rows: Sequence[Mapping[str, jax.Array]]) -> dict[str, jax.Array]:
    """Metrics of an iteration: the mean over its updates, and of maxima the largest."""
    return {
        name: (jnp.max if name.endswith('_max') else jnp.mean)(jnp.stack([r[name] for r in rows]))
        for name in rows[0]
    }
