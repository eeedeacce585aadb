"""Training batch of one RL iteration (one episode per row, fixed shape), and its metrics."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.data.batching import packing
from elenchus.data.records import PLAYER_OF_ROLE, Batch, Episode
from elenchus.data.text.chat import Chat
from elenchus.sampling.engine.shapes import smallest_bucket
from elenchus.sampling.metrics.tool_figures import tool_figures
from elenchus.train.objective import Objective
from elenchus.train.rl import advantages, gae, rewards
from elenchus.train.rl.credit import GroupValues
from elenchus.train.rl.rollouts import SampledGroups
from elenchus.train.rl.settings import TRAINED_ROLES, Player
from elenchus.train.rl.stored_rollouts import Keep


@dataclasses.dataclass(frozen=True)
class RowLayout:
    """Layout of a player's samples in the rows of a batch."""

    player: Player
    length: int  # tokens of a row
    num_samples: int  # rows of a group
    importance_cap: float  # C of the token weight min(exp(trainer - sampler logp), C); 0 = off
    mask_truncated: bool  # turns that were cut off are not trained


class LogprobFunctions(NamedTuple):
    """Functions batch -> log-probabilities [B, T] of its own tokens, as host arrays."""

    policy: Callable[[Batch], np.ndarray] | None  # trainer before the update; None: not needed
    reference: Callable[[Batch], np.ndarray]


class Values(NamedTuple):
    """What a value model needs to turn rewards of steps into advantages of tokens."""

    settings: gae.ValueSettings
    of: Callable[[Batch], np.ndarray]  # batch -> value before each token, [B, T]
    turn_discount: float  # of gamma between two turns


class PlayerBatch(NamedTuple):
    """Rows of host arrays that an iteration trains on, and metrics of the samples."""

    policy: Batch
    values: Batch | None  # of a value model: weights are returns, old log-probabilities values
    metrics: dict[str, float]


def make_batch(
    sampled: SampledGroups,
    layout: RowLayout,
    chat: Chat,
    *,
    assign_credit: Callable[..., GroupValues],
    objective: Objective,
    logprobs: LogprobFunctions,
    values: Values | None = None,
    keep: Keep | None = None,
) -> PlayerBatch:
    """Returns the batch of sampled groups.

    The batch's old log-probabilities are the trainer's, by `logprobs.policy`. They are the
    sampler's without this function, for `hinted` episodes, which were sampled after a hint and are
    trained without it (their ratio is policy on the plain prompt / sampler), and for `replayed`
    ones, which an earlier policy sampled. `keep` stores the episodes with these values.
    """
    episodes = [episode for group in sampled.groups for episode in group]
    batch = batch_without_weights(episodes, layout, chat)
    trainer = batch.old_logprobs if logprobs.policy is None else logprobs.policy(batch)
    if objective.reads_reference:
        batch = batch._replace(ref_logprobs=logprobs.reference(batch))
    kl = kl_at_tokens(batch, trainer, objective)
    penalties = None if kl is None or values else of_turns(kl, batch, episodes=episodes)
    credits = []
    for i, group in enumerate(sampled.groups):
        rows = slice(i * layout.num_samples, (i + 1) * layout.num_samples)
        credits.append(assign_credit(group, penalties=penalties and penalties[rows]))
    weights, value_batch, more = token_advantages(batch, credits, values, kl=kl)
    hinted = is_off_policy(episodes, layout.player)
    metrics = more | group_metrics(sampled, credits, weights=weights, batch=batch)
    metrics['reward/unfinished'] = np.mean([not chat.is_finished(e.turns[-1]) for e in episodes])
    if logprobs.policy is not None:
        metrics |= gap_metrics(batch, trainer, trained=(batch.loss_mask > 0) & ~hinted)
    if layout.importance_cap:
        cap = layout.importance_cap
        importance = advantages.truncated_importance(trainer, batch.old_logprobs, cap=cap)
        weights = weights * np.where(hinted, np.float32(1), importance)
    # Groups that only fill the shape are masked: they count neither in the loss nor in its divisor.
    informative = np.arange(len(episodes)) < sampled.num_informative * layout.num_samples
    loss_mask = batch.loss_mask * informative[:, None].astype(np.float32)
    if layout.mask_truncated:
        loss_mask *= ~in_truncated_turns(batch, episodes, chat)
    old_logprobs = np.where(hinted, batch.old_logprobs, trainer)
    batch = batch._replace(weights=weights, loss_mask=loss_mask, old_logprobs=old_logprobs)
    if keep is not None:
        keep(episodes, credits, batch=batch, trainer=logprobs.policy and trainer)
    value_batch = value_batch and value_batch._replace(loss_mask=loss_mask)
    return PlayerBatch(batch, value_batch, metrics)


def is_off_policy(episodes: Sequence[Episode], player: Player) -> np.ndarray:
    """Returns [rows, 1]: whether another prompt or policy sampled the episode, or nobody did."""
    written = [player == 'critic' and not e.critique.logprobs for e in episodes]
    others = [e.attempt.facts.is_off_policy for e in episodes]
    return (np.array(written) | np.array(others))[:, None]


