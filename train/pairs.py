"""Pairs of responses as training data: sequences, reference log-probabilities, KTO's baseline."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from elenchus.data.batching import packing
from elenchus.data.files import atomic, failures
from elenchus.data.records import Batch, Example
from elenchus.data.text.chat import Chat
from elenchus.train import distributed
from elenchus.train.pair_rules import Pair
from elenchus.train.preferences import PairLoss

REFERENCE = 'reference.npz'
"""File of a round with the log-probabilities of the model that it began to train."""

Logprobs = Callable[[Any, Batch], np.ndarray]
"""(model, batch) -> log-probabilities [B, T], such as train.rl.logprobs.make_logprobs returns."""


class PairedExamples(NamedTuple):
    """The sequences of a pair; `others` join its prompt to the responses of another pair (KTO)."""

    chosen: Example
    rejected: Example
    others: tuple[Example, ...] = ()


def pair_examples(chat: Chat, pair: Pair, *, rule: str) -> PairedExamples:
    """Returns both conversations as sequences; only their last turns are trained.

    Raises ValueError if the turns answer different prompts.
    """
    sides = [
        chat.example(side.turns, trained=(side.turns[-1].role,), weights=None, last_only=True)
        for side in pair[:2]
    ]
    starts = [first_trained(example) for example in sides]
    prompts = [example.tokens[:start] for example, start in zip(sides, starts, strict=True)]
    if not np.array_equal(*prompts):
        raise ValueError(
            f'prefer.pairs={rule!r}: the two responses to {pair.chosen.problem_id!r} answer '
            "different prompts; use prefer.prompt='question', or pairs of one attempt"
        )
    return PairedExamples(*sides)


def without_common(pair: PairedExamples) -> PairedExamples:
    """Returns a pair whose responses are not trained on the tokens that both begin with."""
    start = first_trained(pair.chosen)
    bodies = [example.tokens[start:] for example in pair[:2]]
    shortest = min(map(len, bodies))
    is_same = np.cumprod(bodies[0][:shortest] == bodies[1][:shortest])
    end = start + int(is_same.sum())
    chosen, rejected = (mask_range(example, start, end) for example in pair[:2])
    return pair._replace(chosen=chosen, rejected=rejected)


def first_trained(example: Example) -> int:
    """Returns the index of the first trained token; the length if none is trained."""
    return int(np.argmax(np.append(example.loss_mask > 0, True)))


def mask_range(example: Example, start: int, end: int) -> Example:
    """Returns an example whose tokens from `start` to `end` are not trained."""
    mask = example.loss_mask.copy()
    mask[start:end] = 0
    return example._replace(loss_mask=mask)


def fitting_pairs(
    pairs: Sequence[PairedExamples], *, length: int
) -> tuple[list[int], dict[str, int]]:
    """Returns the indices of pairs that can be trained, and counts of the others by reason.

    Both responses of a pair must have trained tokens, and a row must hold both sequences.
    """
    counts, kept = {'pairs_alike': 0, 'pairs_too_long': 0}, []
    for i, pair in enumerate(pairs):
        if not (pair.chosen.loss_mask.any() and pair.rejected.loss_mask.any()):
            counts['pairs_alike'] += 1
        elif len(pair.chosen.tokens) + len(pair.rejected.tokens) > length:
            counts['pairs_too_long'] += 1
        else:
            kept.append(i)
    return kept, counts


def mismatched(
    pairs: Sequence[PairedExamples], questions: Sequence[str], *, length: int
) -> list[tuple[Example, Example]]:
    """Returns, for each pair, its prompt with both responses of the preceding one of another
    question.

    KTO estimates its baseline z0 on them (arXiv 2402.01306, 4.1). The sequences are cut to
    `length`. If all pairs are of one question, the pair before is taken.
    """
    result = []
    for i, pair in enumerate(pairs):
        before = [(i - k) % len(pairs) for k in range(1, len(pairs) + 1)]
        j = next((j for j in before if questions[j] != questions[i]), before[0])
        others = (swap_response(pair.chosen, side, length=length) for side in pairs[j][:2])
        result.append(tuple(others))
    return result


def swap_response(prompt: Example, response: Example, *, length: int) -> Example:
    """Returns the untrained beginning of one example with the rest of another one."""
    start, first = first_trained(prompt), first_trained(response)
    parts = zip(prompt, response, strict=True)
    return Example(*(np.concatenate([p[:start], r[first:]])[:length] for p, r in parts))


# Log-probabilities


def logprobs_of(
    model: Any, examples: Sequence[Example], *, length: int, logprobs: Logprobs
) -> list[np.ndarray]:
    """Returns the log-probabilities of the tokens of each example, 0 where it is not trained."""
    packed = packing.Rows(None, length)
    for i, example in enumerate(examples):
        packed.add((i, example))
    batch = packing.to_batch([[e for _, e in row] for row in packed.items], length=length)
    values, result = logprobs(model, batch), [None] * len(examples)
    for row, items in zip(values, packed.items, strict=True):
        start = 0
        for i, example in items:
            end = start + len(example.tokens)
            result[i] = np.where(example.loss_mask > 0, row[start:end], 0).astype(np.float32)
            start = end
    return result


def reference_logprobs(
    path: epath.Path, examples: Sequence[Example], compute: Callable[[], list[np.ndarray]]
) -> list[np.ndarray]:
    """Returns the reference's log-probabilities of examples, from the file `path` if it exists.

    They are computed once and stored, because the reference is the model before training.
    """
    if not distributed.run_on_first(path.exists):
        values = compute()
        buffer = io.BytesIO()
        np.savez_compressed(buffer, values=np.concatenate(values))
        distributed.run_on_first(lambda: atomic.write_bytes(path, buffer.getvalue()))
        return values
    with failures.named_errors(path):
        values = np.load(io.BytesIO(path.read_bytes()))['values']
    ends = np.cumsum([len(example.tokens) for example in examples])
    if len(values) != ends[-1]:
        raise ValueError(
            f'{path} has {len(values)} log-probabilities for {ends[-1]} tokens: delete it, or its '
            'folder, and run the same command again'
        )
    return np.split(values, ends[:-1])


def with_reference(example: Example, values: np.ndarray) -> Example:
    """Returns an example with the reference's log-probabilities."""
    return example._replace(ref_logprobs=values)


