"""Renders chat templates, which are untrusted jinja programs, in a sandbox.

The environment has what `transformers` gives a template (`apply_chat_template`), so the texts are
the same: raise_exception, strftime_now, tojson without HTML escapes, loop controls, generation.
"""

import datetime
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

MAX_CHARACTERS = 1_000_000
"""Longest text that a template may write, so that a loop in it cannot fill the memory."""

Messages = Sequence[Mapping[str, Any]]

_ERRORS = (
    *(jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError),
    *(RecursionError, MemoryError),
)


class RenderError(ValueError):
    """A template refuses a conversation or fails on it; the message is one line."""


class _Generation(jinja2.ext.Extension):
    """Accepts {% generation %}, which marks an assistant's text, and writes what is in it."""

    tags = frozenset({'generation'})

    def parse(self, parser):
        """Parses the block; called by jinja."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


def render(
    template: str,
    messages: Messages,
    *,
    add_generation_prompt: bool,
    variables: Mapping[str, Any],
    now: datetime.datetime,
) -> str:
    """Returns the text of a conversation.

    Args:
        template: jinja text.
        messages: objects with `role` and `content`.
        add_generation_prompt: end with the header of an assistant's message.
        variables: such as bos_token, eos_token and enable_thinking.
        now: what strftime_now gives.

    Raises RenderError if the template refuses the conversation or fails.
    """
    compiled = _compile(template)
    clock: Callable[[str], str] = now.strftime
    values = {
        'messages': [dict(message) for message in messages],
        'tools': None,
        'documents': None,
        'add_generation_prompt': add_generation_prompt,
    }
    text, size = [], 0
    try:
        for part in compiled.generate(values | dict(variables) | {'strftime_now': clock}):
            text.append(part)
            size += len(part)
            if size > MAX_CHARACTERS:
                raise RenderError(f'the template writes more than {MAX_CHARACTERS} characters')
    except RenderError:
        raise
    except _ERRORS as error:
        raise RenderError(_one_line(error)) from None
    return ''.join(text)


@functools.lru_cache(maxsize=64)
def _compile(template: str) -> jinja2.Template:
    """Compiles a template. Raises RenderError if it is no jinja text."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
    )
    environment.filters['tojson'] = _tojson
    environment.globals['raise_exception'] = _raise_exception
    try:
        return environment.from_string(template)
    except (*_ERRORS, SyntaxError) as error:  # of Python, which jinja compiles to
        raise RenderError(f'no jinja text: {_one_line(error)}') from None


def _raise_exception(message: str):
    raise jinja2.TemplateError(message)


def _tojson(value, ensure_ascii=False, indent=None, *, separators=None, sort_keys=False):
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _one_line(error: BaseException) -> str:
    return ' '.join(str(error).split())[:200] or type(error).__name__
