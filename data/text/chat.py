"""Prompts and training sequences, on token ids: what a conversation looks like to its reader.

    <question> q <attempt> y </s> <critique> c </s> <refinement> y' </s>

is a conversation under the template `elenchus`; templates.py has those of the model families. What
stands around a turn is never trained, what a player writes ends with the end token.
"""

import dataclasses
import difflib
import functools
import itertools
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from elenchus.data import records
from elenchus.data.text import chat_templates
from elenchus.data.text import tokenizer as tokenizers

PLAYED = tuple(chat_templates.PLAYERS)
"""Roles whose turns are made of steps, one a line."""


class Stretch(NamedTuple):
    """A turn as a player reads it: what stands before its text, and the text, as token ids."""

    lead: tuple[int, ...]
    body: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Chat:
    """A template in the ids of one tokenizer.

    Raises ValueError where the tokenizer lacks one of the template's special tokens.
    """

    tokenizer: tokenizers.Tokenizer
    template: chat_templates.Template = chat_templates.ELENCHUS

    def __post_init__(self):
        for name in sorted(self.template.specials()):
            try:
                self.tokenizer.special(name)
            except ValueError as error:
                raise ValueError(f'template {self.template.name!r}: {error}') from None

    @functools.cached_property
    def end_id(self) -> int:
        """The token that ends what a player writes."""
        return self._ending[-1]

    def open(self, role: str) -> tuple[int, ...]:
        """The header that opens a role's turn for its writer. Raises ValueError on another role."""
        player = chat_templates.PLAYERS.get(_known(role))
        return self._ids(self.template.frame(role, player).header)

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
        """A finished turn of given text: its tokens, then the template's ending."""
        return self._turn(role, (*self.tokenizer.encode(text), *self._ending), ())

    def sampled(self, role: str, tokens: Sequence[int], logprobs: Sequence[float]) -> records.Turn:
        """A turn of sampled ids, kept as they are; the end token is missing where it was cut off.

        Raises ValueError where the end token stands before the end.
        """
        tokens = tuple(int(token) for token in tokens)
        if self.end_id in tokens[:-1]:
            at = tokens.index(self.end_id)
            raise ValueError(f'end token at {at} of {len(tokens)} sampled tokens: cut there')
        return self._turn(role, tokens, tuple(float(logprob) for logprob in logprobs))

    def rendered(self, turns: Sequence[records.Turn], role: str) -> list[Stretch]:
        """The turns as they stand before the player who writes `role`.

        Where roles have headers of their own, both players read the turns as they are. Else the
        headers are the reader's and sampled ids are kept; a question or guide that the next turn's
        message goes on from is encoded with what joins them. Raises ValueError where a family's
        player has two turns in a row.
        """
        player = chat_templates.PLAYERS.get(_known(role))
        if self.template.user is None:
            return [Stretch(turn.header, turn.tokens) for turn in turns]
        stretches: list[Stretch] = []
        for i, turn in enumerate(turns):
            before = turns[i - 1] if i else None
            joined = i + 1 < len(turns) and not (
                self.template.owns(turn.role, player)
                or self.template.owns(turns[i + 1].role, player)
            )
            lead = self._between(before, turn.role, player)
            stretches.append(Stretch(lead, self._body(turn, player, joined=joined)))
        return stretches

    def context(self, turns: Sequence[records.Turn], role: str) -> list[int]:
        """The prompt from which `role`'s next turn is sampled: all turns, then its header."""
        told = [t for lead, body in self.rendered(turns, role) for t in (*lead, *body)]
        player = chat_templates.PLAYERS.get(role)
        return [*told, *self._between(turns[-1] if turns else None, role, player)]

    @functools.cached_property
    def overhead(self) -> int:
        """The most ids that stand between the bodies of two turns."""
        if self.template.user is None:
            return 1
        user, assistant = self.template.user, self.template.assistant
        seams = (
            user.footer + assistant.header,
            assistant.footer + user.header,
            (self.template.join,),
        )
        return max(len(self._ids(seam)) for seam in seams)

    def text(self, turn: records.Turn) -> str:
        """What a turn says, without its header and end token."""
        return self.tokenizer.decode(self._said(turn))

    def finished(self, turn: records.Turn) -> bool:
        """Whether a turn came to its end token."""
        return turn.tokens[-1:] == (self.end_id,)

    def example(
        self,
        turns: Sequence[records.Turn],
        *,
        trained: Collection[str],
        weights: Callable[[records.Turn], np.ndarray] | None,
        last_only: bool,
    ) -> records.Example:
        """One training sequence of a conversation; see records.Example for its fields.

        It is what the player who wrote the trained turns reads. Trained are the bodies of turns
        whose role is in `trained` (with `last_only`, of the last such turn alone), at 1 a token or
        at `weights(turn)`, [len(turn.tokens)]; headers never. Raises ValueError where no turn is
        trained, and under a family's template where not all of them are one player's.
        """
        roles = {_known(role) for role in trained}
        chosen = [i for i, turn in enumerate(turns) if turn.role in roles]
        if not chosen:
            have = sorted({turn.role for turn in turns})
            raise ValueError(f'trained={sorted(roles)} names no turn: the roles here are {have}')
        chosen = chosen[-1:] if last_only else chosen
        self._check_own({turns[i].role for i in chosen})
        stretches = self.rendered(turns, turns[chosen[0]].role)
        parts = [
            _part(turn, stretch, i, weights=weights, trained=i in chosen)
            for i, (turn, stretch) in enumerate(zip(turns, stretches, strict=True))
        ]
        return records.Example(*(np.concatenate(field) for field in zip(*parts, strict=True)))

    def _check_own(self, roles: set[str]) -> None:
        """Raises ValueError where the turns of these roles are not written by one player."""
        players = {chat_templates.PLAYERS.get(role) for role in roles}
        if self.template.user and (len(players) > 1 or None in players):
            raise ValueError(
                f'trained={sorted(roles)}: under the template {self.template.name!r} actor and '
                'critic read different prompts, so an example trains the turns of one of them'
            )

    def _between(self, before: records.Turn | None, role: str, player: str | None):
        """The ids between the bodies of two turns; before the first where `before` is None."""
        template = self.template
        header = self._ids(template.frame(role, player).header)
        if before is None or template.user is None:
            return self._ids(template.opening) + header
        footer = template.frame(before.role, player).footer
        owns = template.owns(before.role, player)
        if owns and template.owns(role, player):
            raise ValueError(f'{before.role} and {role} follow each other: what was said between?')
        if not owns and not template.owns(role, player):
            return ()  # the body before has what joins them
        if owns and self.finished(before):
            return self._ids(footer[1:]) + header
        return self._ids(footer, follows=True) + header

    def _body(self, turn: records.Turn, player: str | None, *, joined: bool) -> tuple[int, ...]:
        """A turn's text to its reader, with what joins it to the next turn of its message."""
        if self.template.owns(turn.role, player):
            return turn.tokens
        said, join = self._said(turn), self.template.join
        if not joined:
            return said
        if turn.role in PLAYED:
            return (*said, *tokenizers.following(self.tokenizer, join))
        return tuple(self.tokenizer.encode(self.tokenizer.decode(said) + join))

    def _said(self, turn: records.Turn) -> tuple[int, ...]:
        """A turn's tokens without its ending, or as much of it as was written."""
        if not self.finished(turn):
            return turn.tokens
        whole = turn.tokens[-len(self._ending) :] == self._ending
        return turn.tokens[: -len(self._ending) if whole else -1]

    @functools.cached_property
    def _ending(self) -> tuple[int, ...]:
        return self._ids(self.template.ending, follows=True)

    def _ids(self, pieces: chat_templates.Pieces, *, follows: bool = False) -> tuple[int, ...]:
        return _template_ids(self.tokenizer, pieces, follows)

    @functools.cached_property
    def _blank(self) -> frozenset[int]:
        """Ids that are no more than line breaks, and the end token."""
        ids = (i for i in self.tokenizer.newline_ids if not self.tokenizer.decode([i]).strip())
        return frozenset((*ids, self.end_id))

    def _turn(self, role: str, tokens: tuple[int, ...], logprobs: tuple[float, ...]):
        ends = ()
        if role in PLAYED:
            ends = step_ends(tokens, newlines=self.tokenizer.newline_ids, blank=self._blank)
        return records.Turn(role, self.open(role), tokens, logprobs, ends)


