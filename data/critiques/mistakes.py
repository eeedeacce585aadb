"""Flawed attempts by rule: one mistake of a named kind at a line of a correct attempt.

On the lab the kinds are those that `lab.judge` tells apart:

- operation: the sign is turned round; operand: another quantity or digit, or its value looked up
  wrong; arithmetic: another value.
- skipped: the line is left out. The next line, which builds on it, stands in its place with a value
  that is made up.
- target: the answer line gives the value of another quantity.

In free text, whose steps nobody can check by rule:

- number: one number of the line is another.
- operands: the operands of its subtraction or division are the wrong way round, and the result is
  what that gives.
- dropped: the line is left out. The next line, which uses a number that only this line reached,
  stands in its place.
"""

import dataclasses
import difflib
import fractions
import operator
import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from elenchus.data.grading import answers
from elenchus.data.lab import task
from elenchus.data.records import Problem

TEXT_KINDS = ('number', 'operands', 'dropped')
LEFT_OUT = ('skipped', 'dropped')
"""Kinds whose line is missing: the line after it stands in its place."""


def kinds(problem: Problem) -> tuple[str, ...]:
    """The kinds of mistake that can be made in attempts at a problem."""
    return task.KINDS if problem.source == 'lab' else TEXT_KINDS


def insert(
    problem: Problem, lines: Sequence[str], at: int, kind: str, *, rng: random.Random
) -> list[str] | None:
    """`lines[:at]` and the mistaken line, from which an attempt can be continued.

    `lines` are those of a correct attempt, `attempt.split('\\n')`, the answer's last. What returns
    has at + 1 lines, the last of which is wrong; where it is the answer line (kind 'target', or the
    last step skipped), the attempt is whole. None where no mistake of the kind can be made there.
    Raises ValueError on a kind that the problem has not, or a line that there is not.
    """
    if kind not in kinds(problem):
        near = difflib.get_close_matches(kind, kinds(problem), n=1, cutoff=0.0)
        raise ValueError(f'kind={kind!r} is none of {kinds(problem)}; nearest is {near[0]!r}')
    if not 0 <= at < len(lines):
        raise ValueError(f'at={at} must be from 0 to {len(lines) - 1}, an index of the lines')
    on_lab = problem.source == 'lab'
    wrong = (
        _lab_line(problem, lines, at, kind, rng) if on_lab else _TEXT[kind](problem, lines, at, rng)
    )
    if wrong is None:
        return None
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    return [*lines[:at], indent + wrong.strip()]


def corrupt(problem: Problem, *, rng: random.Random) -> str:
    """A whole flawed attempt: the reference with one mistake, of a random kind on the lab.

    There it is carried on to the answer by rule; elsewhere one number is changed and the rest
    stays. Raises ValueError where no mistake can be made.
    """
    lines = problem.solution.split('\n')
    on_lab = problem.source == 'lab'
    tried = rng.sample(task.KINDS, len(task.KINDS)) if on_lab else TEXT_KINDS[:1]
    for kind in tried:
        for at in rng.sample(range(len(lines)), len(lines)):
            begun = insert(problem, lines, at, kind, rng=rng)
            if begun is not None:
                rest = lines[at + 1 + (kind in LEFT_OUT) :]
                carried = _carry_on(problem.question, begun, rest, rng) if on_lab else rest
                return '\n'.join([*begun, *carried])
    raise ValueError(f'{problem.id}: the solution has no number to change')


# The lab


class _Place(NamedTuple):
    """A step of a lab attempt, the step after it (None: the answer), and what is told before."""

    step: task.Step | None
    following: task.Step | None
    values: dict[str, int]
    names: tuple[str, ...]
    target: str


def _lab_line(problem: Problem, lines: Sequence[str], at: int, kind: str, rng) -> str | None:
    """The mistaken line; None where the judge does not find this mistake at this line."""
    last = len(lines) - 1
    if (at == last) != (kind == 'target') or (kind == 'skipped' and last < 2):
        return None
    statements, target = task.parse_question(problem.question)
    step, following = (task.parse_step(line) for line in (*lines, '')[at : at + 2])
    values = _told(problem.question, lines[:at])
    wrong = _LAB[kind](_Place(step, following, values, tuple(statements), target), rng)
    if wrong is None:
        return None
    whole = [wrong] if at + (kind == 'skipped') == last else [wrong, '']
    judged = task.judge(problem.question, '\n'.join([*lines[:at], *whole]))
    return wrong if (judged.first_error, judged.kind) == (at, kind) else None


def _told(question: str, lines: Sequence[str]) -> dict[str, int]:
    """Values that the question and some lines of an attempt state."""
    statements, _ = task.parse_question(question)
    values = {s.name: s.digit for s in statements.values() if s.base is None}
    return values | {step.name: step.value for step in map(task.parse_step, lines) if step}


def _worked(step: task.Step, values: dict[str, int], rng) -> task.Step:
    """The step with the value that follows from what is told, made up where its base is not."""
    statement = task.Statement(step.name, step.base, step.sign, step.digit)
    base_value = values[step.base] if step.base in values else rng.randrange(10)
    return dataclasses.replace(step, base_value=base_value, value=statement.value(base_value))


def _carry_on(question: str, begun: Sequence[str], rest: Sequence[str], rng) -> list[str]:
    """The rest of an attempt with the values that follow from what it has begun with."""
    values, carried = _told(question, begun), []
    for line in rest[:-1]:
        step = _worked(task.parse_step(line), values, rng)
        values[step.name] = step.value
        carried.append(f' {step.text()}')
    target = task.parse_question(question)[1]
    return [*carried, f' #### {values[target]}'] if rest else []


