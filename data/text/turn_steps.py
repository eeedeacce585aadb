"""Steps of a turn: the lines of its tokens."""

import itertools
from collections.abc import Collection, Sequence

import numpy as np

from elenchus.data.records import Turn


def step_ends(
    tokens: Sequence[int], *, newlines: Collection[int], blank: Collection[int]
) -> tuple[int, ...]:
    """Returns the end of each step of a turn: the index one past the last token of its line.

    `newlines` are ids whose text contains a line break; `blank` are ids that add no text to a line:
    bare line breaks and the end token. A step is a line that is not blank. Blank tokens after a
    line belong to it, so the steps cover every token of a turn.
    """
    tokens = tuple(tokens)
    starts = [
        i
        for i in range(1, len(tokens))
        if tokens[i - 1] in newlines
        and tokens[i] not in blank
        and any(token not in blank for token in tokens[:i])
    ]
    return (*starts, len(tokens)) if tokens else ()


def step_ids(turn: Turn) -> np.ndarray:
    """Returns 1 + the step index of each body token, 0 outside steps: [len(turn.tokens)], int32."""
    ids = np.zeros(len(turn.tokens), np.int32)
    for step, (start, end) in enumerate(itertools.pairwise((0, *turn.step_ends))):
        ids[start:end] = step + 1
    return ids
