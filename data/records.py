"""The records that flow: Problem -> Episode -> Example -> Batch. NumPy and text only."""

import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from array_record.python import array_record_module
from etils import epath

from elenchus.data.files import json_files

ROLES = ('pad', 'question', 'guide', 'attempt', 'critique', 'refinement')
"""Role names; a role's id in a Batch is its index here."""

REMEDY = (
    "delete it and, where there is one, its stage's summary.json; the same command makes it again"
)
"""What helps against damage to what a stage has written."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question with its reference answer and, where known, a reference solution."""

    id: str
    question: str
    answer: str
    solution: str
    level: int
    source: str


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a conversation, as token ids.

    `header` opens the turn for its writer and is never trained; what stands there for another
    reader is said by chat.Chat.rendered. `tokens` is the body, which ends with the end token unless
    sampling was cut off. `logprobs[i]` is the sampler's log-probability of `tokens[i]` (empty where
    the turn was not sampled). `step_ends[j]` is the index in `tokens` one past step j's last token;
    `step_scores[j]` is the critic's probability that step j is correct.
    """

    role: str
    header: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    step_ends: tuple[int, ...] = ()
    step_scores: tuple[float, ...] = ()

    def __post_init__(self):
        if self.role not in ROLES[1:]:
            raise ValueError(f'Turn.role={self.role!r} is none of {ROLES[1:]}')
        if self.logprobs and len(self.logprobs) != len(self.tokens):
            raise ValueError(f'{len(self.logprobs)} logprobs for {len(self.tokens)} tokens')


@dataclasses.dataclass(frozen=True)
class Episode:
    """A conversation about one problem and what became of it.

    `outcome` holds named facts of the last turn(s), such as `correct`, `refined_correct`,
    `verdict`, `first_error`, `construction`: plain JSON values.
    """

    problem_id: str
    level: int
    turns: tuple[Turn, ...]
    outcome: dict

    def turn(self, role: str) -> Turn:
        """The last turn of a role. Raises KeyError where there is none."""
        for turn in reversed(self.turns):
            if turn.role == role:
                return turn
        raise KeyError(role)


class Example(NamedTuple):
    """One training sequence; every field is a [T] array and describes `tokens[t]`."""

    tokens: np.ndarray  # int32
    loss_mask: np.ndarray  # float32, 1 on trained tokens
    weights: np.ndarray  # float32, weight or advantage of the token
    old_logprobs: np.ndarray  # float32, of the sampling policy
    ref_logprobs: np.ndarray  # float32, of the reference policy
    steps: np.ndarray  # int32, 1 + index of the step within its turn, 0 outside steps
    turns: np.ndarray  # int32, 1 + index of the turn
    roles: np.ndarray  # int32, index into ROLES


class Batch(NamedTuple):
    """Packed sequences; every field is [B, T] and `x[:, t]` describes `tokens[:, t]`.

    `segments` is 0 on padding and 1, 2, ... on the sequences of a row; `positions` counts from 0
    within each sequence. A sequence never crosses rows.
    """

    tokens: np.ndarray
    loss_mask: np.ndarray
    weights: np.ndarray
    old_logprobs: np.ndarray
    ref_logprobs: np.ndarray
    steps: np.ndarray
    turns: np.ndarray
    roles: np.ndarray
    positions: np.ndarray
    segments: np.ndarray


def to_json(episode: Episode) -> bytes:
    return json.dumps(dataclasses.asdict(episode), separators=(',', ':')).encode()


def from_json(record: bytes) -> Episode:
    raw = json.loads(record)
    turns = (
        Turn(**{k: tuple(v) if isinstance(v, list) else v for k, v in t.items()})
        for t in raw.pop('turns')
    )
    return Episode(turns=tuple(turns), **raw)


def write_episodes(path: str | os.PathLike, episodes: Iterable[Episode]) -> None:
    """Writes an array_record file, whole or not at all; see json_files.write_bytes."""
    if not json_files.may_write():
        return
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder) / 'part'
        writer = array_record_module.ArrayRecordWriter(str(made), 'group_size:1')
        for episode in episodes:
            writer.write(to_json(episode))
        writer.close()
        json_files.write_bytes(path, made.read_bytes())


def read_episodes(folder: str | os.PathLike) -> Iterator[Episode]:
    """Episodes of every *.array_record file in a folder, in name order.

    Raises ValueError where there is none, or where a file is damaged.
    """
    paths = sorted(epath.Path(folder).glob('*.array_record'))
    if not paths:
        raise ValueError(f'no *.array_record files in {folder}')
    for path in paths:
        yield from read_part(path)


def read_part(path: str | os.PathLike) -> list[Episode]:
    """Episodes of one file. Raises ValueError where it is damaged."""
    path = epath.Path(path)
    with _on_this_machine(path) as found:
        try:
            reader = array_record_module.ArrayRecordReader(found)
            made = [from_json(record) for record in reader.read_all()]
        except (ValueError, RuntimeError, IndexError, TypeError, KeyError) as error:
            why = ' '.join(str(error).split())[:100] or 'cut short'
            raise ValueError(f'{path} is damaged ({why}): {REMEDY}') from None
        reader.close()
        return made


@contextlib.contextmanager
def _on_this_machine(path: epath.Path) -> Iterator[str]:
    """The path itself or, of a bucket's object, that of a copy."""
    if not json_files.is_remote(path):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / path.name
        copy.write_bytes(path.read_bytes())
        yield os.fspath(copy)
