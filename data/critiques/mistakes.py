"""Inserts one mistake of a known kind into a line of a correct attempt, by rule.

On the lab the kinds are those that `lab.task.judge` distinguishes:

- operation: plus instead of minus, or minus instead of plus.
- operand: another quantity or digit, or a wrong value of the right quantity.
- arithmetic: a wrong result.
- skipped: the line is omitted; the next line, which depends on it, takes its place with an invented
  value.
- target: the answer line states the value of another quantity.
- fact: a wrong digit for a constant that the question names.

In free text, whose steps no rule can check:

- number: one number of the line is changed.
- operands: the operands of a subtraction or division are swapped, and the result is recomputed.
- dropped: the line is omitted; the next line, which uses a number that only this line states,
  takes its place.
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
OMISSION_KINDS = ('skipped', 'dropped')
"""Kinds that omit a line: the line after it takes its place."""


class NoMistakeError(ValueError):
    """No mistake can be inserted into a solution."""


def kinds(problem: Problem) -> tuple[str, ...]:
    """Returns the kinds of mistakes that `insert` supports for a problem."""
    if problem.source != 'lab':
        return TEXT_KINDS
    statements, _ = task.parse_question(problem.question)
    facts = (task.FACT,) if any(s.constant for s in statements.values()) else ()
    return (*task.MISTAKE_KINDS, *facts)


def insert(
    problem: Problem, lines: Sequence[str], at: int, *, kind: str, rng: random.Random
) -> list[str] | None:
    """Returns `lines[:at]` followed by a wrong line, from which an attempt can be continued.

    `lines` are those of a correct attempt, `attempt.split('\\n')`; the last is the answer line. The
    result has at + 1 lines, of which the last is wrong. If that line is the answer (kind 'target',
    or the last step skipped), the attempt is complete. Returns None if no mistake of the kind is
    possible at this line. Raises ValueError on an unknown kind or a line index out of range.
    """
    if kind not in kinds(problem):
        near = difflib.get_close_matches(kind, kinds(problem), n=1, cutoff=0.0)
        raise ValueError(
            f'unknown kind={kind!r}; valid: {kinds(problem)}; did you mean {near[0]!r}?'
        )
    if not 0 <= at < len(lines):
        raise ValueError(f'at={at} must be an index of the lines, 0 to {len(lines) - 1}')
    make_wrong = _lab_line if problem.source == 'lab' else _text_line
    wrong = make_wrong(problem, lines, at, kind=kind, rng=rng)
    if wrong is None:
        return None
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    return [*lines[:at], indent + wrong.strip()]


def corrupt(problem: Problem, *, rng: random.Random, first_kind: str | None = None) -> str:
    """Returns a complete flawed attempt: the reference solution with one mistake.

    `first_kind` is used if it is a kind of the problem and possible at any line. Otherwise the kind
    is random on the lab, and 'number' elsewhere. On the lab the later lines are recomputed from the
    mistake; elsewhere they are unchanged. Raises NoMistakeError if no mistake is possible.
    """
    lines = problem.solution.split('\n')
    on_lab = problem.source == 'lab'
    candidates = (
        rng.sample(task.MISTAKE_KINDS, len(task.MISTAKE_KINDS)) if on_lab else TEXT_KINDS[:1]
    )
    first = (first_kind,) if first_kind in kinds(problem) else ()
    for kind in (*first, *candidates):
        for at in rng.sample(range(len(lines)), len(lines)):
            prefix = insert(problem, lines, at, kind=kind, rng=rng)
            if prefix is not None:
                rest = lines[at + 1 + (kind in OMISSION_KINDS) :]
                if on_lab:
                    rest = _recompute(problem.question, prefix, rest, rng=rng)
                return '\n'.join([*prefix, *rest])
    raise NoMistakeError(f'{problem.id}: the solution has no number that could be changed')


# The lab


class _Place(NamedTuple):
    """A line of a lab attempt in its context."""

    step: task.Step | None  # None on the answer line
    following: task.Step | None  # the next line; None if that is the answer line
    values: dict[str, int]  # values stated by the question and the lines before
    names: tuple[str, ...]  # all quantities of the question
    target: str


def _lab_line(
    problem: Problem, lines: Sequence[str], at: int, *, kind: str, rng: random.Random
) -> str | None:
    """Returns the wrong line; None if the judge would not report this kind at this line."""
    last = len(lines) - 1
    # 'target' is possible only at the answer line; a skipped step needs a later step or answer.
    if (at == last) != (kind == 'target') or (kind == 'skipped' and last < 2):
        return None
    statements, target = task.parse_question(problem.question)
    step, following = (task.parse_step(line) for line in (*lines, '')[at : at + 2])
    values = _stated_values(problem.question, lines[:at])
    wrong = _LAB[kind](_Place(step, following, values, tuple(statements), target), rng)
    if wrong is None:
        return None
    # The judge takes the last line as the answer, so a wrong step is followed by an empty line.
    ending = [wrong] if at + (kind == 'skipped') == last else [wrong, '']
    judgement = task.judge(problem.question, '\n'.join([*lines[:at], *ending]))
    return wrong if (judgement.first_error, judgement.kind) == (at, kind) else None


def _stated_values(question: str, lines: Sequence[str]) -> dict[str, int]:
    """Returns, by name, the values that the question and these lines of an attempt state."""
    statements, _ = task.parse_question(question)
    values = {s.name: s.digit for s in statements.values() if s.base is None}
    return values | {step.name: step.value for step in map(task.parse_step, lines) if step}


def _worked(step: task.Step, values: dict[str, int], rng: random.Random) -> task.Step:
    """Returns the step recomputed from the stated values; an unknown base gets a random value."""
    statement = task.Statement(step.name, step.base, step.sign, step.digit, step.constant)
    base_value = values[step.base] if step.base in values else rng.randrange(10)
    return dataclasses.replace(step, base_value=base_value, value=statement.value(base_value))


def _recompute(
    question: str, prefix: Sequence[str], rest: Sequence[str], *, rng: random.Random
) -> list[str]:
    """Returns the rest of an attempt, recomputed from the values in `prefix`."""
    values, lines = _stated_values(question, prefix), []
    for line in rest[:-1]:
        step = _worked(task.parse_step(line), values, rng)
        values[step.name] = step.value
        lines.append(f' {step.text()}')
    target = task.parse_question(question)[1]
    return [*lines, f' #### {values[target]}'] if rest else []


def _operation(place: _Place, rng: random.Random) -> str:
    changed = dataclasses.replace(place.step, sign='-' if place.step.sign == '+' else '+')
    return _worked(changed, place.values, rng).text()


def _operand(place: _Place, rng: random.Random) -> str:
    step = place.step
    others = [name for name in place.names if name not in (step.name, step.base)]
    part = rng.choice(('base', 'digit', 'look-up') if others else ('digit', 'look-up'))
    if part == 'look-up':
        values = place.values | {step.base: (step.base_value + rng.randrange(1, 10)) % 10}
        return _worked(step, values, rng).text()
    if part == 'base':
        changed = dataclasses.replace(step, base=rng.choice(others))
    else:
        changed = dataclasses.replace(step, digit=(step.digit + rng.randrange(1, 10)) % 10)
    return _worked(changed, place.values, rng).text()


def _fact(place: _Place, rng: random.Random) -> str | None:
    if place.step.constant is None:
        return None
    changed = dataclasses.replace(place.step, digit=(place.step.digit + rng.randrange(1, 10)) % 10)
    return _worked(changed, place.values, rng).text()


def _arithmetic(place: _Place, rng: random.Random) -> str:
    value = (place.step.value + rng.randrange(1, 10)) % 10
    return dataclasses.replace(place.step, value=value).text()


def _skipped(place: _Place, rng: random.Random) -> str | None:
    """Returns the line after the omitted one; `_lab_line` checks that it depends on that."""
    if place.following is None:
        return f'#### {rng.randrange(10)}'
    return _worked(place.following, place.values, rng).text()


def _target(place: _Place, rng: random.Random) -> str | None:
    right = place.values.get(place.target)
    others = [value for name, value in place.values.items() if value != right]
    return f'#### {rng.choice(others)}' if others else None


_LAB: dict[str, Callable] = {
    'operation': _operation,
    'operand': _operand,
    'arithmetic': _arithmetic,
    'skipped': _skipped,
    'target': _target,
    task.FACT: _fact,
}


# Free text


def _text_line(
    problem: Problem, lines: Sequence[str], at: int, *, kind: str, rng: random.Random
) -> str | None:
    """Returns the wrong line; None if the line allows no mistake of the kind."""
    return _TEXT[kind](problem, lines, at, rng=rng)


_NUMBERING = re.compile(r'\s*\**(?:step\s+)?[0-9]+\s*[.:)]\**\s', re.IGNORECASE)
_NUMBER = rf'(?:{answers.NUMBER_IN_TEXT.pattern})'
EQUATION = re.compile(  # `first sign second = result`
    rf'(?P<first>\$?{_NUMBER})\s*(?P<sign>[-+*/×÷])\s*(?P<second>\$?{_NUMBER})'
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


def value_of(number: str) -> fractions.Fraction:
    """Returns the value of a number as text writes it."""
    return fractions.Fraction(number.replace(',', '').lstrip('$'))


def evaluate(equation: re.Match, first: str, second: str) -> fractions.Fraction | None:
    """Applies the equation's operation to two of its named groups; None for a division by zero."""
    return operate(equation['sign'], value_of(equation[first]), value_of(equation[second]))


