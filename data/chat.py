"""Prompt templates, on token ids: what a conversation looks like is written here and nowhere else.

    <question> q <attempt> y </s> <critique> c </s> <refinement> y' </s>

Each turn opens with a header that is never trained; what a player writes ends with the end token.
"""

import dataclasses
import difflib
import itertools
from collections.abc import Callable, Collection, Sequence

import numpy as np

from data import records
from data import tokenizer as tokenizers

PLAYED = ('attempt', 'critique', 'refinement')
"""Roles whose turns are made of steps, one a line."""


@dataclasses.dataclass(frozen=True)
class Chat:
    """The templates of one tokenizer, which must have a header token for every role."""

    tokenizer: tokenizers.Tokenizer

    def open(self, role: str) -> tuple[int, ...]:
        """The header that opens a role's turn. Raises ValueError on an unknown role."""
        return (self.tokenizer.special(f'<{_known(role)}>'),)

    def question(self, problem_text: str, guide: str | None = None) -> tuple[records.Turn, ...]:
        """What the actor is given: the question's turn and, with `guide`, a guide's.

        Both are shown, never sampled, so their bodies have no end token.
        """
        given = {'question': problem_text} | ({} if guide is None else {'guide': guide})
        return tuple(
            records.Turn(role, self.open(role), tuple(self.tokenizer.encode(text)))
            for role, text in given.items()
        )

    def written(self, role: str, text: str) -> records.Turn:
        """A finished turn of given text: its tokens, then the end token."""
        return self._turn(role, (*self.tokenizer.encode(text), self.tokenizer.eos_id), ())

    def sampled(self, role: str, tokens: Sequence[int], logprobs: Sequence[float]) -> records.Turn:
        """A turn of sampled ids, kept as they are; the end token is missing where it was cut off.

        Raises ValueError where the end token stands before the end.
        """
        tokens = tuple(int(token) for token in tokens)
        if self.tokenizer.eos_id in tokens[:-1]:
            at = tokens.index(self.tokenizer.eos_id)
            raise ValueError(f'end token at {at} of {len(tokens)} sampled tokens: cut there')
        return self._turn(role, tokens, tuple(float(logprob) for logprob in logprobs))

    def context(self, turns: Sequence[records.Turn], role: str) -> list[int]:
        """The prompt from which `role`'s next turn is sampled: all turns, then its header."""
        told = itertools.chain.from_iterable((*turn.header, *turn.tokens) for turn in turns)
        return [*told, *self.open(role)]

    def text(self, turn: records.Turn) -> str:
        """What a turn says, without its header and end token."""
        return self.tokenizer.decode([t for t in turn.tokens if t != self.tokenizer.eos_id])

    def finished(self, turn: records.Turn) -> bool:
        """Whether a turn came to its end token."""
        return turn.tokens[-1:] == (self.tokenizer.eos_id,)

    def example(
        self,
        turns: Sequence[records.Turn],
        *,
        trained: Collection[str],
        weights: Callable[[records.Turn], np.ndarray] | None,
        last_only: bool,
    ) -> records.Example:
        """One training sequence of a conversation; see records.Example for its fields.

        Trained are the bodies of turns whose role is in `trained` (with `last_only`, of the last
        such turn alone), at 1 a token or at `weights(turn)`, [len(turn.tokens)]; headers never.
        Raises ValueError where no turn is trained.
        """
        roles = {_known(role) for role in trained}
        chosen = [i for i, turn in enumerate(turns) if turn.role in roles]
        if not chosen:
            have = sorted({turn.role for turn in turns})
            raise ValueError(f'trained={sorted(roles)} names no turn: the roles here are {have}')
        chosen = chosen[-1:] if last_only else chosen
        parts = [
            _part(turn, i, weights=weights, trained=i in chosen) for i, turn in enumerate(turns)
        ]
        return records.Example(*(np.concatenate(field) for field in zip(*parts, strict=True)))

    def _turn(self, role: str, tokens: tuple[int, ...], logprobs: tuple[float, ...]):
        ends = ()
        if role in PLAYED:
            tokenizer = self.tokenizer
            ends = step_ends(tokens, newline_id=tokenizer.newline_id, eos_id=tokenizer.eos_id)
        return records.Turn(role, self.open(role), tokens, logprobs, ends)


def step_ends(tokens: Sequence[int], *, newline_id: int, eos_id: int) -> tuple[int, ...]:
    """Where the steps of a turn end: one past each line's last token, its line break included.

    A step is a line with something in it: line breaks that follow each other and the end token
    belong to the line before them, so the steps cover every token of a turn.
    """
    tokens = tuple(tokens)
    blank = (newline_id, eos_id)
    starts = [
        i
        for i in range(1, len(tokens))
        if tokens[i - 1] == newline_id
        and tokens[i] not in blank
        and any(token not in blank for token in tokens[:i])
    ]
    return (*starts, len(tokens)) if tokens else ()


def step_ids(turn: records.Turn) -> np.ndarray:
    """1 + the index of the step of each body token, 0 outside steps: [len(turn.tokens)], int32."""
    ids = np.zeros(len(turn.tokens), np.int32)
    for step, (start, end) in enumerate(itertools.pairwise((0, *turn.step_ends))):
        ids[start:end] = step + 1
    return ids


def _part(
    turn: records.Turn,
    index: int,
    *,
    weights: Callable[[records.Turn], np.ndarray] | None,
    trained: bool,
) -> records.Example:
    """The stretch of an Example that one turn makes: its header, then its body."""
    head, body = len(turn.header), len(turn.tokens)

    def field(values, dtype):
        return np.concatenate([np.zeros(head, dtype), np.broadcast_to(values, body).astype(dtype)])

    weight = 0.0 if not trained else 1.0 if weights is None else weights(turn)
    return records.Example(
        tokens=np.asarray((*turn.header, *turn.tokens), np.int32),
        loss_mask=field(float(trained), np.float32),
        weights=field(weight, np.float32),
        old_logprobs=field(turn.logprobs or 0.0, np.float32),
        ref_logprobs=np.zeros(head + body, np.float32),
        steps=field(step_ids(turn), np.int32),
        turns=np.full(head + body, index + 1, np.int32),
        roles=np.full(head + body, records.ROLES.index(turn.role), np.int32),
    )


def _known(role: str) -> str:
    if role not in records.ROLES[1:]:
        near = difflib.get_close_matches(role, records.ROLES[1:], n=1, cutoff=0.0)
        raise ValueError(f'role={role!r} is none of {records.ROLES[1:]}; nearest is {near[0]!r}')
    return role
