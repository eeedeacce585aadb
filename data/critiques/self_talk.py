"""Self-talk: attempt, critique and correction in one text (arXiv 2411.16579, section 6 of METHODS).

Each line of an attempt is followed by what is said of it and, where that is `wrong`, by the line
that takes its place:

    ben : eve 7 - 4 = 2 ; ben 2
     ben : eve - 4 ; eve 7 ; 7 - 4 = 3 ; ben 2 - 3 = 9 ; wrong
     ben : eve 7 - 4 = 3 ; ben 3
     ben : eve - 4 ; eve 7 ; 7 - 4 = 3 ; ben 3 - 3 = 0 ; correct
     #### 3
     answer : ben 3 - 3 = 0 ; correct

In the released grammar a remark is the three labelled lines of a step, or the two of the answer.
"""

from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data.critiques import grammars
from elenchus.data.critiques.grammars import Critique, Grammar, StepVerdict

_ANSWER = '####'


class Said(NamedTuple):
    """A line of an attempt, and the remark on it; '' where there is none."""

    line: str
    remark: str


def judged(said: Said, grammar: Grammar) -> bool | None:
    """Whether the remark calls its line correct; None where it gives no clear verdict."""
    critique = grammar.parse(said.remark)
    return critique.steps[0].correct if critique.steps else critique.final_correct


def told(attempt: str, critique: Critique, grammar: Grammar) -> list[Said] | None:
    """An attempt's lines with their remarks, up to the first that is wrong.

    None where a line up to there has no clear verdict, or could itself be read as a remark.
    """
    *steps, answer = lines_of(attempt) or ['']
    found = []
    for line, step in zip(steps, critique.steps, strict=False):
        found.append(Said(line, _of_step(step, grammar)))
        if step.correct is not True:
            break
    else:
        if len(found) < len(steps):
            return None
        final = Critique((), critique.final_correct, _one_line(critique.final_explanation))
        found.append(Said(answer, grammar.write(final)))
    clear = judged(found[-1], grammar) is not None
    return found if clear and split(join(found, grammar), grammar) == found else None


def join(parts: Sequence[Said], grammar: Grammar) -> str:
    """The whole text; `split` takes it apart again."""
    lines = (line for said in parts for line in (said.line, *said.remark.split('\n')))
    return joined([line for line in lines if line], grammar)


def split(text: str, grammar: Grammar) -> list[Said]:
    """The lines of a text with their remarks; a remark before the first line is on ''."""
    parts: list[Said] = []
    for line in lines_of(text):
        if not is_remark(line, grammar):
            parts.append(Said(line, ''))
            continue
        last = parts.pop() if parts else Said('', '')
        parts.append(Said(last.line, f'{last.remark}\n{line}'.lstrip('\n')))
    return parts


def settled(text: str, grammar: Grammar) -> str:
    """The attempt that a text comes to: its lines without those that it calls wrong itself.

    The last answer line stays whatever is said of it.
    """
    parts = split(text, grammar)
    last = max((i for i, said in enumerate(parts) if _ANSWER in said.line), default=None)
    stays = [
        said.line for i, said in enumerate(parts) if i == last or judged(said, grammar) is not False
    ]
    return joined(stays, grammar)


def mistakes(text: str, grammar: Grammar) -> list[bool]:
    """Of every line of a text whether it is one of the attempt that the text calls wrong."""
    found = []
    for said in split(text, grammar):
        found += [judged(said, grammar) is False] if said.line else []
        found += [False] * len(lines_of(said.remark))
    return found


def corrections(text: str, grammar: Grammar) -> int:
    """How many of its lines a text calls wrong."""
    return sum(mistakes(text, grammar))


def is_remark(line: str, grammar: Grammar) -> bool:
    """Whether a line is part of a critique: labelled or, on the lab, ending with a verdict."""
    if grammar is grammars.RELEASED:
        return grammars.grammar_of(line) is grammars.RELEASED
    critique = grammar.parse(line)
    return critique.final_correct is not None or any(s.correct is not None for s in critique.steps)


def lines_of(text: str) -> list[str]:
    """Lines with something in them, without the space around them."""
    return [line.strip() for line in text.split('\n') if line.strip()]


def joined(lines: Sequence[str], grammar: Grammar) -> str:
    """Lines as the grammar's tokenizer spells them: on the lab a space follows each line break."""
    return ('\n ' if grammar is grammars.LAB else '\n').join(lines)


def _of_step(step: StepVerdict, grammar: Grammar) -> str:
    """The remark on one step, without a blank line and each field on a line of its own."""
    verdict = StepVerdict(_one_line(step.sentence), step.correct, _one_line(step.explanation))
    return grammar.write(Critique((verdict,), None, ''))


def _one_line(text: str) -> str:
    return ' '.join(text.split())
