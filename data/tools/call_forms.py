"""Forms of tool calls that a player writes, and of the answers inside its turn."""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from elenchus.data.files import jsonl
from elenchus.data.text.chat_templates import ToolForm
from elenchus.data.tools import calculator

CallForm = Literal['equation', 'annotation', 'fenced', 'tags', 'message']
"""`equation`: `7 - 4 =`; `annotation`: `<<48/2=`; `fenced`: a block ```python; `tags`: <python>;
`message`: the template's own form, in which a call ends a message of the player."""


class Call(NamedTuple):
    """A call of a tool."""

    name: str
    text: str  # input of the tool
    mistake: str = ''  # why the call is invalid, as text for the model; '' if it is valid
    before: str = ''  # text between the call and the answer
    after: str = ''  # text after the answer


@dataclasses.dataclass(frozen=True)
class Calls:
    """Finds the tool call at the end of a text."""

    form: CallForm
    names: tuple[str, ...]
    message: ToolForm | None = None  # of the template, for the form `message`
    roles: tuple[str, ...] = ('attempt', 'refinement')  # whose turns may call

    @property
    def last_character(self) -> str:
        """The character that the text of a call ends with; '' if a call ends its message."""
        last = {'equation': '=', 'annotation': '=>', 'fenced': '`', 'tags': '>', 'message': ''}
        return last[self.form]

    @property
    def is_plain(self) -> bool:
        """Whether calls and answers have no marks, only values, as in the form `equation`.

        Then a call may include an earlier answer, as `7 - 2 =` in `3 + 4 = 7 - 2 =`, and a call
        without a value stays unanswered: an error in words would not fit into an equation.
        """
        return self.form == 'equation'

    def find(self, text: str) -> Call | None:
        """Returns the call at the end of a text; None if there is none."""
        return getattr(self, f'_{self.form}')(text)

    def split(self, text: str) -> list[tuple[str, str]]:
        """Splits a text into (name, part): the tool of an answer, or '' for the player's own text.

        With the form `message`, answers are messages of their own, so there is one part.
        """
        parts, at = [], 0
        for name, start, end in _ANSWERS[self.form](text, self) if self.form in _ANSWERS else ():
            parts += [('', text[at:start]), (name, text[start:end])]
            at = end
        return [(name, part) for name, part in (*parts, ('', text[at:])) if part] or [('', '')]

    def samples(self) -> list[str]:
        """Returns example calls with answers, to check that a vocabulary can encode them."""
        texts = {
            'equation': [' 1 + 1 ='],
            'annotation': ['<<1+1='],
            'fenced': [f'```{name}\n1\n```' for name in self.names],
            'tags': [f'<{name}>1</{name}>' for name in self.names],
            'message': [],
        }
        calls = [(text, self.find(text)) for text in texts[self.form]]
        return [text + call.before + '1' + call.after for text, call in calls]

    def _equation(self, text: str) -> Call | None:
        line = text.rstrip(' ')
        expression = calculator.before_equals(line[:-1]) if line.endswith('=') else None
        if expression is None:
            return None
        space = ' ' if line[-2:-1] == ' ' and text == line else ''
        return Call(self.names[0], expression, before=space)

    def _annotation(self, text: str) -> Call | None:
        match = re.search(r'<<([^<>=\n]*)(=|>>)[ ]*$', text)
        if match is None:
            return None
        return Call(self.names[0], match[1], after='>>' if match[2] == '=' else '')

    def _fenced(self, text: str) -> Call | None:
        if not text.rstrip().endswith('```'):
            return None
        name, lines, is_closed = None, [], False
        for line in text.rstrip().split('\n'):
            mark, is_closed = line.strip(), False
            if name is None and mark.startswith('```'):
                name, lines = mark[3:].strip().lower(), []
            elif name is not None and mark == '```':
                is_closed, last, name = True, name, None
            elif name is not None:
                lines.append(line)
        if not is_closed or last not in self.names:
            return None
        return Call(last, '\n'.join(lines), before=_break(text) + '```output\n', after='\n```\n')

    def _tags(self, text: str) -> Call | None:
        names = '|'.join(map(re.escape, self.names))
        match = re.search(rf'<({names})>((?:(?!<\1>).)*)</\1>\s*$', text, re.DOTALL)
        if match is None:
            return None
        return Call(match[1], match[2].strip('\n'), before='<result>\n', after='\n</result>\n')

    def _message(self, text: str) -> Call | None:
        form = self.message
        opening, closing = form.opening.strip(), form.closing.strip()
        before, _, body = text.rpartition(opening) if opening else ('', '', text)
        if opening not in text or not (opening or text.lstrip().startswith('{')):
            return None
        if opening and opening in before:
            return Call(self.names[0], '', 'refused: one call in a message')
        body = body.partition(closing)[0] if closing else body
        name, argument, mistake = _read_call(body.strip(), form.arguments, self.names)
        if mistake.startswith('error: no object') and not opening:
            return None  # not a call, but a text that begins with a brace
        return Call(name, argument, mistake)


def _of_equations(text: str, calls: Calls) -> Iterator[tuple[str, int, int]]:
    for match in re.finditer(r'=([ ]*-?\d[\d,]*(?:\.\d+)?)(?![\d.])', text):
        if calls.find(text[: match.start() + 1]) is not None:
            yield calls.names[0], *match.span(1)


def _of_annotations(text: str, calls: Calls) -> Iterator[tuple[str, int, int]]:
    for match in re.finditer(r'<<[^<>=\n]*=([^<>\n]*>>)', text):
        yield calls.names[0], *match.span(1)


def _of_blocks(text: str, calls: Calls) -> Iterator[tuple[str, int, int]]:
    block = r'^[ ]*```(\w+)[ ]*\n(?:.*\n)*?[ ]*```[ ]*(\n+[ ]*```output[ ]*\n(?:.*\n)*?[ ]*```\n?)'
    for match in re.finditer(block, text, re.MULTILINE):
        if match[1].lower() in calls.names:
            yield match[1].lower(), *match.span(2)


def _of_tags(text: str, calls: Calls) -> Iterator[tuple[str, int, int]]:
    names = '|'.join(map(re.escape, calls.names))
    for match in re.finditer(rf'</({names})>(\s*<result>.*?</result>\n?)', text, re.DOTALL):
        yield match[1], *match.span(2)


_ANSWERS = {
    'equation': _of_equations,
    'annotation': _of_annotations,
    'fenced': _of_blocks,
    'tags': _of_tags,
}
"""Form -> (tool's name, start and end of each answer in a text)."""


def _break(text: str) -> str:
    return '' if text.endswith('\n') else '\n'


def _read_call(body: str, arguments: str, names: Sequence[str]) -> tuple[str, str, str]:
    """Returns name, text and mistake of a call as a JSON object."""
    form = f'{{"name": ..., "{arguments}": {{...}}}}'
    try:
        value = jsonl.parse_object(body)
    except ValueError:
        return names[0], '', f'error: no object {form} in JSON'
    name, values = value.get('name'), value.get(arguments)
    if not isinstance(name, str) or not isinstance(values, dict):
        return names[0], '', f'error: no object {form}'
    if name not in names:
        return names[0], '', f'error: no tool {name!r}; there are {", ".join(names)}'
    texts = [text for text in values.values() if isinstance(text, str)]
    if len(values) != 1 or len(texts) != 1:
        return name, '', f'error: {name} takes one argument, a text'
    return name, texts[0], ''


def as_content(text: str, form: ToolForm) -> str:
    """Returns an answer as the template writes the content of a tool's message."""
    return json.dumps(text, ensure_ascii=False) if form.quotes else text
