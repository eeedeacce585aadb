"""The published chat template of a tokenizer, as a text and what it may use."""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

from elenchus.data.text import jinja_sandbox

DATES = (datetime.datetime(2001, 2, 3, 4, 5), datetime.datetime(2031, 11, 22, 13, 47))
"""Two dates, under which a template that may be used writes the same."""


@dataclasses.dataclass(frozen=True)
class Source:
    """The published template of a tokenizer, and the texts of tokens that it may use."""

    text: str  # jinja
    tokens: tuple[tuple[str, str], ...] = ()  # such as ('bos_token', '<s>')
    variables: tuple[tuple[str, Any], ...] = ()  # such as ('enable_thinking', False)

    def render(
        self,
        messages: Sequence[tuple[str, str]],
        *,
        prompt: bool,
        now: datetime.datetime = DATES[0],
    ) -> str:
        """Returns the text of messages (role, content). Raises RenderError if it is refused."""
        pairs = [{'role': role, 'content': content} for role, content in messages]
        return self.render_all(pairs, prompt=prompt, now=now)

    def render_all(
        self,
        messages: jinja_sandbox.Messages,
        *,
        prompt: bool = True,
        now: datetime.datetime = DATES[0],
    ) -> str:
        """Returns the text of messages with any fields. Raises RenderError if it is refused."""
        return jinja_sandbox.render(
            self.text,
            messages,
            add_generation_prompt=prompt,
            variables=dict(self.tokens) | dict(self.variables),
            now=now,
        )
