"""Step rewards: how likely the critic finds each step correct, read at its own verdicts."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.data import records
from elenchus.data.critiques import grammars
from elenchus.data.text.chat import Chat
from elenchus.model import sharding
from elenchus.model.transformer import Transformer

_LEAST_VERDICTS = 16  # verdict positions are padded to a power of two, to this at least


@dataclasses.dataclass(frozen=True)
class ScoreShapes:
    """The shapes of scoring: rows a forward pass, and ascending lengths rows are padded to."""

    rows: int
    lengths: tuple[int, ...]

    def __post_init__(self):
        if self.rows < 1:
            raise ValueError(f'rows={self.rows} must be at least 1')
        if not self.lengths or tuple(sorted(set(self.lengths))) != self.lengths:
            raise ValueError(f'lengths={self.lengths} must ascend and hold at least one')


@dataclasses.dataclass(frozen=True)
class StepScorer:
    """How a critic's critiques become step rewards."""

    shapes: ScoreShapes
    verdict_ids: dict[str, int]  # correct_id and wrong_id, the first tokens of the verdict words


class StepScores(NamedTuple):
    """P(correct) of each step of a criticised turn, and of its final answer.

    A step is a line. A step that the critic did not reach, or judged without a clear verdict, has
    0. The last line, where the answer stands, has the final verdict's score when the critic gave
    a verdict on every line before it and none on the line. `steps` and `final` are None where the
    critique has no such verdict at all.
    """

    steps: tuple[float, ...] | None
    final: float | None


@jax.jit
def verdict_scores(
    critic: Transformer,
    tokens: jax.Array,
    lengths: jax.Array,
    *,
    verdict_positions: jax.Array,
    correct_id: jax.Array,
    wrong_id: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """P(correct) / (P(correct) + P(wrong)) at each verdict, from one forward pass.

    tokens [B, T], padded on the right with anything, and lengths [B]; verdict_positions [B, S] are
    indices of the verdicts' tokens, -1 where absent. Returns scores and a mask, both [B, S]; the
    score is 0 where the mask is False.
    """
    B, T = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(T), (B, T))
    hidden, _ = critic(tokens, positions)
    present = (verdict_positions > 0) & (verdict_positions < lengths[:, None])
    before = jnp.where(present, verdict_positions - 1, 0)
    logits = critic.logits(hidden[jnp.arange(B)[:, None], before])
    scores = jax.nn.sigmoid(logits[..., correct_id] - logits[..., wrong_id])
    scores = sharding.constrain(jnp.where(present, scores, 0.0), (None, None))
    return scores, present


def step_rewards(
    critic: Transformer,
    episodes: Sequence[records.Episode],
    shapes: ScoreShapes,
    *,
    grammar: grammars.Grammar,
    chat: Chat,
    correct_id: int,
    wrong_id: int,
) -> list[StepScores]:
    """Scores of episodes that end with a critique, one forward pass for `shapes.rows` of them.

    Raises ValueError where an episode's last turn is no critique, or it is too long.
    """
    items = [_item(episode, grammar, chat) for episode in episodes]
    results: list[StepScores | None] = [None] * len(items)
    for group in _groups(items, shapes):
        tokens, lengths, positions = _arrays([items[i] for i in group], shapes)
        scores, _ = verdict_scores(
            critic,
            tokens,
            lengths,
            verdict_positions=positions,
            correct_id=np.int32(correct_id),
            wrong_id=np.int32(wrong_id),
        )
        for i, row in zip(group, np.asarray(scores), strict=False):
            results[i] = _aligned(items[i], row.tolist())
    return results


class _Item(NamedTuple):
    """An episode's tokens, its verdicts (None: unclear), and the number of steps criticised."""

    tokens: list[int]
    verdicts: list[int | None]
    final: int | None
    num_steps: int


def _item(episode: records.Episode, grammar, chat: Chat) -> _Item:
    roles = [turn.role for turn in episode.turns]
    if len(roles) < 2 or roles[-1] != 'critique':
        raise ValueError(f'{episode.problem_id}: {roles} must end with a turn and its critique')
    criticised, critique = episode.turns[-2:]
    stretches = chat.render(episode.turns, 'critique')
    tokens = [token for lead, body in stretches for token in (*lead, *body)]
    start, num_steps = len(tokens) - len(critique.tokens), len(criticised.step_ends)
    verdicts, final = grammars.verdict_positions(
        critique.tokens, grammar=grammar, tokenizer=chat.tokenizer
    )
    shifted = [None if at is None else start + at for at in verdicts[:num_steps]]
    return _Item(tokens, shifted, None if final is None else start + final, num_steps)


def _groups(items: Sequence[_Item], shapes: ScoreShapes) -> Iterator[list[int]]:
    """Indices of items of like length, `shapes.rows` at a time."""
    order = sorted(range(len(items)), key=lambda i: len(items[i].tokens))
    if order and len(items[order[-1]].tokens) > shapes.lengths[-1]:
        raise ValueError(
            f'an episode of {len(items[order[-1]].tokens)} tokens exceeds the longest of '
            f'lengths={shapes.lengths}'
        )
    for start in range(0, len(order), shapes.rows):
        yield order[start : start + shapes.rows]


def _arrays(items: Sequence[_Item], shapes: ScoreShapes):
    """Padded tokens [rows, T], lengths [rows] and positions [rows, S], the final verdict last."""
    longest = max(len(item.tokens) for item in items)
    most = max(_LEAST_VERDICTS, *(len(item.verdicts) + 1 for item in items))
    tokens = np.zeros((shapes.rows, next(n for n in shapes.lengths if n >= longest)), np.int32)
    lengths = np.zeros(shapes.rows, np.int32)
    positions = np.full((shapes.rows, 1 << (most - 1).bit_length()), -1, np.int32)
    for row, item in enumerate(items):
        lengths[row] = len(item.tokens)
        tokens[row, : lengths[row]] = item.tokens
        for i, at in enumerate((*item.verdicts, item.final)):
            positions[row, i] = -1 if at is None else at
    return tokens, lengths, positions


def _aligned(item: _Item, scores: list[float]) -> StepScores:
    """Scores of the verdicts of an item, laid onto its steps."""
    judged = len(item.verdicts)
    final = None if item.final is None else scores[judged]
    if final is None and all(at is None for at in item.verdicts):
        return StepScores(None, None)
    steps = scores[:judged] + [0.0] * (item.num_steps - judged)
    if judged == item.num_steps - 1 and final is not None:
        steps[-1] = final
    return StepScores(tuple(steps), final)
