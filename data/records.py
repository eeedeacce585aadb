"""The data types of the pipeline: Problem -> Episode -> Example -> Batch. NumPy and text only.

An Episode is a conversation about a Problem and consists of Turns. An Example is the training
sequence of an episode; examples are packed into a Batch. data/files/episode_files.py stores
episodes.
"""

import dataclasses
import types
from typing import NamedTuple

import numpy as np

ROLES = ('pad', 'question', 'guide', 'attempt', 'critique', 'refinement')
"""Roles of turns. The id of a role in a Batch is its index in this tuple."""

PLAYER_OF_ROLE = types.MappingProxyType(
    {'attempt': 'actor', 'critique': 'critic', 'refinement': 'actor'}
)
"""Role -> the model that writes its turns. No model writes questions and guides."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question with its reference answer.

    `load` in data/problems/loading.py returns problems.
    """

    id: str  # unique within its source
    question: str
    answer: str  # reference answer, without '####' or \boxed
    solution: str  # reference solution; '' = unknown
    level: int  # difficulty; 0 = unknown
    source: str  # one of problems.loading.SOURCES


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a conversation, as token ids.

    `header` opens the turn for the model that writes it and is never trained. Another reader may
    see a different header: text.chat.Chat.render computes it.
    """

    role: str  # one of ROLES except 'pad'
    header: tuple[int, ...]
    tokens: tuple[int, ...]  # body; ends with the end token unless sampling was cut off
    logprobs: tuple[float, ...] = ()  # the sampler's, one per token; empty if not sampled
    step_ends: tuple[int, ...] = ()  # [j] = index in `tokens` one past the last token of step j
    step_scores: tuple[float, ...] = ()  # [j] = the critic's probability that step j is correct

    def __post_init__(self):
        if self.role not in ROLES[1:]:
            raise ValueError(f'unknown Turn.role={self.role!r}; valid: {ROLES[1:]}')
        if self.logprobs and len(self.logprobs) != len(self.tokens):
            raise ValueError(f'{len(self.logprobs)} logprobs for {len(self.tokens)} tokens')


@dataclasses.dataclass(frozen=True)
class Episode:
    """A conversation about one problem and its outcome.

    `outcome` maps names of facts about the last turns, such as `correct`, `refined_correct`,
    `verdict`, `first_error` and `construction`, to plain JSON values.
    """

    problem_id: str
    level: int
    turns: tuple[Turn, ...]
    outcome: dict

    def turn(self, role: str) -> Turn:
        """Returns the last turn of a role. Raises KeyError if no turn has the role."""
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

    A sequence never crosses rows. Fields up to `roles` are those of Example.
    """

    tokens: np.ndarray
    loss_mask: np.ndarray
    weights: np.ndarray
    old_logprobs: np.ndarray
    ref_logprobs: np.ndarray
    steps: np.ndarray
    turns: np.ndarray
    roles: np.ndarray
    positions: np.ndarray  # int32, counts from 0 within each sequence
    segments: np.ndarray  # int32, 0 on padding, 1, 2, ... on the sequences of a row
