"""Refinements in free text that can only be read off their critique.

The critique of a flawed attempt says which number a step should reach, in half of the examples a
false one, and the refinement takes that number over. See data/lab/conversations.py for the lab.
"""

import random
import re
from typing import NamedTuple

from elenchus.data.critiques import grammars, mistakes
from elenchus.data.critiques.grammars import Critique, StepVerdict
from elenchus.data.grading import answers
from elenchus.data.records import Problem

FALSE_SHARE = 0.5  # of the critiques, whose number is not the reference's
_NUMBER = re.compile(rf'(?<![\d.,]){answers.NUMBER_IN_TEXT.pattern}')


class Refinement(NamedTuple):
    """A flawed attempt at a problem, a critique of it, and what follows from both."""

    attempt: str
    critique: str
    refinement: str


def refine(problem: Problem, *, rng: random.Random) -> Refinement:
    """Changes one number of the reference solution, and corrects it as the critique says.

    Raises ValueError if the solution has no number that could be changed.
    """
    attempt = mistakes.corrupt(problem, rng=rng)
    lines, right = attempt.split('\n'), problem.solution.split('\n')
    at = next(i for i, pair in enumerate(zip(lines, right, strict=True)) if len(set(pair)) > 1)
    number = _changed_number(right[at], lines[at])
    stated = _other_number(number, rng) if rng.random() < FALSE_SHARE else number
    steps = [
        StepVerdict(line.strip(), i < at, 'This follows.' if i < at else f'It should be {stated}.')
        for i, line in enumerate(lines[: at + 1])
        if line.strip()
    ]
    critique = grammars.RELEASED.write(Critique(tuple(steps), False, ''))
    rest = [_replace(line, number, stated) for line in right[at:]]
    return Refinement(attempt, critique, '\n'.join([*lines[:at], *rest]))


def _changed_number(right: str, wrong: str) -> str:
    """Returns the number of a line that another line has changed."""
    pairs = zip(answers.numbers(right), answers.numbers(wrong), strict=True)
    return next(a for a, b in pairs if a != b)


def _other_number(number: str, rng: random.Random) -> str:
    whole, point, decimals = number.partition('.')
    value = int(whole.replace(',', '') or 0) + rng.randrange(3, 30)
    return (f'{value:,}' if ',' in whole else str(value)) + point + decimals


def _replace(line: str, old: str, new: str) -> str:
    """Replaces a number wherever a line has it."""
    return _NUMBER.sub(lambda match: new if match[0] == old else match[0], line)
