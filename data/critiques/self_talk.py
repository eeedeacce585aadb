"""Self-talk: attempt, critique and correction in one text.

Source: arXiv 2411.16579; docs/methods.md, "Self-talk".

Each line of an attempt is followed by a remark, which judges it. After a remark that ends with
`wrong` comes the line that replaces it:

    ben : eve 7 - 4 = 2 ; ben 2
     ben : eve - 4 ; eve 7 ; 7 - 4 = 3 ; ben 2 - 3 = 9 ; wrong
     ben : eve 7 - 4 = 3 ; ben 3
     ben : eve - 4 ; eve 7 ; 7 - 4 = 3 ; ben 3 - 3 = 0 ; correct
     #### 3
     answer : ben 3 - 3 = 0 ; correct

In free text a remark is the three labelled lines of a step, or the two of the answer.
"""

from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data.critiques import grammars
from elenchus.data.critiques.grammars import Critique, Grammar, StepVerdict

_ANSWER = '####'


class RemarkedLine(NamedTuple):
    """A line of an attempt and the remark on it."""

    line: str  # '' if a text begins with a remark
    remark: str  # '' if the line has no remark


def verdict_of(part: RemarkedLine, grammar: Grammar) -> bool | None:
    """Returns the remark's verdict, True for correct; None without a clear verdict."""
    critique = grammar.parse(part.remark)
    return critique.steps[0].correct if critique.steps else critique.final_correct


def lines_with_remarks(
    attempt: str, critique: Critique, grammar: Grammar
) -> list[RemarkedLine] | None:
    """Returns an attempt's lines with their remarks, up to the first wrong line.

    Returns None if one of these lines has no clear verdict or would itself parse as a remark.
    """
    *steps, answer = nonempty_lines(attempt) or ['']
    parts = []
    for line, step in zip(steps, critique.steps, strict=False):
        parts.append(RemarkedLine(line, _step_remark(step, grammar)))
        if step.correct is not True:
            break
    else:
        if len(parts) < len(steps):
            return None
        final = Critique((), critique.final_correct, _one_line(critique.final_explanation))
        parts.append(RemarkedLine(answer, grammar.write(final)))
    clear = verdict_of(parts[-1], grammar) is not None
    # The round trip fails if `split` would take a line for a remark.
    return parts if clear and split(join(parts, grammar), grammar) == parts else None


def join(parts: Sequence[RemarkedLine], grammar: Grammar) -> str:
    """Returns lines and remarks as one text; `split` is the inverse."""
    lines = (line for part in parts for line in (part.line, *part.remark.split('\n')))
    return join_lines([line for line in lines if line], grammar)


def split(text: str, grammar: Grammar) -> list[RemarkedLine]:
    """Splits a text into lines with remarks; a remark before the first line belongs to line ''."""
    parts: list[RemarkedLine] = []
    for line in nonempty_lines(text):
        if not is_remark(line, grammar):
            parts.append(RemarkedLine(line, ''))
            continue
        last = parts.pop() if parts else RemarkedLine('', '')
        parts.append(RemarkedLine(last.line, f'{last.remark}\n{line}'.lstrip('\n')))
    return parts


def corrected_attempt(text: str, grammar: Grammar) -> str:
    """Returns the attempt that a self-talk ends with: its lines without those it calls wrong.

    The last answer line is kept whatever its remark says, so that there is an answer to grade.
    """
    parts = split(text, grammar)
    last = max((i for i, part in enumerate(parts) if _ANSWER in part.line), default=None)
    lines = [
        part.line
        for i, part in enumerate(parts)
        if i == last or verdict_of(part, grammar) is not False
    ]
    return join_lines(lines, grammar)


def rejected_lines(text: str, grammar: Grammar) -> list[bool]:
    """Returns a flag per line of a text: True for lines of the attempt that it calls wrong."""
    flags = []
    for part in split(text, grammar):
        flags += [verdict_of(part, grammar) is False] if part.line else []
        flags += [False] * len(nonempty_lines(part.remark))
    return flags


def count_corrections(text: str, grammar: Grammar) -> int:
    """Counts the lines that a text calls wrong."""
    return sum(rejected_lines(text, grammar))


def is_remark(line: str, grammar: Grammar) -> bool:
    """Returns True if a line is part of a critique: it has a label or, on the lab, a verdict."""
    if grammar in (grammars.RELEASED, grammars.WORKED):
        return grammars.grammar_of(line) is grammars.RELEASED
    critique = grammar.parse(line)
    return critique.final_correct is not None or any(s.correct is not None for s in critique.steps)


def nonempty_lines(text: str) -> list[str]:
    """Returns the lines of a text that are not blank, stripped."""
    return [line.strip() for line in text.split('\n') if line.strip()]


def join_lines(lines: Sequence[str], grammar: Grammar) -> str:
    """Joins lines; on the lab with a space after each line break, as its tokenizer decodes."""
    return ('\n ' if grammar is grammars.LAB else '\n').join(lines)


def _step_remark(step: StepVerdict, grammar: Grammar) -> str:
    """Writes the remark on one step: no blank lines, and each field on a separate line."""
    verdict = StepVerdict(_one_line(step.sentence), step.correct, _one_line(step.explanation))
    return grammar.write(Critique((verdict,), None, ''))


def _one_line(text: str) -> str:
    return ' '.join(text.split())
