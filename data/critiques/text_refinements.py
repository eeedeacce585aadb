"""Refinements in free text that depend on their critique.

The critique of a flawed attempt states which number a step should have. In some examples that
number is false, and the refinement uses it and computes on from it, so it cannot be written without
reading the critique. See data/lab/conversations.py for the lab.
"""

import fractions
import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from elenchus.data.critiques import grammars, mistakes
from elenchus.data.critiques.grammars import Critique, Grammar, StepVerdict
from elenchus.data.grading import answers
from elenchus.data.records import Problem

FALSE_SHARE = 0.5  # share of critiques with a false number, if an answer follows from it
_NUMBER = re.compile(rf'(?<![\d.,]){answers.NUMBER_IN_TEXT.pattern}')


class Refinement(NamedTuple):
    """A flawed attempt at a problem, a critique of it, and what follows from both."""

    attempt: str
    critique: str
    refinement: str


def refine(
    problem: Problem, *, rng: random.Random, grammar: Grammar = grammars.RELEASED
) -> Refinement:
    """Changes one number of the reference solution, and corrects it as the critique says.

    Raises mistakes.NoMistakeError if the solution has no number that could be changed.
    """
    attempt = mistakes.corrupt(problem, rng=rng)
    lines, right = attempt.split('\n'), problem.solution.split('\n')
    at = next(i for i, pair in enumerate(zip(lines, right, strict=True)) if len(set(pair)) > 1)
    number = _changed_number(right[at], lines[at])
    rest = right[at:]
    stated = number
    # The lines before show what the answer line must state, so that is never false.
    if at < len(right) - 1 and rng.random() < FALSE_SHARE:
        avoided = answers.numbers(f'{problem.question}\n{attempt}')
        false = _other_number(number, rng, avoided=avoided)
        carried = _carry_on(rest, {number: false})
        # What does not follow from the false number stays as it was, so the answer must follow.
        if carried is not None and carried[-1] != rest[-1]:
            stated, rest = false, carried
    steps = [
        StepVerdict(line.strip(), i < at, 'This follows.' if i < at else f'It should be {stated}.')
        for i, line in enumerate(lines[: at + 1])
        if line.strip()
    ]
    critique = grammar.write(Critique(tuple(steps), False, ''))
    return Refinement(attempt, critique, '\n'.join([*lines[:at], *rest]))


def _changed_number(right: str, wrong: str) -> str:
    """Returns the number of a line that another line has changed."""
    pairs = zip(answers.numbers(right), answers.numbers(wrong), strict=True)
    return next(a for a, b in pairs if a != b)


def _other_number(number: str, rng: random.Random, *, avoided: Sequence[str]) -> str:
    """Returns a greater number of the same form that is none of `avoided`."""
    whole, point, decimals = number.partition('.')
    while True:
        value = int(whole.replace(',', '') or 0) + rng.randrange(3, 30)
        other = (f'{value:,}' if ',' in whole else str(value)) + point + decimals
        if other not in avoided:
            return other


def _carry_on(lines: Sequence[str], changed: dict[str, str]) -> list[str] | None:
    """Returns lines with changed numbers, and with all that true equations make of them.

    The first line states the change itself: a result that is changed there stays as it is stated.
    Returns None where a result is no number of the form of the old one.
    """
    result = []
    for i, line in enumerate(lines):
        for equation in filter(mistakes.holds, mistakes.EQUATION.finditer(line)):
            operands = [equation[name].lstrip('$') for name in ('first', 'second')]
            old = equation['result']
            if not changed.keys() & set(operands) or (i == 0 and old in changed):
                continue
            values = (mistakes.value_of(changed.get(n, n)) for n in operands)
            new = mistakes.operate(equation['sign'], *values)
            text = _like(old, new) if new is not None else None
            if text is None:
                return None
            changed = changed | {old: text}
        result.append(_NUMBER.sub(lambda m, c=changed: c.get(m[0], m[0]), line))
    return result


def _like(old: str, value: fractions.Fraction) -> str | None:
    """Writes a value in the form of another number; None if it has no such form."""
    decimals = len(old.partition('.')[2])
    scaled = value * 10**decimals
    if value < 0 or scaled.denominator != 1:
        return None
    return f'{float(value):{"," if "," in old else ""}.{decimals}f}'