def operate(sign: str, a: fractions.Fraction, b: fractions.Fraction) -> fractions.Fraction | None:
    """Applies the operation of an equation; None for a division by zero."""
    if sign in '/÷' and not b:
        return None
    return _OPERATIONS[sign](a, b)


def holds(equation: re.Match) -> bool:
    """Returns whether a match of EQUATION is true."""
    return evaluate(equation, 'first', 'second') == value_of(equation['result'])


def _change_number(
    problem: Problem, lines: Sequence[str], at: int, *, rng: random.Random
) -> str | None:
    """Changes one number of the line, so that no equation around it is true.

    A step number at the beginning of the line is not changed.
    """
    line = lines[at]
    numbering = _NUMBERING.match(line)
    numbers = list(answers.NUMBER_IN_TEXT.finditer(line, numbering.end() if numbering else 0))
    for number in rng.sample(numbers, len(numbers)):
        whole, point, decimals = number[0].partition('.')
        value = int(whole.replace(',', '') or 0) + rng.choice((1, 2, 10))
        changed_number = (f'{value:,}' if ',' in whole else str(value)) + point + decimals
        changed = line[: number.start()] + changed_number + line[number.end() :]
        if len(answers.numbers(changed)) != len(answers.numbers(line)):
            continue  # it would join its neighbour: (5,99) becomes (5,100)
        equations = EQUATION.finditer(changed)
        if not any(e.start() <= number.start() < e.end() and holds(e) for e in equations):
            return changed
    return None


