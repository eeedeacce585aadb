"""Turns that pause while a model writes them: the host ends them, appends a text, or lets them be.

`sampling.pause` (engine/token_rules.py) says after which tokens a turn pauses; the function of
`sampling.after_pause` then says how it goes on. A text that it appends, and the end token of a turn
that it stops, are `forced` tokens: not sampled, and never trained. So are tokens that are drawn
again from a corrected state (corrections.py), and answers of tools (tools.py), for which a turn
pauses after its call.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from elenchus.data.records import ToolTurn, Turn
from elenchus.data.text import chat_templates, tool_turns
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.chat import Chat
from elenchus.data.tools import call_forms
from elenchus.data.tools.answer import Answer
from elenchus.data.tools.call_forms import Call
from elenchus.sampling import user_functions
from elenchus.sampling.corrections import Drawn, Paused
from elenchus.sampling.engine.requests import Completion, Request
from elenchus.sampling.slots import Slot
from elenchus.sampling.tools import ToolUse

FIELD = 'sampling.after_pause'


class Pause(NamedTuple):
    """What a function of `sampling.after_pause` gets besides the text of the turn so far."""

    role: str  # of the turn
    num_tokens: int  # of the turn so far, appended ones included
    appended: tuple[str, ...]  # texts that were appended to this turn
    # For a function with a `loss`: of the model's distribution at each token of the turn, in nats.
    entropies: tuple[float, ...] = ()
    redrawn: int = 0  # tokens of this turn that were drawn again


AfterPause = Callable[[str, Pause], bool | str | None]
"""(text of the turn so far, pause) -> True: go on; False: end the turn; a text: append it; of a
function with a `loss`, None: draw the last token again, from a corrected state (corrections.py)."""

AFTER_PAUSES = Slot(
    '(text, pause) -> True to go on, False to stop, or a text to append',
    {'stop': lambda text, pause: False},
)


@dataclasses.dataclass
class _Writing:
    """A turn that is being written."""

    role: str
    request: Request
    tokens: list[int]
    logprobs: list[float] | None  # None: not all tokens before were sampled
    forced: list[int]
    tools: list[ToolTurn] = dataclasses.field(default_factory=list)
    appended: list[str] = dataclasses.field(default_factory=list)
    redrawn: int = 0

    def add(self, tokens: Sequence[int], logprobs: Sequence[float]) -> None:
        """Adds sampled tokens."""
        self.tokens += tokens
        if self.logprobs is not None:
            self.logprobs += logprobs

    def force(self, tokens: Sequence[int]) -> None:
        """Adds tokens that were not sampled: they follow with probability 1."""
        self.forced += range(len(self.tokens), len(self.tokens) + len(tokens))
        self.add(tokens, [0.0] * len(tokens))

    def redraw(self, token: int) -> None:
        """Replaces the last token by one that the model's own distribution did not give."""
        self.tokens.pop()
        if self.logprobs:
            self.logprobs.pop()
        self.force([token])
        self.redrawn += 1

    def turn(self, chat: Chat) -> Turn:
        """Returns the turn so far."""
        turn = chat.sampled_turn(self.role, self.tokens, self.logprobs or (), tools=self.tools)
        return dataclasses.replace(turn, forced=tuple(self.forced))

    def text(self, chat: Chat, *, all_of_it: bool) -> str:
        """Returns the text of the turn, or of what is behind the last tool's turn."""
        first = 0 if all_of_it or not self.tools else self.tools[-1].end
        return chat.text(chat.sampled_turn(self.role, self.tokens[first:], ()))


def appended_ids(chat: Chat, text: str, function: Callable, *, field: str) -> list[int]:
    """Returns the ids of a text that a function appends to a turn.

    Raises ValueError, naming the function, if the vocabulary lacks a word.
    """
    ids = tokenizers.encode_continuation(chat.tokenizer, text)
    read = chat.tokenizer.decode(ids)
    if read.split() != text.split():
        wanted = f'a text that the vocabulary has behind another; this one would be {read!r}'
        user_functions.refuse(function, text, wanted, field=field)
    return ids