def with_offset(pair: PairedExamples, offset: float, loss: PairLoss) -> PairedExamples:
    """Returns a pair whose loss is that of beta * D - offset, where D is the margin.

    The offset is applied by shifting the reference's log-probability of one chosen token.
    """
    length = pair.chosen.loss_mask.sum() if loss.is_mean else 1.0
    return pair._replace(chosen=shift_reference(pair.chosen, offset / loss.beta * length))


def shift_reference(example: Example, shift: float) -> Example:
    """Returns an example whose score is smaller by `shift`."""
    values = example.ref_logprobs.copy()
    values[first_trained(example)] += shift
    return example._replace(ref_logprobs=values)


def log_ratio(example: Example, values: np.ndarray) -> float:
    """Returns the sum of a response's log-probabilities less those of the reference."""
    return float(((values - example.ref_logprobs) * example.loss_mask).sum(dtype=np.float64))


def shift_batch(batch: Batch, shift: float) -> Batch:
    """Returns a batch in which the score of every sequence is smaller by `shift`."""
    shifted = batch.ref_logprobs.copy()
    for row, mask in enumerate(batch.loss_mask):
        places = np.flatnonzero(mask > 0)
        _, first = np.unique(batch.segments[row, places], return_index=True)
        shifted[row, places[first]] += shift
    return batch._replace(ref_logprobs=shifted)


# Figures


@dataclasses.dataclass(frozen=True)
class PairScores:
    """Log-probabilities of the responses of pairs, and their implicit rewards."""

    logprobs: np.ndarray  # [pairs, 2] of chosen and rejected responses
    rewards: np.ndarray  # [pairs, 2]

    @classmethod
    def of(
        cls,
        pairs: Sequence[PairedExamples],
        values: Sequence[np.ndarray],
        references: Sequence[np.ndarray],
        *,
        loss: PairLoss,
    ) -> 'PairScores':
        """Returns those of log-probabilities [2 * pairs]: chosen, rejected, chosen, ..."""
        sums = np.array([v.sum(dtype=np.float64) for v in values])
        sizes = np.array([e.loss_mask.sum() for pair in pairs for e in pair[:2]])
        ratios = sums
        if loss.reads_reference:
            ratios = sums - np.array([v.sum(dtype=np.float64) for v in references])
        rewards = loss.beta * (ratios / sizes if loss.is_mean else ratios)
        return cls(sums.reshape(-1, 2), rewards.reshape(-1, 2))

    def figures(self) -> dict[str, float]:
        """Returns means over pairs; `accuracy`: the chosen reward is larger, ties count half."""
        margins = self.rewards[:, 0] - self.rewards[:, 1]
        return {
            'margin': float(margins.mean()),
            'accuracy': float(((margins > 0) + 0.5 * (margins == 0)).mean()),
            'chosen_reward': float(self.rewards[:, 0].mean()),
            'rejected_reward': float(self.rewards[:, 1].mean()),
            'chosen_logprob': float(self.logprobs[:, 0].mean()),
            'rejected_logprob': float(self.logprobs[:, 1].mean()),
        }
