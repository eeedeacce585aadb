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
import itertools
import random
import re

from elenchus.data.records import Problem

# fmt: off
NAMES = ('ada', 'ben', 'cal', 'dan', 'eve', 'fay', 'gus', 'hal', 'ida', 'jim', 'kim', 'lea', 'max',
         'ned', 'oda', 'pam')
WORDS = (*NAMES, *'0123456789', *':;?+-=', '####', 'answer', 'correct', 'wrong')
# fmt: on
LEVELS = 5  # levels 1 to LEVELS in turn
OOD_STEPS = (6, 7)  # levels of the 'ood' split: longer chains than any in training
NUM_DISTRACTORS = (1, 2)  # least and most quantities outside the chain of the answer
SPLITS = ('train', 'validation', 'test', 'ood')
MISTAKE_KINDS = ('operation', 'operand', 'arithmetic', 'skipped', 'target')
"""Kinds of mistakes: wrong sign, wrong quantity or value looked up, wrong sum, a needed quantity
skipped, and an answer that is not the value of the target."""


@dataclasses.dataclass(frozen=True)
class Statement:
    """One part of a question: `name digit` if base is None, else `name : base sign digit`."""

    name: str
    base: str | None
    sign: str
    digit: int

    def text(self) -> str:
        """Returns the statement as the question writes it."""
        if self.base is None:
            return f'{self.name} {self.digit}'
        return f'{self.name} : {self.base} {self.sign} {self.digit}'

    def value(self, base_value: int) -> int:
        """Returns the value of the quantity, modulo 10, given that of its base."""
        return (base_value + (self.digit if self.sign == '+' else -self.digit)) % 10


@dataclasses.dataclass(frozen=True)
class Step:
    """One line of an attempt, `name : base base_value sign digit = value ; name value`."""

    name: str
    base: str
    sign: str
    digit: int
    base_value: int
    value: int

    def text(self) -> str:
        """Returns the step as an attempt writes it; `parse_step` is the inverse."""
        equation = f'{self.base_value} {self.sign} {self.digit} = {self.value}'
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


def generate_problem(*, seed: int, split: str, index: int) -> Problem:
    """Generates problem `index` of a split.

    Levels are 1 to 5 in turn, and 6 and 7 in the harder 'ood' split.
    """
    if split not in SPLITS:
        raise ValueError(f'unknown split={split!r}; valid: {SPLITS}')
    level = OOD_STEPS[index % 2] if split == 'ood' else 1 + index % LEVELS
    rng = random.Random(f'{seed}/{split}/{index}')
    while True:  # rejection sampling: the hash of the question must select this split
        statements, target = _draw_statements(rng, num_steps=level)
        question = ' ; '.join([*(s.text() for s in statements), f'{target} ?'])
        if split == 'ood' or split_of(question) == split:
            break
    solution = solve(question)
    return Problem(
        id=f'lab/{seed}/{split}/{index}',
        question=question,
        solution=solution,
        answer=solution.rsplit(' ', 1)[1],
        level=level,
        source='lab',
    )


def split_of(question: str) -> str:
    """Returns the split of a question, for any seed: 80 % train, 10 % validation, 10 % test."""
    bucket = hashlib.sha256(question.encode()).digest()[0] % 10
    return {8: 'validation', 9: 'test'}.get(bucket, 'train')


def solve(question: str) -> str:
    """Returns the reference solution: every step in the question's order, then the answer."""
    target, values = parse_question(question)[1], known_values(question)
    steps = [
        Step(s.name, s.base, s.sign, s.digit, values[s.base], values[s.name]).text()
        for s in parse_question(question)[0].values()
        if s.base is not None
    ]
    return '\n '.join([*steps, f'#### {values[target]}'])


def derivation(statement: Statement, base_value: int) -> str:
    """Returns the small steps to a value: look-up of the base, then arithmetic."""
    equation = f'{base_value} {statement.sign} {statement.digit} = {statement.value(base_value)}'
    return f'{statement.base} {base_value} ; {equation}'


def known_values(question: str) -> dict[str, int]:
    """Returns the value of every quantity of a question, by name."""
    values = {}
    for s in parse_question(question)[0].values():
        values[s.name] = s.digit if s.base is None else s.value(values[s.base])
    return values


def parse_question(question: str) -> tuple[dict[str, Statement], str]:
    """Returns the statements by name, in order, and the name of the target."""
    *parts, request = question.split(' ; ')
    statements = {}
    for part in parts:
        name, *words = part.split()
        statements[name] = (
            Statement(name, None, '+', int(words[0]))
            if len(words) == 1
            else Statement(name, words[1], words[2], int(words[3]))
        )
    return statements, request.removesuffix(' ?')


_STEP = re.compile(r'(\w+) : (\w+) (\d) ([+-]) (\d) = (\d) ; \1 \6')
_ANSWER = re.compile(r'#### (\d)')


def parse_step(line: str) -> Step | None:
    """Parses a line of an attempt; None if it is not a step, such as the answer line."""
    match = _STEP.fullmatch(line.strip())
    return match and Step(*match.group(1, 2, 4), *map(int, match.group(5, 3, 6)))


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
    check = f'{name} {difference(step.value, value)}' if step else f'{name} ?'
    words = f'{copied} ; {derivation(statement, base_value)} ; {check}'
    operands = (statement.base, statement.digit, base_value)
    if step is None or (step.base, step.digit, step.base_value) != operands:
        return words, 'operand', value
    if step.sign != statement.sign:
        return words, 'operation', value
    return words, None if step.value == value else 'arithmetic', value


def _draw_statements(rng: random.Random, *, num_steps: int) -> tuple[list[Statement], str]:
    """Draws two chains of random statements, interleaved; returns them and the target's name.

    The target is the end of the first chain; the second chain consists of distractors. The digits
    come first and no quantity is the base of two others, so that a small model learns to follow
    the statements in minutes; the remaining difficulty is look-up and arithmetic.
    """
    num_distractors = rng.randint(*NUM_DISTRACTORS)
    names = rng.sample(NAMES, num_steps + 1 + num_distractors)
    chain, distractors = names[: num_steps + 1], names[num_steps + 1 :]
    digits = [Statement(name, None, '+', rng.randrange(10)) for name in (chain[0], distractors[0])]
    rng.shuffle(digits)
    links = {True: itertools.pairwise(chain), False: itertools.pairwise(distractors)}
    in_chain = [True] * num_steps + [False] * (num_distractors - 1)
    rng.shuffle(in_chain)
    steps = []
    for which in in_chain:
        base, name = next(links[which])
        steps.append(Statement(name, base, rng.choice('+-'), rng.randrange(1, 10)))
    return [*digits, *steps], chain[-1]
