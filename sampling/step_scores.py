"""Step rewards: the critic's probability that a step is correct, read at its verdict tokens.

The critic writes a critique with a verdict word per step. One forward pass over the critique gives
the probability of "correct" against "wrong" at each of these words; no reward head is trained
(docs/methods.md, "Step rewards").
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenchus.data.critiques import grammars
from elenchus.data.records import Episode, Step
from elenchus.data.text.chat import Chat
from elenchus.model import placement
from elenchus.model.ranges import Length, PositiveInt, checked
from elenchus.model.transformer import Transformer
from elenchus.sampling.model_pair import ModelPair

_MIN_VERDICTS = 16  # verdict positions are padded to a power of two, and to at least this


@dataclasses.dataclass(frozen=True)
@checked('sampling.score')
class ScoreShapes:
    """Shapes of the scoring pass. Every length compiles once; a batch takes the shortest fit."""

    rows: PositiveInt  # sequences per forward pass
    lengths: tuple[Length, ...]  # ascending lengths that sequences are padded to

    def __post_init__(self):
        if not self.lengths or tuple(sorted(set(self.lengths))) != self.lengths:
            nearest = tuple(sorted(set(self.lengths))) or (512,)
            raise ValueError(
                f'sampling.score.lengths={self.lengths} must be ascending and not empty; '
                f'nearest: {nearest}'
            )


@dataclasses.dataclass(frozen=True)
class StepScorer:
    """Settings of `score_steps`: the shapes and the token ids of the verdict words."""

    shapes: ScoreShapes
    verdict_ids: dict[str, int]  # correct_id and wrong_id, the first tokens of the verdict words


class StepScores(NamedTuple):
    """P(correct) of each step of a criticised turn, and of its final answer; None = unknown.

    A step is a line. Its score is unknown if it has no clear verdict or if the critique did not
    reach it. Only where a finished critique called an earlier step wrong do the steps that it did
    not reach have score 0: they build on a wrong step, and the critic stops there. The last line
    has the answer: it takes the final verdict's score if the critique has a line on every step
    before it and none on the line itself. The final verdict of a critique that was cut off is
    unknown. `steps` is None for a critique without any verdict.

    `num_reached` is the number of steps, from the first on, that the critique judges or fails to
    judge clearly.
    """

    steps: tuple[float | None, ...] | None
    final: float | None
    num_reached: int
    finished: bool  # the critique came to its end


def score_steps(
    models: ModelPair, criticised: Sequence[Episode], *, scorer: StepScorer
) -> list[Episode]:
    """Adds to episodes that end with a sampled critique the critic's scores of the attempt's steps.

    The scores are in the attempt's `steps` and that of the final answer is its fact `score`, None
    where they are unknown (StepScores). The fact `num_reached` tells the steps that were judged
    from those after the critique's end, and `critique_finished` whether it came to its end.
    """
    scores = step_rewards(
        models.critic,
        criticised,
        scorer.shapes,
        chat=models.sampler.chat,
        **scorer.verdict_ids,
    )
    scored = []
    for episode, score in zip(criticised, scores, strict=True):
        *before, attempt, critique = episode.turns
        values = score.steps or (None,) * len(attempt.steps)
        steps = tuple(map(Step, attempt.step_ends, values))
        attempt = dataclasses.replace(attempt, steps=steps).with_facts(
            score=score.final, num_reached=score.num_reached, critique_finished=score.finished
        )
        scored.append(dataclasses.replace(episode, turns=(*before, attempt, critique)))
    return scored


@placement.pinned_jit(
    axes=dict.fromkeys(('tokens', 'lengths', 'verdict_positions'), placement.ROWS)
)
def verdict_scores(
    critic: Transformer,
    tokens: jax.Array,
    lengths: jax.Array,
    *,
    verdict_positions: jax.Array,
    correct_id: jax.Array,
    wrong_id: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Computes P(correct) / (P(correct) + P(wrong)) at each verdict, in one forward pass.

    tokens [B, T], with any padding on the right, and lengths [B]; verdict_positions [B, S] are
    indices of the verdicts' tokens, -1 for none. Returns scores and a mask, both [B, S]; the
    score is 0 where the mask is False.
    """
    B, T = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(T), (B, T))
    hidden, _ = critic(tokens, positions)
    # A token is predicted at the position before it, so position 0 has no prediction.
    present = (verdict_positions > 0) & (verdict_positions < lengths[:, None])
    before = jnp.where(present, verdict_positions - 1, 0)
    # Row by row (`vmap`), so that rows split over a mesh stay where they are.
    hidden = jax.vmap(lambda row, at: row[at])(hidden, before)
    logits = critic.logits_of(hidden, jnp.stack([correct_id, wrong_id]))
    # sigmoid(a - b) = exp(a) / (exp(a) + exp(b)): the other words of the vocabulary cancel.
    scores = jax.nn.sigmoid(logits[..., 0] - logits[..., 1])
    return jnp.where(present, scores, 0.0), present