def _exchange_operands(
    problem: Problem, lines: Sequence[str], at: int, *, rng: random.Random
) -> str | None:
    """Swaps the operands of one equation and updates its result in the rest of the line."""
    line = lines[at]
    equations = [e for e in EQUATION.finditer(line) if e['sign'] in '-/÷' and holds(e)]
    for equation in rng.sample(equations, len(equations)):
        old, new = value_of(equation['result']), evaluate(equation, 'second', 'first')
        if new is None or new == old:
            continue
        start, end = equation.start(), equation.end('second')
        sign = line[equation.end('first') : equation.start('second')]
        text = f'{float(new):.2f}'.rstrip('0').rstrip('.')
        rest = ''.join(
            text if answers.NUMBER_IN_TEXT.fullmatch(part) and value_of(part) == old else part
            for part in re.split(f'({_NUMBER})', line[end:])
        )
        return line[:start] + equation['second'] + sign + equation['first'] + rest
    return None


def _drop_line(
    problem: Problem, lines: Sequence[str], at: int, *, rng: random.Random
) -> str | None:
    """Returns the next line if it is a step and uses a number that first appears in this line."""
    if at + 2 >= len(lines):
        return None
    known = {value_of(n) for text in (problem.question, *lines[:at]) for n in answers.numbers(text)}
    reached = {value_of(n) for n in answers.numbers(lines[at])} - known
    used = {value_of(n) for n in answers.numbers(lines[at + 1])}
    return lines[at + 1] if reached & used else None


_TEXT: dict[str, Callable] = {
    'number': _change_number,
    'operands': _exchange_operands,
    'dropped': _drop_line,
}