def token_advantages(
    batch: Batch,
    credits: Sequence[GroupValues],
    values: Values | None,
    *,
    kl: np.ndarray | None,
) -> tuple[np.ndarray, Batch | None, dict[str, float]]:
    """Returns (advantages [B, T], the value model's batch, metrics); without one None and {}.

    With a value model each token pays its own penalty `kl` [B, T].
    """
    of_steps = [steps for c in credits for steps in c.advantages]
    if values is None:
        return advantages.at_tokens(batch, of_steps), None, {}
    rewards = gae.at_step_ends(batch, of_steps) - (0.0 if kl is None else kl)
    old, trained = values.of(batch), batch.loss_mask > 0
    estimates = gae.estimate(
        values.settings, batch, rewards, values=old, turn_discount=values.turn_discount
    )
    returns = estimates.returns
    metrics = {
        'value/mean': float(old[trained].mean()),
        'value/return': float(returns[trained].mean()),
        'value/explained_variance': gae.explained_variance(old[trained], returns[trained]),
    }
    return estimates.advantages, batch._replace(weights=returns, old_logprobs=old), metrics


def in_truncated_turns(batch: Batch, episodes: Sequence[Episode], chat: Chat) -> np.ndarray:
    """Returns [B, T]: whether a token belongs to a turn that was cut off at its token limit.

    Overlong filtering of DAPO (arXiv 2503.14476), `mask_truncated_completions` of TRL: such turns
    count neither in the loss nor in its divisor. As there, their rewards stay in the mean and
    deviation of their group.
    """
    truncated = np.zeros(batch.tokens.shape, bool)
    for row, episode in enumerate(episodes):
        for number, turn in enumerate(episode.turns, 1):
            if turn.role in PLAYER_OF_ROLE and not chat.is_finished(turn):
                truncated[row] |= batch.turns[row] == number
    return truncated