def step_rewards(
    critic: Transformer,
    episodes: Sequence[Episode],
    shapes: ScoreShapes,
    *,
    chat: Chat,
    correct_id: int,
    wrong_id: int,
) -> list[StepScores]:
    """Scores episodes that end with a sampled critique, `shapes.rows` of them per forward pass.

    The critique's fact `verdict_offsets` says where its verdicts are.

    Raises ValueError if an episode does not end with a critique or is too long.
    """
    sequences = [_to_sequence(episode, chat) for episode in episodes]
    results: list[StepScores | None] = [None] * len(sequences)
    for group in _batches(sequences, shapes):
        tokens, lengths, positions = _pad([sequences[i] for i in group], shapes)
        scores, present = verdict_scores(
            critic,
            tokens,
            lengths,
            verdict_positions=positions,
            correct_id=np.int32(correct_id),
            wrong_id=np.int32(wrong_id),
        )
        known = np.where(present, np.asarray(scores, object), None)
        # The last group may be smaller than `rows`; the rest are padding rows.
        for i, row in zip(group, known, strict=False):
            results[i] = _assign_to_steps(sequences[i], row.tolist())
    return results


class _Sequence(NamedTuple):
    """An episode as tokens, with the positions of its verdicts (None: unclear)."""

    tokens: list[int]
    verdicts: list[int | None]  # of the steps
    final: int | None  # of the answer; None also if the critique was cut off
    num_steps: int  # of the criticised turn
    finished: bool  # the critique came to its end
    finds_error: bool  # it calls a step wrong


def _to_sequence(episode: Episode, chat: Chat) -> _Sequence:
    roles = [turn.role for turn in episode.turns]
    if len(roles) < 2 or roles[-1] != 'critique':
        raise ValueError(f'{episode.problem_id}: {roles} must end with a turn and its critique')
    criticised, critique = episode.turns[-2:]
    stretches = chat.render(episode.turns, 'critique')
    tokens = [token for lead, body in stretches for token in (*lead, *body)]
    start, num_steps = len(tokens) - len(critique.tokens), len(criticised.steps)
    offsets, finished = critique.facts.verdict_offsets, chat.is_finished(critique)
    *verdicts, final = grammars.token_positions(critique.tokens, offsets, tokenizer=chat.tokenizer)
    text = chat.text(critique)
    finds_error = any(grammars.is_wrong_at(text, offset) for offset in offsets[:-1])
    # A critique may have more verdicts than the attempt has steps; the surplus is dropped.
    shifted = [None if at is None else start + at for at in verdicts[:num_steps]]
    final = start + final if finished and final is not None else None
    return _Sequence(tokens, shifted, final, num_steps, finished, finds_error)


def _batches(sequences: Sequence[_Sequence], shapes: ScoreShapes) -> Iterator[list[int]]:
    """Indices of sequences of similar length, `shapes.rows` at a time."""
    # Sorted by length, so that little of a batch is padding.
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i].tokens))
    if order and len(sequences[order[-1]].tokens) > shapes.lengths[-1]:
        raise ValueError(
            f'an episode of {len(sequences[order[-1]].tokens)} tokens exceeds the longest of '
            f'lengths={shapes.lengths}'
        )
    for start in range(0, len(order), shapes.rows):
        yield order[start : start + shapes.rows]


def _pad(sequences: Sequence[_Sequence], shapes: ScoreShapes):
    """Padded tokens [rows, T], lengths [rows] and positions [rows, S], the final verdict last."""
    longest = max(len(sequence.tokens) for sequence in sequences)
    most = max(_MIN_VERDICTS, *(len(sequence.verdicts) + 1 for sequence in sequences))
    tokens = np.zeros((shapes.rows, next(n for n in shapes.lengths if n >= longest)), np.int32)
    lengths = np.zeros(shapes.rows, np.int32)
    positions = np.full((shapes.rows, 1 << (most - 1).bit_length()), -1, np.int32)
    for row, sequence in enumerate(sequences):
        lengths[row] = len(sequence.tokens)
        tokens[row, : lengths[row]] = sequence.tokens
        for i, at in enumerate((*sequence.verdicts, sequence.final)):
            positions[row, i] = -1 if at is None else at
    return tokens, lengths, positions


def _assign_to_steps(sequence: _Sequence, scores: list[float | None]) -> StepScores:
    """Maps the verdicts' scores of a sequence to the steps of the criticised turn."""
    num_judged, finished = len(sequence.verdicts), sequence.finished
    judged, final = scores[:num_judged], scores[num_judged]
    if final is None and all(score is None for score in judged):
        return StepScores(None, None, 0, finished)
    unreached = 0.0 if finished and sequence.finds_error else None
    steps = judged + [unreached] * (sequence.num_steps - num_judged)
    if num_judged == sequence.num_steps - 1 and final is not None:
        steps[-1], num_judged = final, sequence.num_steps
    return StepScores(tuple(steps), final, num_judged, finished)