@functools.lru_cache(maxsize=256)
def _template_ids(
    tokenizer: tokenizers.Tokenizer, pieces: chat_templates.Pieces, follows: bool
) -> tuple[int, ...]:
    """Pieces as ids; with `follows` the first goes on from a turn's text."""
    ids: list[int] = []
    for i, piece in enumerate(pieces):
        if isinstance(piece, chat_templates.Special):
            ids.append(tokenizer.special(piece.name))
        elif follows and i == 0:
            ids += tokenizers.following(tokenizer, piece)
        else:
            ids += tokenizer.encode(piece)
    return tuple(ids)


def step_ends(
    tokens: Sequence[int], *, newlines: Collection[int], blank: Collection[int]
) -> tuple[int, ...]:
    """Where the steps of a turn end: one past each line's last token, its line break included.

    `newlines` are ids with a line break in them; `blank` those that add nothing to a line: bare
    line breaks and the end token. A step is a line with something in it: blank tokens that follow
    belong to the line before them, so the steps cover every token of a turn.
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


def step_ids(turn: records.Turn) -> np.ndarray:
    """1 + the index of the step of each body token, 0 outside steps: [len(turn.tokens)], int32."""
    ids = np.zeros(len(turn.tokens), np.int32)
    for step, (start, end) in enumerate(itertools.pairwise((0, *turn.step_ends))):
        ids[start:end] = step + 1
    return ids


def _part(
    turn: records.Turn,
    stretch: Stretch,
    index: int,
    *,
    weights: Callable[[records.Turn], np.ndarray] | None,
    trained: bool,
) -> records.Example:
    """The stretch of an Example that one turn makes: its lead, then its body."""
    head, body = map(len, stretch)

    def field(values, dtype):
        return np.concatenate([np.zeros(head, dtype), np.broadcast_to(values, body).astype(dtype)])

    def kept(values):
        """Values of the turn's tokens, for those of them that the body has."""
        return np.pad(np.asarray(values)[:body], (0, max(0, body - len(values))))

    weight = 0.0 if not trained else 1.0 if weights is None else weights(turn)
    return records.Example(
        tokens=np.asarray((*stretch.lead, *stretch.body), np.int32),
        loss_mask=field(float(trained), np.float32),
        weights=field(weight, np.float32),
        old_logprobs=field(kept(turn.logprobs), np.float32),
        ref_logprobs=np.zeros(head + body, np.float32),
        steps=field(kept(step_ids(turn)), np.int32),
        turns=np.full(head + body, index + 1, np.int32),
        roles=np.full(head + body, records.ROLES.index(turn.role), np.int32),
    )


def _known(role: str) -> str:
    if role not in records.ROLES[1:]:
        near = difflib.get_close_matches(role, records.ROLES[1:], n=1, cutoff=0.0)
        raise ValueError(f'role={role!r} is none of {records.ROLES[1:]}; nearest is {near[0]!r}')
    return role