class Writer(NamedTuple):
    """What goes on with turns that pause."""

    chat: Chat
    generate: Callable[[list[Request]], list[Completion]]
    after_pause: AfterPause | None
    limit: int  # longest turn in tokens
    tools: ToolUse | None = None  # who answers calls; then no function decides
    draw_again: Callable[[Sequence[Paused]], list[Drawn]] | None = None  # of a corrected state

    def finish(self, turns: Sequence[Turn], requests: Sequence[Request]) -> list[Turn]:
        """Returns the finished turns; turns[i] is what requests[i] has sampled so far.

        The noise of a token depends on its position, so a turn that pauses and goes on is the turn
        that never paused.
        """
        writings = [
            _Writing(
                turn.role,
                request,
                list(turn.tokens),
                list(turn.logprobs) if turn.logprobs else None,
                list(turn.forced),
                list(turn.tools),
            )
            for turn, request in zip(turns, requests, strict=True)
        ]
        paused = [w for w in writings if self._is_paused(w)]
        while paused:
            if self.tools is None:
                drawn = self._draw_again(paused)
                going_on = [w for w, d in zip(paused, drawn, strict=True) if self._decide(w, d)]
            else:
                going_on = self._call_tools(paused)
            again = [self._request(w) for w in going_on]
            for w, completion in zip(going_on, self.generate(again) if again else (), strict=True):
                w.add(completion.tokens, completion.logprobs)
            paused = [w for w in going_on if self._is_paused(w)]
        return [w.turn(self.chat) for w in writings]

    def _is_paused(self, writing: _Writing) -> bool:
        """Returns whether a turn is neither at its end token, but for a call, nor at its limit."""
        if len(writing.tokens) >= self.limit:
            return False
        if writing.tokens[-1] != self.chat.end_id:
            return True
        return self._call(writing) is not None if self._calls_end_messages else False

    @property
    def _calls_end_messages(self) -> bool:
        return self.tools is not None and self.tools.ends_messages

    def _call(self, writing: _Writing) -> Call | None:
        """Returns the call with which a turn ends so far."""
        if self._calls_end_messages and writing.tokens[-1] != self.chat.end_id:
            return None
        calls = self.tools.calls
        return calls.find(writing.text(self.chat, all_of_it=calls.is_plain))

    def _call_tools(self, paused: Sequence[_Writing]) -> list[_Writing]:
        """Answers the calls of turns, all at once; returns the turns that go on."""
        calls = [(w, call) for w in paused if (call := self._call(w)) is not None]
        most = self.tools.max_calls
        allowed = [(w, call) for w, call in calls if len(w.tools) < most]
        answers = iter(self.tools.answer([call for _, call in allowed]) if allowed else ())
        for w, call in calls:
            is_allowed = len(w.tools) < most
            refusal = Answer(f'refused: at most {most} calls in a turn', 'refused')
            answer = next(answers) if is_allowed else refusal
            if answer.outcome == 'answered' or not self.tools.calls.is_plain:
                self._append(w, call, answer)
        return [w for w in paused if len(w.tokens) < self.limit]

    def _append(self, writing: _Writing, call: Call, answer: Answer) -> None:
        """Appends a tool's turn, as far as the turn's limit lets it."""
        lead = tail = 0
        if self._calls_end_messages:
            form, ids = self.chat.template.tool, self.chat.piece_ids
            content = call_forms.as_content(answer.text, form)
            tokens = ids(chat_templates.joined((*form.header, content, *form.footer)))
            # A tokenizer may merge the words with the line breaks around them.
            lead = _common(tokens, ids(form.header))
            tail = _common(tokens[::-1], ids(form.footer, follows=True)[::-1])
        else:
            text = call.before + answer.text + call.after
            tokens = tool_turns.continuation_ids(self.chat.tokenizer, text)
        start, room = len(writing.tokens), self.limit - len(writing.tokens)
        missing = max(0, len(tokens) - room)
        writing.force(tokens[:room])
        lead, tail = min(lead, room), max(0, tail - missing)
        end = len(writing.tokens)
        writing.tools.append(ToolTurn(call.name, answer.outcome, start, end, lead, tail))

    def _draw_again(self, paused: Sequence[_Writing]) -> Sequence[Drawn | None]:
        """Draws the last tokens of turns from corrected states, if the function has a loss."""
        if self.draw_again is None:
            return [None] * len(paused)
        before = [self._request(w) for w in paused]
        return self.draw_again([Paused(r.prompt[:-1], r.id, r.opening - 1) for r in before])

    def _decide(self, writing: _Writing, drawn: Drawn | None) -> bool:
        """Appends or replaces what the function says; returns whether the turn goes on.

        Raises ValueError, naming the function, for a value of another kind.
        """
        text = self.chat.text(writing.turn(self.chat))
        pause = Pause(
            writing.role,
            len(writing.tokens),
            tuple(writing.appended),
            drawn.entropies if drawn else (),
            writing.redrawn,
        )
        choice = self.after_pause(text, pause)
        if choice is False:
            writing.force([self.chat.end_id])
        elif isinstance(choice, str) and choice:
            room = self.limit - len(writing.tokens)
            ids = appended_ids(self.chat, choice, self.after_pause, field=FIELD)
            writing.force(ids[:room])
            writing.appended.append(choice)
        elif choice is None and drawn:
            writing.redraw(drawn.token)
        elif choice is not True:
            wanted = 'True to go on, False to stop, or a text to append'
            user_functions.refuse(self.after_pause, choice, wanted, field=FIELD)
        return self._is_paused(writing)

    def _request(self, writing: _Writing) -> Request:
        first = writing.request
        before = first.prompt[: len(first.prompt) - first.opening]
        count = len(writing.tokens)
        return Request(first.id, (*before, *writing.tokens), self.limit - count, opening=count)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Returns the length of the longest common beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
