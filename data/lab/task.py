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
import types
from collections.abc import Mapping, Sequence

# fmt: off
NAMES = ('ada', 'ben', 'cal', 'dan', 'eve', 'fay', 'gus', 'hal', 'ida', 'jim', 'kim', 'lea', 'max',
         'ned', 'oda', 'pam')
THINGS = ('gold', 'iron', 'lead', 'salt', 'wood', 'zinc', 'clay', 'coal', 'corn', 'silk', 'wool',
          'sand', 'rice', 'oats', 'tea', 'jade', 'onyx', 'ruby', 'opal', 'amber', 'ash', 'oak',
          'elm', 'fir', 'yew', 'figs', 'plum', 'pear', 'lime', 'mint', 'sage', 'dill', 'flax',
          'hemp', 'jute', 'lard', 'milk', 'malt', 'hops', 'peat')
WORDS = (*NAMES, *'0123456789', *':;?+-=', '####', 'answer', 'correct', 'wrong', *THINGS)
# fmt: on
CONSTANTS = {thing: hashlib.sha256(thing.encode()).digest()[0] % 10 for thing in THINGS}
"""Digits that a question names and does not state: facts that one knows or does not know."""
EMPTY: Mapping[str, int] = types.MappingProxyType({})
SPLITS = ('train', 'validation', 'test', 'ood')
MISTAKE_KINDS = ('operation', 'operand', 'arithmetic', 'skipped', 'target')
"""Kinds of mistakes: wrong sign, wrong quantity or value looked up, wrong sum, a needed quantity
skipped, and an answer that is not the value of the target."""
FACT = 'fact'
"""Kind of a mistake where the question names constants: a wrong digit for one of them."""


@dataclasses.dataclass(frozen=True)
class Statement:
    """One part of a question: `name digit` if base is None, else `name : base sign digit`.

    A constant may stand in place of the last digit; `digit` is then its value.
    """

    name: str
    base: str | None
    sign: str
    digit: int
    constant: str | None = None

    def text(self) -> str:
        """Returns the statement as the question writes it."""
        if self.base is None:
            return f'{self.name} {self.digit}'
        return f'{self.name} : {self.base} {self.sign} {self.constant or self.digit}'

    def value(self, base_value: int) -> int:
        """Returns the value of the quantity, modulo 10, given that of its base."""
        return (base_value + (self.digit if self.sign == '+' else -self.digit)) % 10

    def step(self, base_value: int, value: int | None = None) -> 'Step':
        """Returns the step that computes the quantity, with another value if one is given."""
        value = self.value(base_value) if value is None else value
        return Step(self.name, self.base, self.sign, self.digit, base_value, value, self.constant)


@dataclasses.dataclass(frozen=True)
class Step:
    """One line of an attempt, `name : base base_value sign digit = value ; name value`.

    A constant stands before its digit: `ben : eve 7 - gold 4 = 3 ; ben 3`.
    """

    name: str
    base: str
    sign: str
    digit: int
    base_value: int
    value: int
    constant: str | None = None

    def text(self) -> str:
        """Returns the step as an attempt writes it; `parse_step` is the inverse."""
        operand = f'{self.constant} {self.digit}' if self.constant else self.digit
        equation = f'{self.base_value} {self.sign} {operand} = {self.value}'
        return f'{self.name} : {self.base} {equation} ; {self.name} {self.value}'


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


def complete(question: str, lines: Sequence[str], *, values: Mapping[str, int] = EMPTY) -> str:
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
    return '\n '.join([*(line.strip() for line in lines), *steps, f'#### {known[target]}'])


def derivation(statement: Statement, base_value: int, *, result: int | None = None) -> str:
    """Returns the small steps to a value: look-up of the base, the constant, then arithmetic.

    With a `result`, the arithmetic ends falsely in that value.
    """
    result = statement.value(base_value) if result is None else result
    constant = f'{statement.constant} {statement.digit} ; ' if statement.constant else ''
    equation = f'{base_value} {statement.sign} {statement.digit} = {result}'
    return f'{statement.base} {base_value} ; {constant}{equation}'


def known_values(question: str, stated: Mapping[str, int] = EMPTY) -> dict[str, int]:
    """Returns the value of every quantity of a question, by name.

    Values in `stated` replace what would be computed.
    """
    values = {}
    for s in parse_question(question)[0].values():
        computed = s.digit if s.base is None else s.value(values[s.base])
        values[s.name] = stated.get(s.name, computed)
    return values


