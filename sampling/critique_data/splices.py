"""Splices: functions that make one text of wrong lines, remarks on them and right lines.

The slot `self_talk.splice`. The model of the stage `self_talk` learns to write such texts.
"""

from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data.critiques import self_talk
from elenchus.data.critiques.grammars import Grammar
from elenchus.data.critiques.self_talk import RemarkedLine
from elenchus.data.records import Problem
from elenchus.sampling import user_functions
from elenchus.sampling.slots import Slot

FIELD = 'self_talk.splice'


class TalkLine(NamedTuple):
    """A line of an attempt, in the order in which it was written or replaced."""

    line: str
    remark: str  # the critique's lines on it
    right: bool | None  # what the remark says; None if it has no clear verdict


def _talk(lines: Sequence[TalkLine], problem: Problem) -> str:
    """Returns every line with its remark behind it."""
    return '\n'.join(f'{part.line}\n{part.remark}' for part in lines)


SPLICES = Slot('(lines, problem) -> text', {'talk': _talk})
"""The lines are TalkLines of the attempt, wrong ones and those that replace them."""


def splice(name: str, parts: Sequence[RemarkedLine], problem: Problem, *, grammar: Grammar) -> str:
    """Returns the text of a talk. Raises ValueError if the function returns no text."""
    function = SPLICES.find(name, FIELD)
    lines = [TalkLine(p.line, p.remark, self_talk.verdict_of(p, grammar)) for p in parts]
    text = function(lines, problem)
    if not isinstance(text, str) or not text.strip():
        user_functions.refuse(function, text, 'a text that is not empty', field=FIELD)
    return self_talk.join_lines(self_talk.nonempty_lines(text), grammar)
