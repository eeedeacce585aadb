"""Derives from a published chat template how a call of a tool and its answer are written."""

import json
from collections.abc import Callable

from elenchus.data.text import template_marks as marks
from elenchus.data.text.chat_templates import Pieces, ToolForm
from elenchus.data.text.jinja_sandbox import Messages, RenderError

Render = Callable[[Messages], str]
"""Messages -> text that ends with the header of an assistant's message."""


def derive(render: Render, start: str, end: str, *, pieces: Callable[[str], Pieces]) -> ToolForm:
    """Returns the form for tools.

    Args:
        render: the published template.
        start: what stands before the words of the assistant's first message.
        end: text of the token that ends it.
        pieces: cuts a text at special tokens.

    Raises RenderError if the template refuses messages of tools, or drops them.
    """
    text = render(marks.tool_turns(marks.TOOL))
    if text.count(marks.TOOL) != 1 or not text.startswith(start):
        raise RenderError('it has no messages of tools')
    before, footer = text.split(marks.TOOL)
    at, after, arguments = _find_call(before, len(start))
    closing, has_end, header = before[after:].partition(end)
    if not has_end:
        raise RenderError('a call does not end its message')
    shown = render(marks.tool_turns(marks.QUOTED))
    is_quoted = json.dumps(marks.QUOTED) in shown
    if is_quoted:
        header, footer = header.removesuffix('"'), footer.removeprefix('"')
    elif marks.QUOTED not in shown:
        raise RenderError('it changes what a tool says')
    opening = before[len(start) : at]
    return ToolForm(opening, closing, arguments, pieces(header), pieces(footer), is_quoted)


def _find_call(text: str, first: int) -> tuple[int, int, str]:
    """Returns start and end of the call's JSON object, and the name of its arguments."""
    at = text.find('{', first)
    while at >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, at)
        except ValueError:
            value, end = None, at
        if isinstance(value, dict) and value.pop('name', None) == marks.TOOL_NAME:
            names = [name for name, v in value.items() if v == marks.TOOL_ARGUMENTS]
            if len(names) == len(value) == 1:
                return at, end, names[0]
        at = text.find('{', at + 1)
    raise RenderError('it writes no call as a JSON object of a name and arguments')