def parse_question(question: str) -> tuple[dict[str, Statement], str]:
    """Returns the statements by name, in order, and the name of the target.

    A question may state a constant, `gold 4`, which then has that value instead of its own.
    """
    *parts, request = question.split(' ; ')
    statements, constants = {}, dict(CONSTANTS)
    for part in parts:
        name, *words = part.split()
        if len(words) == 1:
            statements[name] = Statement(name, None, '+', int(words[0]))
            constants[name] = int(words[0])
        else:
            _, base, sign, operand = words
            constant = operand if operand in CONSTANTS else None
            digit = constants[operand] if constant else int(operand)
            statements[name] = Statement(name, base, sign, digit, constant)
    return statements, request.removesuffix(' ?')


def constants_of(question: str) -> list[str]:
    """Returns the constants that a question names without stating them, in their order."""
    statements, _ = parse_question(question)
    named = dict.fromkeys(s.constant for s in statements.values() if s.constant)
    return [name for name in named if name not in statements]


_STEP = re.compile(r'(\w+) : (\w+) (\d) ([+-]) (?:([a-z]+) )?(\d) = (\d) ; \1 \7')
_ANSWER = re.compile(r'#### (\d)')


def parse_step(line: str) -> Step | None:
    """Parses a line of an attempt; None if it is not a step, such as the answer line."""
    match = _STEP.fullmatch(line.strip())
    return match and Step(*match.group(1, 2, 4), *map(int, match.group(6, 3, 7)), match[5])


def judge(question: str, attempt: str) -> Judgement:
    """Checks an attempt line by line and writes the oracle's critique.

    A step is right if it copies the question's statement, the value of its base is known by then,
    and its own value is right. Right steps that the answer does not need are allowed. A malformed
    line is wrong.
    """
    statements, target = parse_question(question)
    known = {s.name: s.digit for s in statements.values() if s.base is None}
    lines = []
    attempt_lines = attempt.split('\n')
    for i, line in enumerate(attempt_lines[:-1]):
        step = parse_step(line)
        # A malformed line still names the quantity that it is about with its first word.
        name = step.name if step else line.split()[0] if line.split() else ''
        words, kind, value = _check_step(statements, known, name=name, step=step)
        lines.append(f'{words} ; {"wrong" if kind else "correct"}')
        if kind:
            return Judgement(i, kind, '\n '.join([*lines, 'answer : wrong']))
        known[name] = value
    final = _ANSWER.fullmatch(attempt_lines[-1].strip())
    right = final is not None and target in known and int(final[1]) == known[target]
    check = f'answer : {target} ?'
    if final is not None and target in known:
        check = f'answer : {target} {difference(known[target], int(final[1]))}'
    lines.append(f'{check} ; {"correct" if right else "wrong"}')
    kind = None if right else 'skipped' if target not in known else 'target'
    return Judgement(None if right else len(attempt_lines) - 1, kind, '\n '.join(lines))


def difference(stated: int, derived: int) -> str:
    """Returns the subtraction, modulo 10, with which a critique compares two values; 0 = equal.

    Small models did not learn to compare two digits, but they learn a subtraction like any sum.
    """
    return f'{stated} - {derived} = {(stated - derived) % 10}'


def explain(
    statement: Statement, base_value: int, *, stated: int | None, result: int | None = None
) -> str:
    """Writes a critique's words on a step: statement, derivation, comparison with its value.

    With a `result`, the derivation ends falsely in that value.
    """
    value = statement.value(base_value) if result is None else result
    check = '?' if stated is None else difference(stated, value)
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
        return f'{name} : {statement.digit}', 'operand', None
    copied = statement.text()
    if statement.base not in known:
        return f'{copied} ; {statement.base} ?', 'skipped', None
    base_value = known[statement.base]
    value = statement.value(base_value)
    words = explain(statement, base_value, stated=step.value if step else None)
    operands = (statement.base, statement.constant, base_value)
    if step is None or (step.base, step.constant, step.base_value) != operands:
        return words, 'operand', value
    if step.digit != statement.digit:
        return words, FACT if step.constant else 'operand', value
    if step.sign != statement.sign:
        return words, 'operation', value
    return words, None if step.value == value else 'arithmetic', value
