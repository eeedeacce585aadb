"""The lab: generated arithmetic problems in which a program can check every step.

A question names quantities; some are digits and the others are an earlier quantity plus or minus a
digit, modulo 10, and it asks for one of them. An attempt computes one quantity per line and ends
with `#### answer`. Because every line follows from the question by rule, the lab has unlimited
problems, an exact oracle critic and exact labels of the first wrong step, and models that run on a
CPU can learn it.

`generate_problem(seed=0, split='train', index=12)` asks:

    hal 1 ; lea 6 ; ada : lea + 7 ; max : hal - 1 ; fay : ada + 4 ; ben : fay + 9 ; ben ?

Its reference solution, one line per statement: statement with the base's value, sum, result:

    ada : lea 6 + 7 = 3 ; ada 3
     max : hal 1 - 1 = 0 ; max 0
     fay : ada 3 + 4 = 7 ; fay 7
     ben : fay 7 + 9 = 6 ; ben 6
     #### 6

The oracle's critique of it. A critique derives every line again, subtracts its result from that of
the attempt and judges by the difference; it stops at the first wrong line:

    ada : lea + 7 ; lea 6 ; 6 + 7 = 3 ; ada 3 - 3 = 0 ; correct
     max : hal - 1 ; hal 1 ; 1 - 1 = 0 ; max 0 - 0 = 0 ; correct
     fay : ada + 4 ; ada 3 ; 3 + 4 = 7 ; fay 7 - 7 = 0 ; correct
     ben : fay + 9 ; fay 7 ; 7 + 9 = 6 ; ben 6 - 6 = 0 ; correct
     answer : ben 6 - 6 = 0 ; correct

The level of a problem is the number of steps that its answer needs (here 3: `max` is a distractor).
A problem is a function of (seed, split, index). Splits are disjoint because the hash of a question
decides its split.

A value stands directly behind its name: a small transformer then looks it up by plain induction,
which it learns first. With a word between name and value it had not learnt this after 6M tokens.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence

from elenchus.data.lab import arithmetic

# fmt: off
NAMES = ('ada', 'ben', 'cal', 'dan', 'eve', 'fay', 'gus', 'hal', 'ida', 'jim', 'kim', 'lea', 'max',
         'ned', 'oda', 'pam')
CONSTANTS = {'gold': 79, 'iron': 26, 'lead': 82, 'salt': 11, 'wood': 6, 'zinc': 30}
"""Quantities that a question need not state: their values are the same in every question."""
WORDS = (*NAMES, *'0123456789', *':;?+-=', '####', 'answer', 'correct', 'wrong', '*', *CONSTANTS)
# fmt: on
SPLITS = ('train', 'validation', 'test', 'ood')
MISTAKE_KINDS = ('operation', 'operand', 'arithmetic', 'skipped', 'target')
"""Kinds of mistakes: wrong sign, wrong quantity or value looked up, wrong sum, a needed quantity
skipped, and an answer that is not the value of the target."""


@dataclasses.dataclass(frozen=True)
class Statement:
    """One part of a question: `name number` if base is None, else `name : base sign number`."""

    name: str
    base: str | None
    sign: str
    number: int
    modulus: int = 10

    def text(self) -> str:
        """Returns the statement as the question writes it."""
        number = arithmetic.write(self.number, self.modulus)
        if self.base is None:
            return f'{self.name} {number}'
        return f'{self.name} : {self.base} {self.sign} {number}'

    def value(self, base_value: int) -> int:
        """Returns the value of the quantity, given that of its base."""
        return arithmetic.apply(base_value, self.sign, self.number, modulus=self.modulus)

    def step(self, base_value: int, value: int | None = None) -> 'Step':
        """Returns the step that computes the quantity, with another value if one is given."""
        value = self.value(base_value) if value is None else value
        return Step(self.name, self.base, self.sign, self.number, base_value, value, self.modulus)


@dataclasses.dataclass(frozen=True)
class Step:
    """One line of an attempt, `name : base base_value sign number = value ; name value`."""

    name: str
    base: str
    sign: str
    number: int
    base_value: int
    value: int
    modulus: int = 10

    def text(self) -> str:
        """Returns the step as an attempt writes it; `parse_step` is the inverse."""
        base_value, number, value = (
            arithmetic.write(n, self.modulus) for n in (self.base_value, self.number, self.value)
        )
        equation = f'{base_value} {self.sign} {number} = {value}'
        return f'{self.name} : {self.base} {equation} ; {self.name} {value}'


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The result of checking one attempt by rule; the answer line counts as a line."""

    first_error: int | None  # index of the first wrong line, None if all are right
    kind: str | None  # of MISTAKE_KINDS, None if all lines are right
    critique: str  # the oracle's critique

    @property
    def correct(self) -> bool:
        """True if every line is right, the answer line included."""
        return self.first_error is None


