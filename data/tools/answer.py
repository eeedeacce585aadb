"""What a tool answers."""

from typing import Literal, NamedTuple

ToolOutcome = Literal['answered', 'error', 'refused']
"""`error`: the call itself is wrong, and the text says how. `refused`: it may not, or too much."""


class Answer(NamedTuple):
    """The words that a model reads, and what they are."""

    text: str
    outcome: ToolOutcome = 'answered'
