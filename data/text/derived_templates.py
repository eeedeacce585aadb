"""Derives a Template from the chat template that a model publishes with its tokenizer.

The published template is a jinja program that renders whole conversations to text. This module
renders conversations whose messages are marks and cuts the text at the marks: the parts between
them are the headers and footers of a Template. A template whose headers and footers are not always
the same, or that changes the text of a user, is refused with the reason.
"""

import dataclasses
import itertools
import json
import os
import re
from collections.abc import Collection, Sequence
from typing import Any

from etils import epath

from elenchus.data.files import jsonl, text_files
from elenchus.data.text import chat_templates, derived_tools
from elenchus.data.text import template_marks as marks
from elenchus.data.text.chat_templates import Frame, Pieces, Special, Template
from elenchus.data.text.jinja_sandbox import RenderError
from elenchus.data.text.template_source import DATES, Source

AUTO, NO_THINKING = 'auto', 'auto:no_thinking'
"""Names of derived templates: as published, and with `enable_thinking` false."""

NAMES = (AUTO, NO_THINKING)
VARIABLES = {AUTO: {}, NO_THINKING: {'enable_thinking': False}}

# Tags that a model writes itself: they stay text, and are read back, if the file lets them.
THOUGHTS = re.compile(r'</?think(ing)?>')
_TOKENS = ('bos_token', 'eos_token', 'unk_token', 'pad_token')


def to_json(source: Source) -> str:
    """Returns a source as a JSON text, for the models and runs that use it."""
    return json.dumps(dataclasses.asdict(source), ensure_ascii=False)


def from_json(text: str) -> Source:
    """Returns the source of a JSON text; the inverse of `to_json`."""
    values = jsonl.at_place('the saved chat template', jsonl.parse_object, text)
    try:
        pairs = {name: tuple(map(tuple, values[name])) for name in ('tokens', 'variables')}
        return Source(values['text'], **pairs)
    except (KeyError, TypeError):
        raise ValueError(
            'the saved chat template is damaged: it needs text, tokens and variables'
        ) from None


def read_source(folder: str | os.PathLike, *, name: str = AUTO) -> Source:
    """Reads the chat template of a tokenizer's folder; see `derive`.

    chat_template.jinja, else `chat_template` of tokenizer_config.json: a text, or a list of named
    ones, of which `default` is taken. Raises ValueError if there is none.
    """
    folder = epath.Path(folder)
    config_path, text_path = folder / 'tokenizer_config.json', folder / 'chat_template.jinja'
    config = {}
    if config_path.is_file():
        config = jsonl.read_object(config_path)
    text = config.get('chat_template')
    if text_path.is_file():
        text = text_files.unix_lines(text_files.read_text(text_path))
    if isinstance(text, list):
        named = (item for item in text if isinstance(item, dict) and item.get('name') == 'default')
        text = next(named, {}).get('template')
    if not isinstance(text, str) or not text.strip():
        raise ValueError(
            f'{folder} has no chat_template (neither {text_path.name} nor in {config_path.name}), '
            'so no template can be derived from it'
        )
    tokens = {key: _token_text(config.get(key)) for key in _TOKENS}
    present = tuple((key, value) for key, value in tokens.items() if value is not None)
    return Source(text, present, tuple(VARIABLES[name].items()))


def _token_text(value: Any) -> str | None:
    """Returns the text of a token of tokenizer_config.json, which may be an object."""
    return value.get('content') if isinstance(value, dict) else value


def derive(
    source: Source, added: Collection[str], *, name: str = AUTO, adds_space: bool = False
) -> Template:
    """Returns the Template with the headers and footers of a published template.

    Args:
        source: the published template.
        added: texts of the tokenizer's special and other added tokens.
        name: of the template.
        adds_space: the tokenizer puts a space before a text. Then a space that the template writes
            before each answer, but not at the end of a prompt, is taken for this space.

    Raises ValueError, with the reason in one line, if it cannot be cut.
    """
    try:
        return _Cutter(source, added, adds_space=adds_space).template(name)
    except RenderError as error:
        raise ValueError(f'the chat template cannot be used: {error}') from None