def split_of(question: str) -> str:
    """Returns the split of a question, for any seed: 80 % train, 10 % validation, 10 % test."""
    bucket = hashlib.sha256(question.encode()).digest()[0] % 10
    return {8: 'validation', 9: 'test'}.get(bucket, 'train')


def solve(question: str) -> str:
    """Returns the reference solution: every step in the question's order, then the answer."""
    return complete(question, [])


def complete(question: str, lines: Sequence[str], *, values: Mapping[str, int] = {}) -> str:
    """Completes an attempt: the lines so far, every other step in order, then the answer.

    `values` replace the values of some quantities; what follows from them follows.
    """
    statements, target = parse_question(question)
    stated = [step for step in map(parse_step, lines) if step]
    known = known_values(question, {step.name: step.value for step in stated} | dict(values))
    present = {step.name for step in stated}
    steps = [
        s.step(known[s.base], known[s.name]).text()
        for s in statements.values()
        if s.base is not None and s.name not in present
    ]
    answer = arithmetic.write(known[target], statements[target].modulus)
    return '\n '.join([*(line.strip() for line in lines), *steps, f'#### {answer}'])


def derivation(statement: Statement, base_value: int, *, result: int | None = None) -> str:
    """Returns the small steps to a value: look-up of the base, then arithmetic in digits.

    With a `result`, the arithmetic ends falsely in that value.
    """
    modulus = statement.modulus
    operands = base_value, statement.sign, statement.number
    worked = arithmetic.work_out(*operands, modulus=modulus, result=result)
    return f'{statement.base} {arithmetic.write(base_value, modulus)} ; {worked}'


def known_values(question: str, stated: Mapping[str, int] = {}) -> dict[str, int]:
    """Returns the value of every quantity of a question, by name, constants included.

    Values in `stated` replace what would be computed.
    """
    values = dict(CONSTANTS)
    for s in parse_question(question)[0].values():
        computed = s.number if s.base is None else s.value(values[s.base])
        values[s.name] = stated.get(s.name, computed)
    return values


def parse_question(question: str) -> tuple[dict[str, Statement], str]:
    """Returns the statements by name, in order, and the name of the target."""
    *parts, request = question.split(' ; ')
    statements = {}
    for part in parts:
        name, *words = part.split()
        *relation, number = words
        _, base, sign = relation or (':', None, '+')
        statements[name] = Statement(name, base, sign, arithmetic.read(number), 10 ** len(number))
    return statements, request.removesuffix(' ?')


def modulus(question: str) -> int:
    """Returns the modulus of a question's numbers, 10 or 100."""
    statements, target = parse_question(question)
    return statements[target].modulus


def unstated_constants(question: str) -> list[str]:
    """Returns the constants that a question uses and does not state."""
    statements, _ = parse_question(question)
    return sorted({s.base for s in statements.values()} & CONSTANTS.keys() - statements.keys())


_STEP = re.compile(r'(\w+) : (\w+) (\d+) ([*+-]) (\d+) = (\d+) ; \1 \6')


