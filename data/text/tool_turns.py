"""Turns of tools inside a player's turn: their ids, where a turn may end, where it may be cut."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from elenchus.data.records import Step, ToolTurn, Turn
from elenchus.data.text import tokenizer as tokenizers
from elenchus.data.text.message_ids import Ids

if TYPE_CHECKING:
    from elenchus.data.text.chat import Chat
    from elenchus.data.tools.call_forms import Calls


def check_end(tokens: Ids, end_id: int, tools: Sequence[ToolTurn]) -> None:
    """Raises ValueError if an end token is neither the last token nor of a tool's turn.

    Under a template's own form a call ends a message, with the end token before the tool's turn.
    """
    if end_id not in tokens[:-1]:
        return
    allowed = {i for tool in tools for i in range(tool.start - 1, tool.end)}
    for at, token in enumerate(tokens[:-1]):
        if token == end_id and at not in allowed:
            raise ValueError(
                f'end token at index {at} of {len(tokens)} sampled tokens; cut the turn there'
            )


def with_tools(turn: Turn, tools: tuple[ToolTurn, ...]) -> Turn:
    """Returns a turn with turns of tools among its tokens, which are never trained."""
    turn = dataclasses.replace(turn, tools=tools)
    forced = tuple(map(int, np.flatnonzero(turn.is_of_tool())))
    return dataclasses.replace(turn, forced=forced, steps=_steps(turn))


def _steps(turn: Turn) -> tuple[Step, ...]:
    """Returns the lines of a turn as another player reads it: the ends of messages are none."""
    framed = [tool for tool in turn.tools if tool.lead or tool.tail]
    if not framed or not turn.steps:
        return turn.steps
    ends = set(turn.step_ends)
    for tool in framed:
        start, end = tool.text_span
        ends = {x for x in ends if not (tool.start <= x <= start or end <= x <= tool.end)}
        ends |= ({start} if start < end else set()) | {tool.end}
    return tuple(map(Step, sorted(ends | {len(turn.tokens)})))


def encode(
    tokenizer: tokenizers.Tokenizer, role: str, text: str, *, calls: 'Calls | None'
) -> tuple[Ids, tuple[ToolTurn, ...]]:
    """Returns the ids of a turn's text, and the tools' turns in it.

    What a player and a tool write are encoded apart, as where they are sampled.
    """
    if calls is None or role not in calls.roles:
        return tuple(tokenizer.encode(text)), ()
    ids, tools = (), []
    for name, part in calls.split(text):
        start = len(ids)
        ids += continuation_ids(tokenizer, part) if start else tuple(tokenizer.encode(part))
        if name:
            tools.append(ToolTurn(name, 'answered', start, len(ids)))
    return ids, tuple(tools)


def continuation_ids(tokenizer: tokenizers.Tokenizer, text: str) -> Ids:
    """Returns the ids of a text behind another, whatever it begins with.

    Other than encode_continuation it never refuses: what a tool says is not chosen by a user.
    """
    for after in ('a', '\n', '1', '='):
        with contextlib.suppress(ValueError):  # the tokenizer merges both
            return tuple(tokenizers.encode_continuation(tokenizer, text, after=after))
    return tuple(tokenizer.encode(text))


def quoted_ids(tokens: Ids, tools: Sequence[ToolTurn], tokenizer: tokenizers.Tokenizer) -> Ids:
    """Returns a turn's ids as another player reads it: the ends of messages are line breaks."""
    framed = [tool for tool in tools if tool.lead or tool.tail]
    if not framed:
        return tokens
    line_break = tuple(tokenizers.encode_continuation(tokenizer, '\n'))
    result, at = (), 0
    for tool in framed:
        start, end = tool.text_span
        # The end token of the call is the last one before the tool's turn.
        result += tokens[at : tool.start - 1] + line_break + tokens[start:end]
        result += line_break if tool.end < len(tokens) else ()
        at = tool.end
    return result + tokens[at:]


def prefix(chat: 'Chat', turn: Turn, end: int) -> Turn:
    """Returns a turn's first tokens, as an opening; a tool's turn is never cut, but kept whole."""
    end = next((tool.end for tool in turn.tools if tool.start < end < tool.end), end)
    tools = tuple(tool for tool in turn.tools if tool.end <= end)
    first = chat.sampled_turn(turn.role, turn.tokens[:end], turn.logprobs[:end], tools=tools)
    return dataclasses.replace(first, forced=tuple(i for i in turn.forced if i < end))