class _Cutter:
    """Cuts the texts of one published template."""

    def __init__(self, source: Source, added: Collection[str], *, adds_space: bool):
        self.source, self.adds_space = source, adds_space
        ordered = sorted(added, key=len, reverse=True)
        self.tokens = re.compile('|'.join(map(re.escape, ordered)) or '(?!)')

    def template(self, name: str) -> Template:
        """Returns the template. Raises RenderError with the reason if it cannot be cut."""
        self._check_dates()
        self._check_variables()
        head, prompt = self._cut(marks.turns(1), prompt=True)
        first, between, follow, last, ending = self._frames(head, prompt)
        end = next((i for i, p in enumerate(ending) if isinstance(p, Special)), None)
        if end is None:
            raise RenderError('no special token ends an answer')
        ending = ending[: end + 1]
        rest = _after(last, chat_templates.text_of(ending))
        if rest is None:
            raise RenderError('a later message follows an answer without its end token')
        header = self._common_end(head, rest)
        footer = self._common_start(between, first)
        assistant = Frame(
            self._pieces(between[len(footer) :]),
            (ending[-1], *self._pieces(rest[: len(rest) - len(header)])),
        )
        template = Template(
            name,
            ending=ending,
            start=self._pieces(head[: len(head) - len(header)]),
            user=Frame(self._pieces(header), self._pieces(footer)),
            assistant=assistant,
            prefix=self._pieces(follow),
            trims=self._trims(),
            source=self.source,
            tool=self._tool(head + marks.USERS[0] + between, chat_templates.text_of(ending)),
        )
        self._check_contents(head, prompt)
        return self._with_system(template, head=head, header=header, prompt=prompt)

    def _check_dates(self) -> None:
        texts = {self.source.render(marks.turns(1), prompt=True, now=now) for now in DATES}
        if len(texts) > 1:
            raise RenderError(
                "it writes today's date (strftime_now), so prompts would change from day to day; "
                "name a template without date, such as 'llama3.1' with its fixed one"
            )

    def _check_variables(self) -> None:
        """Raises RenderError if a variable such as enable_thinking is without effect."""
        for name, value in self.source.variables:
            others = tuple((key, not v if key == name else v) for key, v in self.source.variables)
            other = dataclasses.replace(self.source, variables=others)
            if other.render(marks.turns(3), prompt=True) == self.source.render(
                marks.turns(3), prompt=True
            ):
                raise RenderError(f'it does not know {name}={value}; nearest: template={AUTO!r}')

    def _frames(self, head: str, prompt: str) -> tuple[str, str, str, str, Pieces]:
        """Returns (after a last user, user to answer, prefix, answer to user, after an answer)."""
        first = self._cut(marks.turns(1), prompt=False)[-1]
        *_, after = self._cut(marks.turns(2), prompt=False)
        three = self._cut(marks.turns(3), prompt=True)
        five = self._cut(marks.turns(5), prompt=True)
        between, last = three[1], three[2]
        if three != [head, between, last, prompt] or five != [
            *(head, between, last, between, last, prompt)
        ]:
            raise RenderError('the text around a message depends on its place in the conversation')
        prefix = _after(prompt, between)
        if prefix is None and self.adds_space and between == prompt + ' ':
            between, prefix = prompt, ''
        if prefix is None:
            raise RenderError(
                f'an answer is prompted by {prompt[-40:]!r}, but earlier answers follow '
                f'{between[-40:]!r}'
            )
        return first, between, prefix, last, self._pieces(after)

    def _cut(self, messages: Sequence[tuple[str, str]], *, prompt: bool) -> list[str]:
        """Returns what stands before, between and after the messages' contents."""
        text = self.source.render(messages, prompt=prompt)
        parts = []
        for role, content in messages:
            if text.count(content) != 1:
                if self._takes_parts():
                    raise RenderError(
                        'its messages are lists of parts, of texts and images; a text alone is '
                        'not written'
                    )
                raise RenderError(
                    f'it writes the text of a message of the {role} {text.count(content)} times, '
                    'or in another order'
                )
            before, text = text.split(content)
            parts.append(before)
        return [*parts, text]

    def _takes_parts(self) -> bool:
        """Returns whether a message is written if it is a list of parts, as of image models."""
        parts = [{'type': 'text', 'text': marks.USERS[0]}]
        try:
            return marks.USERS[0] in self.source.render([('user', parts)], prompt=True)
        except RenderError:
            return False

    def _common_end(self, head: str, rest: str) -> str:
        """Returns the header of a user's message: the end of what precedes each of them.

        It begins with a special token if it has one, so that both can be encoded apart.
        """
        pieces = self._pieces(rest)
        ends = [chat_templates.text_of(pieces[i:]) for i in range(len(pieces))]
        fitting = [
            (isinstance(pieces[i], Special), end)
            for i, end in enumerate(ends)
            if head.endswith(end)
        ]
        special = [end for is_special, end in fitting if is_special]
        if special or fitting:
            return special[0] if special else fitting[0][1]
        return os.path.commonprefix([head[::-1], rest[::-1]])[::-1]

    def _common_start(self, between: str, last: str) -> str:
        """Returns what ends a user's message, of the text between it and an answer.

        It is what ends the last message; where more ends that one, the pieces that both have.
        """
        if between.startswith(last):
            return last
        pairs = zip(self._pieces(between), self._pieces(last), strict=False)
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
        return chat_templates.text_of(tuple(piece for piece, _ in same))

    def _trims(self) -> tuple[str, ...]:
        """Returns the roles whose messages lose the white space around them."""
        trimmed = []
        user = self._shown(('user', marks.USERS[0]), ())
        if user not in (marks.padded(marks.USERS[0]), marks.USERS[0]):
            raise RenderError('it removes white space at one end of a message')
        if user == marks.USERS[0]:
            trimmed.append('user')
        padded = marks.padded(marks.ASSISTANTS[0])
        answer = self._shown(('assistant', marks.ASSISTANTS[0]), [('user', marks.USERS[0])])
        if answer not in (padded, padded.strip(), padded.rstrip()):
            raise RenderError('it changes white space in an answer')
        if answer != padded:
            end = '' if answer == padded.strip() else chat_templates.END
            trimmed.append(f'assistant{end}')
        return tuple(trimmed)

    def _shown(self, message: tuple[str, str], before: Sequence[tuple[str, str]]) -> str:
        """Returns how white space around a message is written, with the message."""
        role, content = message
        after = [('user', marks.USERS[1])] if role == 'assistant' else []
        plain, padded = (
            self.source.render([*before, (role, text), *after], prompt=True)
            for text in (content, marks.padded(content))
        )
        start, end = plain.split(content)
        if not padded.startswith(start) or not padded.endswith(end):
            return ''
        return padded[len(start) : len(padded) - len(end)]

    def _tool(self, start: str, end: str) -> chat_templates.ToolForm | None:
        try:
            render = self.source.render_all
            return derived_tools.derive(render, start, end, pieces=self._pieces)
        except RenderError:
            return None

    def _check_contents(self, head: str, prompt: str) -> None:
        """Raises RenderError if the text of a user changes what is written."""
        for probe in marks.PROBES:
            text = self.source.render([('user', probe)], prompt=True)
            if text != head + probe + prompt:
                raise RenderError(f'what it writes depends on the text of a user: {probe[:40]!r}')

    def _with_system(self, template: Template, *, head: str, header: str, prompt: str) -> Template:
        """Adds the system message: its frame, and the one that is written if none is given."""
        try:
            before, middle, after = self._cut(
                [('system', marks.SYSTEM), *marks.turns(1)], prompt=True
            )
            later = self._cut([('system', marks.SYSTEM), *marks.turns(3)], prompt=True)
        except RenderError:
            return template  # refuses or drops system messages
        if after != prompt or later[:2] != [before, middle]:
            return template  # has no place of its own, such as in the last message
        joins = not (header and middle.endswith(header))
        footer = middle if joins else middle[: len(middle) - len(header)]
        padded = self.source.render(
            [('system', marks.padded(marks.SYSTEM)), *marks.turns(1)], prompt=True
        )
        trims = ('system',) if padded.startswith(before + marks.SYSTEM + middle) else ()
        template = dataclasses.replace(
            template,
            system_frame=Frame(self._pieces(before), self._pieces(footer)),
            system_start=(),
            system_joins_user=joins,
            trims=(*template.trims, *trims),
        )
        default = '' if joins else _between(head, before, middle)
        if not default:
            return template
        bos = dict(self.source.tokens).get('bos_token')
        is_start = bool(bos) and before.startswith(bos) and not header.startswith(bos)
        start = self._pieces(bos) if is_start else ()
        return dataclasses.replace(template, start=start, system=default, default_system=default)

    def _pieces(self, text: str) -> Pieces:
        """Cuts a text at the tokenizer's tokens."""
        pieces, place = [], 0
        for match in self.tokens.finditer(text):
            pieces += [text[place : match.start()], Special(match.group())]
            place = match.end()
        return tuple(piece for piece in (*pieces, text[place:]) if piece != '')


def _after(text: str, start: str) -> str | None:
    """Returns what follows `start` in a text; None if the text begins otherwise."""
    return text[len(start) :] if text.startswith(start) else None


def _between(head: str, before: str, after: str) -> str:
    """Returns the text between two others that `head` consists of; '' if it does not."""
    fits = head.startswith(before) and head.endswith(after)
    is_longer = len(head) > len(before) + len(after)
    return head[len(before) : len(head) - len(after)] if fits and is_longer else ''
