"""The part of a training example that one turn gives."""

from collections.abc import Callable, Sequence

import numpy as np

from elenchus.data import records
from elenchus.data.records import Turn
from elenchus.data.text.turn_steps import step_ids


def turn_example(
    turn: Turn,
    lead: Sequence[int],
    body: Sequence[int],
    *,
    index: int,
    weights: Callable[[Turn], np.ndarray] | None,
    trained: bool,
) -> records.Example:
    """Returns the part of an Example for one turn: its lead, then its body."""
    head, length = len(lead), len(body)

    def field(values, dtype):
        """Returns a field of the example: 0 on the lead, the values on the body."""
        of_body = np.broadcast_to(values, length)
        return np.concatenate([np.zeros(head, dtype), of_body.astype(dtype)])

    def fit(values):
        """Cuts or pads values of the turn's tokens to the body, which may lack the end token."""
        return np.pad(np.asarray(values)[:length], (0, max(0, length - len(values))))

    is_trained = trained
    if trained and turn.forced:
        is_trained = np.ones(len(turn.tokens), bool)
        is_trained[list(turn.forced)] = False
        is_trained = fit(is_trained)
    weight = 0.0 if not trained else 1.0 if weights is None else weights(turn)
    roles = np.full(head + length, records.ROLES.index(turn.role), np.int32)
    if turn.tools and length >= len(turn.tokens):  # not quoted, which is without messages' ends
        of_tool = turn.is_of_tool()
        roles[head : head + len(of_tool)][of_tool] = records.ROLES.index('tool')
        weight = np.where(fit(of_tool), 0.0, weight)
    return records.Example(
        tokens=np.asarray((*lead, *body), np.int32),
        loss_mask=field(is_trained & ~np.isnan(weight), np.float32),
        weights=field(np.nan_to_num(weight), np.float32),
        old_logprobs=field(fit(turn.logprobs), np.float32),
        ref_logprobs=np.zeros(head + length, np.float32),
        steps=field(fit(step_ids(turn)), np.int32),
        turns=np.full(head + length, index + 1, np.int32),
        roles=roles,
    )
