"""Converts conversations to token ids: prompts for sampling and sequences for training.

Under the template `elenchus` a conversation is

    <question> q <attempt> y </s> <critique> c </s> <refinement> y' </s>

chat_templates.py has the templates of model families. Headers are never trained; every turn that a
model writes ends with the end token.
"""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from elenchus.data import records
from elenchus.data.records import PLAYER_OF_ROLE, Step, ToolTurn, Turn
from elenchus.data.text import chat_templates, message_ids, prompted_chat, thoughts, tool_turns
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.message_ids import Ids
from elenchus.data.text.prompts import Prompts
from elenchus.data.text.turn_example import turn_example
from elenchus.data.text.turn_steps import step_ends

if TYPE_CHECKING:
    from elenchus.data.tools.call_forms import Calls


class RenderedTurn(NamedTuple):
    """A turn as one player reads it: the ids before its text, and the ids of its text."""

    lead: tuple[int, ...]
    body: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Chat:
    """A chat template applied with one tokenizer.

    Raises ValueError if the tokenizer lacks one of the template's special tokens.

    Example:
        >>> from elenchus.data.text import tokenizer
        >>> chat = Chat(tokenizer.lab_tokenizer())
        >>> question = chat.question_turns('eve 7 ; ben : eve - 4 ; ben ?')
        >>> chat.context(question, 'attempt')[-3:]  # 'ben', '?', then the header <attempt>
        [12, 39, 6]
        >>> attempt = chat.text_turn('attempt', 'ben : eve 7 - 4 = 3 ; ben 3\\n #### 3')
        >>> attempt.step_ends  # two lines, of 12 and 3 tokens
        (12, 15)
        >>> example = chat.example(
        ...     (*question, attempt), trained=('attempt',), weights=None, last_only=True
        ... )
        >>> example.tokens.shape, int(example.loss_mask.sum())  # only the attempt is trained
        ((28,), 15)
    """

    tokenizer: tokenizers.Tokenizer
    template: chat_templates.Template = chat_templates.ELENCHUS
    correction: str = chat_templates.CORRECTION  # instruction to refine an attempt uncriticised
    prompts: Prompts = Prompts()  # what the players are told besides the conversation
    calls: 'Calls | None' = None  # of tools: their answers in texts are turns of tools

    def __post_init__(self):
        for name in sorted(self.template.specials()):
            try:
                self.tokenizer.special(name)
            except ValueError as error:
                raise ValueError(f'template {self.template.name!r}: {error}') from None

    @functools.cached_property
    def end_id(self) -> int:
        """The end token of turns that models write."""
        return self._ending[-1]

    def header(self, role: str) -> tuple[int, ...]:
        """Returns the header of a role's turn for its writer. Raises ValueError if unknown."""
        frame = self.template.frame(role, PLAYER_OF_ROLE.get(_check_role(role)))
        return self.piece_ids(frame.header)

    def question_turns(self, question: str, guide: str | None = None) -> tuple[Turn, ...]:
        """Returns the actor's input: the question's turn and, with `guide`, the guide's.

        No model samples them, so their bodies have no end token.
        """
        texts = {'question': question} | ({} if guide is None else {'guide': guide})
        if 'user' in self.template.trims:  # a guide ends the same message
            texts['question'] = texts['question'].lstrip()
            *_, last = texts
            texts[last] = texts[last].rstrip()
        return tuple(
            Turn(role, self.header(role), tuple(self.tokenizer.encode(text)))
            for role, text in texts.items()
        )

    def text_turn(self, role: str, text: str) -> Turn:
        """Returns a finished turn with this text: its tokens, then the template's ending."""
        side = 'assistant' if role in PLAYER_OF_ROLE else 'user'
        # The actor reads a critique as a message of the user.
        if role != 'critique' or 'user' in self.template.trims:
            text = self.template.trimmed(side, text)
        tokens, tools = tool_turns.encode(self.tokenizer, role, text, calls=self.calls)
        return self._turn(role, (*tokens, *self._ending), (), tools=tools)

    def sampled_turn(
        self,
        role: str,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        *,
        tools: Sequence[ToolTurn] = (),
    ) -> Turn:
        """Returns a turn of sampled ids, unchanged; without end token if sampling was cut off.

        Ids are never re-encoded: others would not have the sampler's probabilities. Raises
        ValueError if the end token is not the last one, nor before a turn of a tool.
        """
        tokens = tuple(int(token) for token in tokens)
        tool_turns.check_end(tokens, self.end_id, tools)
        return self._turn(role, tokens, tuple(map(float, logprobs)), tools=tuple(tools))

    def render(self, turns: Sequence[Turn], role: str) -> list[RenderedTurn]:
        """Returns the turns as the player that writes `role` reads them.

        Under `elenchus` both players read the same ids. Under a family's template the headers
        depend on the reader: its own turns are assistant messages, with their sampled ids; other
        turns are quoted in user messages, where a question or guide is encoded together with the
        text that joins it to the next turn. An attempt and a refinement without a critique are
        separated by the instruction `correction`; two other turns of one player in a row raise
        ValueError. Under prompts the ids of a quoted turn are in the lead of its message's last.
        """
        player = PLAYER_OF_ROLE.get(_check_role(role))
        if self.prompts.concern(player):
            is_open = not turns or PLAYER_OF_ROLE.get(turns[-1].role) != player
            rendered, _ = prompted_chat.render(self, turns, role, is_open=is_open)
            return [RenderedTurn(*turn) for turn in rendered]
        if self.template.user is None:
            return [RenderedTurn(turn.header, turn.tokens) for turn in turns]
        rendered: list[RenderedTurn] = []
        for i, turn in enumerate(turns):
            before = turns[i - 1] if i else None
            # Two quoted turns in a row form one user message.
            joined = i + 1 < len(turns) and not (
                self.template.is_verbatim(turn.role, player)
                or self.template.is_verbatim(turns[i + 1].role, player)
            )
            lead = self._between(before, turn.role, player)
            if i + 1 == len(turns) and self.template.is_verbatim(turn.role, player):
                lead += self.piece_ids(self.template.prefix)
            body = self.body(turn, player, joined=joined)
            if not self.template.is_verbatim(turn.role, player):
                lead, body = self.merged(lead, body, is_first=before is None)
            rendered.append(RenderedTurn(lead, body))
        return rendered

    def context(self, turns: Sequence[Turn], role: str) -> list[int]:
        """Returns the prompt for sampling `role`'s next turn: all turns, then its header."""
        if self.prompts.concern(PLAYER_OF_ROLE.get(_check_role(role))):
            rendered, end = prompted_chat.render(self, turns, role, is_open=True)
            return [*(t for lead, body in rendered for t in (*lead, *body)), *end]
        tokens = [t for lead, body in self.render(turns, role) for t in (*lead, *body)]
        player = PLAYER_OF_ROLE.get(role)
        header = self._between(turns[-1] if turns else None, role, player)
        return [*tokens, *header, *self.piece_ids(self.template.prefix)]

    @functools.cached_property
    def overhead(self) -> int:
        """The largest number of ids between the bodies of two turns."""
        if self.template.user is None:
            return 1
        user, assistant = self.template.user, self.template.assistant
        seams = (
            user.footer + assistant.header + self.template.prefix,
            assistant.footer + user.header,
            (self.template.join,),
        )
        return max(len(self.piece_ids(seam)) for seam in seams)

    @functools.cached_property
    def correction_overhead(self) -> int:
        """The number of ids between the bodies of an attempt and a refinement that follows it."""
        return self.tokens_between(('attempt', 'refinement'))

    def tokens_between(self, roles: Sequence[str]) -> int:
        """The number of ids between the bodies of turns of these roles, as the last one sees it."""
        turns, ids = self.question_turns('0'), tuple(self.tokenizer.encode('0'))
        bodies = [Turn(role, self.header(role), ids) for role in roles[:-1]]
        read, all_read = self.context(turns, roles[0]), self.context((*turns, *bodies), roles[-1])
        return len(all_read) - len(read) - sum(len(turn.tokens) for turn in bodies)

    def text(self, turn: Turn) -> str:
        """Returns the text of a turn, without header and end token."""
        return self.tokenizer.decode(self.text_ids(turn))

    def is_finished(self, turn: Turn) -> bool:
        """Returns True if a turn ends with the end token."""
        return turn.ends_with(self.end_id)

    def example(
        self,
        turns: Sequence[Turn],
        *,
        trained: Collection[str],
        weights: Callable[[Turn], np.ndarray] | None,
        last_only: bool,
    ) -> records.Example:
        """Returns a conversation as one training sequence; see records.Example for its fields.

        The sequence is the conversation as the writer of the trained turns reads it.

        Args:
            turns: the conversation.
            trained: roles whose bodies are trained; headers never are.
            weights: turn -> weight of each of its tokens, [len(turn.tokens)]; None = 1. A token
                whose weight is NaN (unknown) is not trained.
            last_only: train only the last turn of these roles.

        Raises ValueError if no turn is trained, or if under a family's template the trained turns
        belong to both players.
        """
        roles = {_check_role(role) for role in trained}
        selected = [i for i, turn in enumerate(turns) if turn.role in roles]
        if not selected:
            present = sorted({turn.role for turn in turns})
            raise ValueError(
                f'trained={sorted(roles)} matches no turn; roles of the turns: {present}'
            )
        selected = selected[-1:] if last_only else selected
        self._check_one_player({turns[i].role for i in selected})
        turns = self._check_prompts(turns, selected)
        if self.template.prefix and selected != [len(turns) - 1]:
            raise ValueError(
                f'template {self.template.name!r} can train only the last turn: earlier ones are '
                f'read without {self.template.prefix[0]!r}; use the template chatml'
            )
        rendered = self.render(turns, turns[selected[0]].role)
        parts = [
            turn_example(turn, *r, index=i, weights=weights, trained=i in selected)
            for i, (turn, r) in enumerate(zip(turns, rendered, strict=True))
        ]
        return records.Example(*(np.concatenate(field) for field in zip(*parts, strict=True)))

    def _check_prompts(self, turns: Sequence[Turn], selected: Sequence[int]) -> Sequence[Turn]:
        """Returns the turns up to the last trained one; of those under prompts nothing follows.

        Raises ValueError if the last trained turn does not read an earlier one as it was written.
        """
        *earlier, last = selected
        if not self.prompts.concern(PLAYER_OF_ROLE.get(turns[last].role)):
            return turns
        is_quoted = prompted_chat.quotes_earlier(self, turns[:last], turns[last].role)
        if earlier and (is_quoted or self.prompts.thinking == 'strip'):
            cause = f'prompts.{turns[last].role}.instruction' if is_quoted else 'prompts.thinking'
            raise ValueError(f'{cause} can train only the last turn: it reads earlier ones changed')
        return turns[: last + 1]

    def _check_one_player(self, roles: set[str]) -> None:
        """Raises ValueError if a family's template is used and two players write these roles."""
        players = {PLAYER_OF_ROLE.get(role) for role in roles}
        if self.template.user and (len(players) > 1 or None in players):
            raise ValueError(
                f'trained={sorted(roles)}: under the template {self.template.name!r} actor and '
                'critic read different prompts; an example can train only one of them'
            )

    def _between(self, before: Turn | None, role: str, player: str | None) -> tuple[int, ...]:
        """Returns the ids between two bodies; with `before=None` those before the first body."""
        template = self.template
        header = self.piece_ids(template.frame(role, player).header)
        if before is None or template.user is None:
            joins = template.system_joins_user and template.system
            return self.piece_ids(template.opening) + (() if joins else header)
        footer = template.frame(before.role, player).footer
        is_verbatim = template.is_verbatim(before.role, player)
        if is_verbatim and template.is_verbatim(role, player):
            if role != 'refinement' or before.role != 'attempt':
                raise ValueError(
                    f'{role} cannot follow {before.role}: a turn of the other side is missing '
                    'between'
                )
            # As a user's message, which `_between` opens after the attempt and closes before this.
            (instruction,) = self.question_turns(self.correction)
            start = self._between(before, instruction.role, player)
            return start + instruction.tokens + self._between(instruction, role, player)
        if not is_verbatim and not template.is_verbatim(role, player):
            return ()  # one message: `_body` of the turn before ends with the join
        if is_verbatim and self.is_finished(before):
            return self.piece_ids(footer[1:]) + header  # the turn contains its end token already
        return self.piece_ids(footer, follows=True) + header

    def body(self, turn: Turn, player: str | None, *, joined: bool) -> tuple[int, ...]:
        """Returns a turn's text as ids, with the join to the next turn of its message."""
        if self.template.is_verbatim(turn.role, player):
            return turn.tokens
        ids, join = self.text_ids(turn), self.template.join
        if not joined:
            return ids
        if turn.role in PLAYER_OF_ROLE:  # may be sampled: its ids must not change
            return (*ids, *tokenizers.encode_continuation(self.tokenizer, join))
        return tuple(self.tokenizer.encode(self.tokenizer.decode(ids) + join))

    def merged(self, lead: Ids, ids: Ids, *, is_first: bool) -> tuple[Ids, Ids]:
        """Returns the ids before a user's text and of it; see message_ids.merged."""
        template = self.template
        if template.space:
            return lead, ids
        is_opening = is_first and template.system_joins_user and template.system
        header = template.opening if is_opening else template.user.header
        return message_ids.merged(self.tokenizer, header, ids, lead=lead)

    def text_ids(self, turn: Turn) -> tuple[int, ...]:
        """Returns a turn's tokens without the ending, of which a sample may have only the last."""
        tokens, size = turn.tokens, len(self._ending)
        if self.is_finished(turn):
            tokens = tokens[: -size if tokens[-size:] == self._ending else -1]
        return tool_turns.quoted_ids(tokens, turn.tools, self.tokenizer)

    @functools.cached_property
    def _ending(self) -> tuple[int, ...]:
        return self.piece_ids(self.template.ending, follows=True)

    def piece_ids(self, pieces: chat_templates.Pieces, *, follows: bool = False) -> tuple[int, ...]:
        """Returns the ids of a template's pieces; with `follows` they continue a turn's text."""
        return message_ids.template_ids(self.tokenizer, pieces, follows)

    @functools.cached_property
    def _blank(self) -> frozenset[int]:
        """Ids whose text is only line breaks and spaces, and the end token."""
        ids = (i for i in self.tokenizer.newline_ids if not self.tokenizer.decode([i]).strip())
        return frozenset((*ids, self.end_id))

    def _turn(self, role: str, tokens: Ids, logprobs: tuple, *, tools: tuple[ToolTurn, ...] = ()):
        ends = ()
        if role in PLAYER_OF_ROLE:  # only these turns consist of steps
            ends = step_ends(tokens, newlines=self.tokenizer.newline_ids, blank=self._blank)
            if self.prompts.thinking == 'strip':  # thoughts are a part of the first step
                ends = thoughts.without_thought_steps(tokens, ends, self.tokenizer)
        turn = Turn(role, self.header(role), tokens, logprobs, tuple(map(Step, ends)))
        return tool_turns.with_tools(turn, tools) if tools else turn


def _check_role(role: str) -> str:
    valid = records.TURN_ROLES
    if role not in valid:
        near = difflib.get_close_matches(role, valid, n=1, cutoff=0.0)
        raise ValueError(f'unknown role={role!r}; valid: {valid}; did you mean {near[0]!r}?')
    return role