def _operation(place: _Place, rng) -> str:
    turned = dataclasses.replace(place.step, sign='-' if place.step.sign == '+' else '+')
    return _worked(turned, place.values, rng).text()


def _operand(place: _Place, rng) -> str:
    step = place.step
    others = [name for name in place.names if name not in (step.name, step.base)]
    changed = rng.choice(('base', 'digit', 'look-up') if others else ('digit', 'look-up'))
    if changed == 'look-up':
        values = place.values | {step.base: (step.base_value + rng.randrange(1, 10)) % 10}
        return _worked(step, values, rng).text()
    if changed == 'base':
        other = dataclasses.replace(step, base=rng.choice(others))
    else:
        other = dataclasses.replace(step, digit=(step.digit + rng.randrange(1, 10)) % 10)
    return _worked(other, place.values, rng).text()


def _arithmetic(place: _Place, rng) -> str:
    value = (place.step.value + rng.randrange(1, 10)) % 10
    return dataclasses.replace(place.step, value=value).text()


def _skipped(place: _Place, rng) -> str | None:
    """The line after the one left out; the judge finds whether it builds on it."""
    if place.following is None:
        return f'#### {rng.randrange(10)}'
    return _worked(place.following, place.values, rng).text()


def _target(place: _Place, rng) -> str | None:
    right = place.values.get(place.target)
    others = [value for name, value in place.values.items() if value != right]
    return f'#### {rng.choice(others)}' if others else None


_LAB: dict[str, Callable] = {
    'operation': _operation,
    'operand': _operand,
    'arithmetic': _arithmetic,
    'skipped': _skipped,
    'target': _target,
}


# Free text

_NUMBERING = re.compile(r'\s*\**(?:step\s+)?[0-9]+\s*[.:)]\**\s', re.IGNORECASE)
_NUMBER = rf'(?:{answers.NUMBER_IN_TEXT.pattern})'
_EQUATION = re.compile(
    rf'(?P<left>\$?{_NUMBER})\s*(?P<sign>[-+*/×÷])\s*(?P<right>\$?{_NUMBER})'
    rf'\s*=\s*\$?(?P<result>{_NUMBER})'
)
_OPERATIONS = {
    '+': operator.add,
    '-': operator.sub,
    '*': operator.mul,
    '×': operator.mul,
    '/': operator.truediv,
    '÷': operator.truediv,
}


def _value(number: str) -> fractions.Fraction:
    return fractions.Fraction(number.replace(',', '').lstrip('$'))


def _result(equation: re.Match, left: str, right: str) -> fractions.Fraction | None:
    """What the equation's operation gives; None for a division by zero."""
    a, b = _value(equation[left]), _value(equation[right])
    if equation['sign'] in '/÷' and not b:
        return None
    return _OPERATIONS[equation['sign']](a, b)


def _holds(equation: re.Match) -> bool:
    return _result(equation, 'left', 'right') == _value(equation['result'])


def _another_number(problem: Problem, lines: Sequence[str], at: int, rng) -> str | None:
    """The line with one number changed; not in its numbering, nor to an equation that holds too."""
    line = lines[at]
    numbering = _NUMBERING.match(line)
    numbers = list(answers.NUMBER_IN_TEXT.finditer(line, numbering.end() if numbering else 0))
    for number in rng.sample(numbers, len(numbers)):
        whole, point, decimals = number[0].partition('.')
        value = int(whole.replace(',', '') or 0) + rng.choice((1, 2, 10))
        told = (f'{value:,}' if ',' in whole else str(value)) + point + decimals
        changed = line[: number.start()] + told + line[number.end() :]
        equations = _EQUATION.finditer(changed)
        if not any(e.start() <= number.start() < e.end() and _holds(e) for e in equations):
            return changed
    return None


def _turned_round(problem: Problem, lines: Sequence[str], at: int, rng) -> str | None:
    """The line with the operands of one equation exchanged, and its result wherever it stands."""
    line = lines[at]
    equations = [e for e in _EQUATION.finditer(line) if e['sign'] in '-/÷' and _holds(e)]
    for equation in rng.sample(equations, len(equations)):
        was, now = _value(equation['result']), _result(equation, 'right', 'left')
        if now is None or now == was:
            continue
        start, end = equation.start(), equation.end('right')
        sign = line[equation.end('left') : equation.start('right')]
        stated = f'{float(now):.2f}'.rstrip('0').rstrip('.')
        rest = ''.join(
            stated if answers.NUMBER_IN_TEXT.fullmatch(part) and _value(part) == was else part
            for part in re.split(f'({_NUMBER})', line[end:])
        )
        return line[:start] + equation['right'] + sign + equation['left'] + rest
    return None


def _dropped(problem: Problem, lines: Sequence[str], at: int, rng) -> str | None:
    """The line after, where it is a step and uses a number that is told in this line alone."""
    if at + 2 >= len(lines):
        return None
    told = {_value(n) for text in (problem.question, *lines[:at]) for n in answers.numbers(text)}
    reached = {_value(n) for n in answers.numbers(lines[at])} - told
    used = {_value(n) for n in answers.numbers(lines[at + 1])}
    return lines[at + 1] if reached & used else None


_TEXT: dict[str, Callable] = {
    'number': _another_number,
    'operands': _turned_round,
    'dropped': _dropped,
}