def drop_zero_advantage_rows(
    batch: Batch, objective: Objective, *, parts: int, samples_per_row: int
) -> Batch:
    """Drops rows whose advantages are all zero; rescales weights so that the loss is unchanged.

    A group whose samples are all right or all wrong has no advantages: its rows only enlarge the
    divisor of the loss, so the other rows' weights are multiplied by (divisor of the remaining
    rows) / (divisor of all rows). `samples_per_row` adjacent rows, which will share a row, stay or
    go together. A quarter, half, three quarters or all rows remain, rounded up to a multiple of
    `parts * samples_per_row`: the train step compiles for at most four shapes. The divisor counts
    tokens that a truncated policy excludes. Objectives in which tokens of weight zero have a
    gradient (KL, entropy) keep all rows.
    """
    if not objective.ignores_zero_weight_tokens:
        return batch
    trained = batch.loss_mask > 0
    counts = trained.sum(axis=1) if objective.average == 'token' else trained.any(axis=1)
    is_used = (trained & (batch.weights != 0)).any(axis=1).reshape(-1, samples_per_row).any(axis=1)
    quarters = [-(-len(is_used) * n // (4 * parts)) * parts for n in (1, 2, 3, 4)]
    size = smallest_bucket(quarters, is_used.sum())
    # A stable sort puts the used groups first, filled up with others, all in their old order.
    kept_groups = np.sort(np.argsort(~is_used, kind='stable')[:size])
    kept_rows = expand_groups(kept_groups, samples_per_row)
    scale = np.float32(counts[kept_rows].sum() / max(1, counts.sum()))
    remaining = select_rows(batch, kept_rows)
    return remaining._replace(weights=remaining.weights * scale)


def select_rows(batch: Batch, rows: np.ndarray) -> Batch:
    """Returns some rows of a batch."""
    return Batch(*(values[rows] for values in batch))


def expand_groups(groups: np.ndarray, rows_per_group: int) -> np.ndarray:
    """Returns the row numbers of groups of adjacent rows, by group number."""
    return (rows_per_group * groups[:, None] + np.arange(rows_per_group)).ravel()


def batch_without_weights(episodes: Sequence[Episode], layout: RowLayout, chat: Chat) -> Batch:
    """Returns a batch of one episode per row; the player's turns are trained with weight 1."""
    roles = TRAINED_ROLES[layout.player]
    examples = [
        chat.example(e.turns, trained=roles, weights=None, last_only=False) for e in episodes
    ]
    return packing.pad(examples, length=layout.length)


def kl_at_tokens(batch: Batch, trainer: np.ndarray, objective: Objective) -> np.ndarray | None:
    """Returns kl_coef * (logp_t - ref_logp_t) of trained tokens, [B, T]; None unless kl is 'k1'.

    It is subtracted from rewards, because only there k1 has the gradient of the KL.
    """
    if objective.kl != 'k1':
        return None
    known = (batch.loss_mask > 0) & np.isfinite(trainer) & np.isfinite(batch.ref_logprobs)
    by_token = np.zeros(trainer.shape)
    by_token[known] = objective.kl_coef * (trainer[known] - batch.ref_logprobs[known])
    return by_token


def of_turns(
    by_token: np.ndarray, batch: Batch, *, episodes: Sequence[Episode]
) -> list[dict[int, float]]:
    """Returns the sum of a turn's tokens [B, T], by episode and number of the turn."""
    return [
        {n: float(by_token[row, batch.turns[row] == n].sum()) for n in range(1, len(e.turns) + 1)}
        for row, e in enumerate(episodes)
    ]


def group_metrics(
    sampled: SampledGroups, values: Sequence[GroupValues], *, weights: np.ndarray, batch: Batch
) -> dict[str, float]:
    """Returns statistics of rewards and advantages, also by level, and of zero-variance groups."""
    rewards = np.array([v.rewards for v in values])
    levels = np.array([group.problem.level for group in sampled.groups])
    advantage = weights[batch.loss_mask > 0]
    episodes = [episode for group in sampled.groups for episode in group]
    metrics = {
        'reward/mean': rewards.mean(),
        'reward/std': rewards.std(),
        'reward/groups_without_variance': sampled.num_zero_variance / sampled.num_sampled,
        'reward/groups_dropped': 1 - sampled.num_informative / len(sampled.groups),
        'advantage/mean': advantage.mean(),
        'advantage/std': advantage.std(),
        'advantage/min': advantage.min(),
        'advantage/max': advantage.max(),
    }
    size = rewards.shape[1]
    for level in np.unique(levels):
        rows = np.repeat(levels == level, size)
        metrics |= {
            f'levels/reward{level}': rewards[levels == level].mean(),
            f'levels/reward{level}_std': rewards[levels == level].std(),
            f'levels/advantage{level}_std': weights[rows][batch.loss_mask[rows] > 0].std(),
        }
    correct = np.mean([float(e.response.facts.correct) for e in episodes])
    calls = tool_figures(turn for episode in episodes for turn in episode.turns)
    metrics |= {f'tools/{name}': value for name, value in calls.items()}
    return {'reward/correct': correct} | metrics | term_metrics(values) | unknown_steps(episodes)


def term_metrics(values: Sequence[GroupValues]) -> dict[str, float]:
    """Returns the mean of each known reward term by turn, and the share that is unknown.

    `reward/attempt/steps` is the term of attempts, `reward/steps` that of the last trained turn. A
    term that is nowhere known has no mean. Only terms of the critic's scores can be unknown.
    """
    metrics, episodes = {}, [terms for v in values for terms in v.terms]
    last = [[*terms.values()][-1] for terms in episodes]
    for name in last[0]:
        metrics[f'reward/{name}'] = rewards.known_mean([terms[name] for terms in last])
    for role in {role: None for terms in episodes for role in terms}:
        column = [terms[role] for terms in episodes if role in terms]
        for name in column[0]:
            numbers, key = [terms[name] for terms in column], f'reward/{role}/{name}'
            metrics[key] = rewards.known_mean(numbers)
            if name in rewards.SCORED_TERMS and role in TRAINED_ROLES['actor']:
                metrics[f'{key}_unknown'] = np.mean([value is None for value in numbers])
    return {key: float(mean) for key, mean in metrics.items() if mean is not None}


def unknown_steps(episodes: Sequence[Episode]) -> dict[str, float]:
    """Returns the share of scored turns' steps whose score is unknown; {} if none was scored."""
    turns = [turn for e in episodes for turn in e.turns if turn.facts.num_reached is not None]
    scores = [score for turn in turns for score in turn.step_scores]
    if not scores:
        return {}
    return {'reward/steps_unknown': float(np.mean([score is None for score in scores]))}


def gap_metrics(batch: Batch, trainer: np.ndarray, *, trained: np.ndarray) -> dict[str, float]:
    """Returns mean and maximum of |trainer - sampler| log-probability over the trained tokens."""
    known = trained & np.isfinite(trainer)
    gaps = np.abs(trainer - batch.old_logprobs)[known]
    return {
        'sampler/gap': float(gaps.mean()) if gaps.size else 0.0,
        'sampler/gap_max': float(gaps.max()) if gaps.size else 0.0,
    }


def mean_of_updates(rows: Sequence[Mapping[str, jax.Array]]) -> dict[str, jax.Array]:
    """Returns metrics of an iteration: the mean over its updates; of `*_max`, the maximum.

    An update without loss tokens has no loss: its `loss/` metrics are not in the mean.
    """
    columns = {name: jnp.stack([jnp.asarray(row[name]) for row in rows]) for name in rows[0]}
    has_tokens = columns['loss/tokens'] > 0

    def reduce(name: str, values: jax.Array) -> jax.Array:
        if name.endswith('_max'):
            return jnp.max(values)
        if name.startswith('loss/') and name != 'loss/tokens':
            return jnp.sum(values * has_tokens) / jnp.maximum(jnp.sum(has_tokens), 1)
        return jnp.mean(values)

    return {name: reduce(name, values) for name, values in columns.items()}