def parse_step(line: str) -> Step | None:
    """Parses a line of an attempt; None if it is not a step, such as the answer line."""
    match = _STEP.fullmatch(line.strip())
    if match is None:
        return None
    numbers = map(arithmetic.read, match.group(5, 3, 6))
    step = Step(*match.group(1, 2, 4), *numbers, 10 ** len(match[6]))
    return step if step.text() == match[0] else None  # all numbers have the same width


def _parse_answer(line: str, *, modulus: int) -> int | None:
    """Returns the number of an answer line, None if it has none of the right width."""
    number = line.strip().removeprefix('#### ')
    is_answer = number.isdecimal() and number.isascii() and 10 ** len(number) == modulus
    return arithmetic.read(number) if is_answer and line.strip() != number else None


def judge(question: str, attempt: str) -> Judgement:
    """Checks an attempt line by line and writes the oracle's critique.

    A step is right if it copies the question's statement, the value of its base is known by then,
    and its own value is right. Right steps that the answer does not need are allowed. A malformed
    line is wrong.
    """
    statements, target = parse_question(question)
    known = CONSTANTS | {s.name: s.number for s in statements.values() if s.base is None}
    lines = []
    attempt_lines = attempt.split('\n')
    for i, line in enumerate(attempt_lines[:-1]):
        step = parse_step(line)
        if step and step.modulus != statements[target].modulus:
            step = None
        # A malformed line still names the quantity that it is about with its first word.
        name = step.name if step else line.split()[0] if line.split() else ''
        words, kind, value = _check_step(statements, known, name=name, step=step)
        lines.append(f'{words} ; {"wrong" if kind else "correct"}')
        if kind:
            return Judgement(i, kind, '\n '.join([*lines, 'answer : wrong']))
        known[name] = value
    final = _parse_answer(attempt_lines[-1], modulus=statements[target].modulus)
    right = target in known and final == known[target]
    check = '?'
    if final is not None and target in known:
        modulus = statements[target].modulus
        check = arithmetic.difference(known[target], final, modulus=modulus)
    lines.append(f'answer : {target} {check} ; {"correct" if right else "wrong"}')
    kind = None if right else 'skipped' if target not in known else 'target'
    return Judgement(None if right else len(attempt_lines) - 1, kind, '\n '.join(lines))


def explain(
    statement: Statement, base_value: int, *, stated: int | None, result: int | None = None
) -> str:
    """Writes a critique's words on a step: statement, derivation, comparison with its value.

    With a `result`, the derivation ends falsely in that value.
    """
    value = statement.value(base_value) if result is None else result
    # Modulo 100 the derived value stands behind the name, where a refinement looks it up.
    pair = (value, stated) if statement.modulus == 100 else (stated, value)
    check = '?' if stated is None else arithmetic.difference(*pair, modulus=statement.modulus)
    worked = derivation(statement, base_value, result=result)
    return f'{statement.text()} ; {worked} ; {statement.name} {check}'


def _check_step(
    statements: dict[str, Statement], known: dict[str, int], *, name: str, step: Step | None
) -> tuple[str, str | None, int | None]:
    """Returns (derivation in words, kind of mistake or None, right value) of one step line."""
    statement = statements.get(name)
    if statement is None:
        return f'{name} ?'.strip(), 'operand', None
    if statement.base is None:
        return f'{name} : {arithmetic.write(statement.number, statement.modulus)}', 'operand', None
    copied = statement.text()
    if statement.base not in known:
        return f'{copied} ; {statement.base} ?', 'skipped', None
    base_value = known[statement.base]
    value = statement.value(base_value)
    words = explain(statement, base_value, stated=step.value if step else None)
    operands = (statement.base, statement.number, base_value)
    if step is None or (step.base, step.number, step.base_value) != operands:
        return words, 'operand', value
    if step.sign != statement.sign:
        return words, 'operation', value
    return words, None if step.value == value else 'arithmetic', value
