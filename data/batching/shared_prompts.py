"""Batch layout in which samples of one question share a row, with their prompt stored once.

    packed one per row:  q q q a a .      shared row (samples=2, prompt=4, response=3):
                         q q q b b b      . q q q | a a . | b b b

The model then computes the prompt once per group instead of once per sample. SharedPrompt of the
model package describes the same layout to attention.
"""

from typing import NamedTuple

import numpy as np

from elenchus.data.records import Batch


class SourcePositions(NamedTuple):
    """Maps every position of the shared layout to its position in the original batch."""

    rows: np.ndarray  # [B, T] int, row in the original batch
    columns: np.ndarray  # [B, T] int, column in the original batch
    used: np.ndarray  # [B, T] bool, False on padding

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Moves values of the original layout into the shared layout, with 0 on padding."""
        return np.where(self.used, values[self.rows, self.columns], 0).astype(values.dtype)

    def scatter(self, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Moves values of the shared layout back to the original layout of `shape`.

        Positions without a source are 0: padding, and the prompts of all samples but the first.
        """
        original = np.zeros(shape, values.dtype)
        original[self.rows[self.used], self.columns[self.used]] = values[self.used]
        return original


def share_prompts(
    batch: Batch, *, samples: int, prompt: int, response: int
) -> tuple[Batch, SourcePositions]:
    """Merges each `samples` adjacent rows into one row that contains their common prompt once.

    Args:
        batch: one sequence per row; rows of a group are adjacent.
        samples: number of samples per group.
        prompt: positions for the prompt, which is padded in front. The prompt is the longest common
            prefix of the group before the body of any trained turn, cut to this length.
        response: positions for the rest of each sample.

    Returns the batch [B / samples, prompt + samples * response] and where its positions come from.
    The sequences are segments 1, 2, ... of their row; the prompt belongs to segment 1. Raises
    ValueError if the rest of a sample is longer than `response`.
    """
    fields = (batch.tokens, _in_trained_turns(batch), batch.segments)
    tokens, is_trained, segments = (x.reshape(-1, samples, x.shape[1]) for x in fields)
    is_common = (tokens == tokens[:, :1]) & ~is_trained & (segments > 0)
    # cumprod ends the prefix at the first position where any sample of the group differs.
    prefix = np.cumprod(is_common.all(axis=1), axis=1).sum(axis=1)
    start = np.minimum(prefix, prompt)[:, None]
    size = (segments > 0).sum(axis=2)
    longest = (size - start).max()
    if longest > response:
        raise ValueError(
            f'{longest} tokens after the prompt that {samples} samples share; at most {response} '
            'fit in the row layout'
        )
    column = np.arange(prompt) - (prompt - start)
    parts = [(np.zeros_like(column), column, column >= 0)]
    for sample in range(samples):
        column = start + np.arange(response)
        parts.append((np.full_like(column, sample), column, column < size[:, sample, None]))
    sample_of, column, used = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    first_row = samples * np.arange(len(tokens))[:, None]
    # Padding points at column 0, a valid index, and is masked by `used`.
    sources = SourcePositions(first_row + sample_of, np.where(used, column, 0), used)
    shared = Batch(*(sources.gather(values) for values in batch))
    segment = np.where(used, 1 + sample_of, 0).astype(np.int32)
    return shared._replace(segments=segment), sources


def _in_trained_turns(batch: Batch) -> np.ndarray:
    """True [B, T] in the bodies of turns with trained tokens, also where these are forced.

    Samples may begin a turn with the same forced tokens. They are no prompt: a rule that reads the
    place of a token in its turn counts them.
    """
    is_trained = batch.loss_mask > 0
    of_turn = np.zeros((len(batch.turns), batch.turns.max(initial=0) + 1), bool)
    rows, columns = np.nonzero(is_trained)
    of_turn[rows, batch.turns[rows, columns]] = True
    return np.take_along_axis(of_turn, batch.turns, axis=1) & (batch.steps > 0) | is_trained
