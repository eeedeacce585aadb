"""Stores the episodes of some iterations with what was computed of them, for people to read.

    STAGE/rollouts/actor/step-00020/episodes/part-00000.array_record
    STAGE/rollouts/actor/step-00020/values.jsonl   a line for each episode: {"reward": 1.0,
        "terms": {"attempt": {"correct": 1.0}}, "advantages": {"2": [0.5, 0.5]},
        "tokens": {"2": {"weight": [...], "trainer": [...]}}}

Turns are numbered from 1. Advantages are those of steps; with a value model, which has advantages
of tokens alone, they are the steps' rewards. A weight is the advantage of the token with its
importance weight, as in the loss; it is 0 where nothing is trained. `trainer` is the trainer's
log-probability before the update; it is absent where the update computes it itself. Unknown numbers
are null.
"""

import functools
import json
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from elenchus.data.files import atomic, episode_files
from elenchus.data.records import Batch, Episode
from elenchus.train.metrics import tracking
from elenchus.train.rl.credit import GroupValues
from elenchus.train.rl.settings import Player, ReinforceSettings

VALUES = 'values.jsonl'


class Keep(Protocol):
    """Stores an iteration: its episodes, their credit, the batch, and trainer log-probabilities."""

    def __call__(
        self,
        episodes: Sequence[Episode],
        values: Sequence[GroupValues],
        *,
        batch: Batch,
        trainer: np.ndarray | None,
    ) -> None: ...


def make_keep(
    folder: epath.PathLike | None, player: Player, step: int, *, settings: ReinforceSettings
) -> Keep | None:
    """Returns what stores iteration `step`, or None if it is not stored.

    The first iteration is stored, the last, and those after which a checkpoint is due: beside a
    checkpoint the texts are small.
    """
    due = step in (1, settings.num_steps) or step % settings.checkpoint_every == 0
    if folder is None or not due:
        return None
    place = epath.Path(folder) / 'rollouts' / player / f'step-{step:05d}'
    return functools.partial(write, place)


def write(
    folder: epath.Path,
    episodes: Sequence[Episode],
    values: Sequence[GroupValues],
    *,
    batch: Batch,
    trainer: np.ndarray | None,
) -> None:
    """Writes the episodes and, before them, their values; both are in the order of the batch."""
    if not atomic.may_write():
        return
    columns = {'weight': batch.weights * (batch.loss_mask > 0)}
    if trainer is not None:
        columns['trainer'] = trainer
    credits = [
        (value.rewards[i], _terms(value.terms[i]), value.advantages[i])
        for value in values
        for i in range(len(value.rewards))
    ]
    lines = [
        json.dumps(
            {
                'reward': _number(reward),
                'terms': terms,
                'advantages': {str(n): _numbers(steps) for n, steps in steps_of.items()},
                'tokens': {
                    str(number): {
                        name: _numbers(column[row, batch.turns[row] == number])[-count:]
                        for name, column in columns.items()
                    }
                    for number, count in _lengths(episode)
                    if (batch.loss_mask[row, batch.turns[row] == number] > 0).any()
                },
            }
        )
        for row, (episode, (reward, terms, steps_of)) in enumerate(
            zip(episodes, credits, strict=True)
        )
    ]
    shown = {
        'reward': [reward for reward, _, _ in credits],
        'advantage': [a for *_, steps_of in credits for steps in steps_of.values() for a in steps],
    }
    step = int(''.join(filter(str.isdigit, folder.name)) or 0)
    stage = epath.Path(folder).parent.parent.parent
    tracking.show_episodes(stage, step, episodes, values=shown)
    atomic.write_text(folder / VALUES, ''.join(f'{line}\n' for line in lines))
    episode_files.write_episodes(folder / 'episodes' / 'part-00000.array_record', episodes)


def _lengths(episode: Episode) -> list[tuple[int, int]]:
    """(number from 1, tokens) of the turns."""
    return [(n, len(turn.tokens)) for n, turn in enumerate(episode.turns, 1)]


def _terms(by_role: Any) -> dict[str, dict[str, float | None]]:
    return {role: {n: _number(v) for n, v in terms.items()} for role, terms in by_role.items()}


def _numbers(column: np.ndarray) -> list[float | None]:
    return [_number(value) for value in np.asarray(column).tolist()]


def _number(value: float | None) -> float | None:
    known = value is not None and math.isfinite(value)
    return round(float(value), 6) if known else None
