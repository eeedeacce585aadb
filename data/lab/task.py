"""The generated reasoning task: chains of named digits, every step checkable.

A question states quantities, first those that are digits, then those that are another quantity plus
or minus a digit (modulo 10, like the hours of a ten-hour clock), and asks for one of them:

    eve 7 ; kim 1 ; ben : eve - 4 ; ida : kim + 1 ; hal : ben + 7 ; hal ?

An attempt works through them, one a line: statement with the base's value, sum, and value by name:

    ben : eve 7 - 4 = 3 ; ben 3
     ida : kim 1 + 1 = 2 ; ida 2
     hal : ben 3 + 7 = 0 ; hal 0
     #### 0

A critique derives every line anew, subtracts what it finds from what the attempt says and judges by
the difference; it stops at the first wrong line:

    ben : eve - 4 ; eve 7 ; 7 - 4 = 3 ; ben 3 - 3 = 0 ; correct
     ida : kim + 1 ; kim 1 ; 1 + 1 = 2 ; ida 2 - 2 = 0 ; correct
     hal : ben + 7 ; ben 3 ; 3 + 7 = 0 ; hal 0 - 0 = 0 ; correct
     answer : hal 0 - 0 = 0 ; correct

A value stands right behind its name, so that looking it up is the plain induction that a small
transformer learns first; with a word between them it had not learnt it after 6M tokens.

The level is the number of steps that the answer needs. Problems are unlimited and a function of
(seed, split, index); splits are disjoint because a question's hash decides its split.
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
LEVELS = 5
OOD_STEPS = (6, 7)
NUM_DISTRACTORS = (1, 2)
DRILLED = (2, 10)
SPLITS = ('train', 'validation', 'test', 'ood')
KINDS = ('operation', 'operand', 'arithmetic', 'skipped', 'target')
"""Kinds of mistake: wrong operation, wrong operand looked up, arithmetic slip, a needed quantity
skipped, and the answer of another quantity."""


@dataclasses.dataclass(frozen=True)
class Statement:
    """`name digit` where base is None, else `name : base sign digit`."""

    name: str
    base: str | None
    sign: str
    digit: int

    def text(self) -> str:
        if self.base is None:
            return f'{self.name} {self.digit}'
        return f'{self.name} : {self.base} {self.sign} {self.digit}'

    def value(self, base_value: int) -> int:
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
        equation = f'{self.base_value} {self.sign} {self.digit} = {self.value}'
        return f'{self.name} : {self.base} {equation} ; {self.name} {self.value}'


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What is true of one attempt: the index of the first wrong line (None: none is) and its kind.

    The answer line counts as a line. `critique` is the oracle's critique.
    """

    first_error: int | None
    kind: str | None
    critique: str

    @property
    def correct(self) -> bool:
        return self.first_error is None


def problem(*, seed: int, split: str, index: int) -> Problem:
    """Problem `index` of a split: levels 1 to 5 in turn, or 6 and 7 in the harder 'ood' split."""
    if split not in SPLITS:
        raise ValueError(f'split={split!r} is none of {SPLITS}')
    level = OOD_STEPS[index % 2] if split == 'ood' else 1 + index % LEVELS
    rng = random.Random(f'{seed}/{split}/{index}')
    while True:
        statements, target = _draw(rng, num_steps=level)
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
    """The split a question belongs to, whatever the seed: 80 % train, 10 % each of the others."""
    bucket = hashlib.sha256(question.encode()).digest()[0] % 10
    return {8: 'validation', 9: 'test'}.get(bucket, 'train')


def solve(question: str) -> str:
    """The reference solution: every step in the question's order."""
    steps = [step.text() for step in _steps(question)]
    target, values = parse_question(question)[1], known_values(question)
    return '\n '.join([*steps, f'#### {values[target]}'])


def demonstrate(
    question: str, *, misconceptions: float, rng: random.Random, trusted: int = 0
) -> str:
    """An attempt as a teacher writes it who has misconceptions about a share of all sums.

    Its first `trusted` lines are right. Whoever learns from such attempts repeats their mistakes,
    so that votes among its own attempts do not find them.
    """
    statements, target = parse_question(question)
    values = {s.name: s.digit for s in statements.values() if s.base is None}
    lines = []
    for i, s in enumerate(s for s in statements.values() if s.base is not None):
        base_value = values[s.base]
        values[s.name] = s.value(base_value)
        if i >= trusted:
            values[s.name] = _misconceived(s, base_value, share=misconceptions, rng=rng)
        step = Step(s.name, s.base, s.sign, s.digit, base_value, values[s.name])
        lines.append(step.text())
    return '\n '.join([*lines, f'#### {values[target]}'])


def _misconceived(statement: Statement, base_value: int, *, share: float, rng) -> int:
    """The value, or one beside it; which sums are wrong how often is fixed for all teachers.

    Of the `share` of sums that are prone to it, half are wrong 9 times in 10, half 5 times.
    """
    drawn = hashlib.sha256(f'{base_value}{statement.sign}{statement.digit}'.encode()).digest()
    rank = drawn[0] / 256
    prone = 0.9 if rank < share / 2 else 0.5 if rank < share else 0.0
    value = statement.value(base_value)
    return (value + (1 if drawn[1] % 2 else -1)) % 10 if rng.random() < prone else value


def worked(question: str) -> str:
    """Every quantity worked out in small steps (look-up, then arithmetic), for the base model."""
    statements, target = parse_question(question)
    values = known_values(question)
    lines = [
        f'{s.text()} ; {derived(s, values[s.base])} ; {s.name} {values[s.name]}'
        for s in statements.values()
        if s.base is not None
    ]
    return '\n '.join([*lines, f'answer : {target} {values[target]}'])


def drill(index: int) -> tuple[str, str]:
    """Digits by name, and for each in another order its look-up and a sum, for the base model.

    Only the digit behind each name and behind each '=' can be known. Solutions alone teach these
    two late: most of their words are copied, and the value computed last is a good guess.
    """
    rng = random.Random(f'drill/{index}')
    names = rng.sample(NAMES, rng.randint(*DRILLED))
    values = {name: rng.randrange(10) for name in names}
    question = ' ; '.join([*(f'{name} {value}' for name, value in values.items()), f'{names[0]} ?'])
    lines = [
        derived(Statement('', name, rng.choice('+-'), rng.randrange(1, 10)), values[name])
        for name in rng.sample(names, len(names))
    ]
    return question, '\n '.join(lines)


def derived(statement: Statement, base_value: int) -> str:
    """A value in small steps: look-up of the base, then arithmetic."""
    equation = f'{base_value} {statement.sign} {statement.digit} = {statement.value(base_value)}'
    return f'{statement.base} {base_value} ; {equation}'


def known_values(question: str) -> dict[str, int]:
    """Value of every quantity of a question."""
    values = {}
    for s in parse_question(question)[0].values():
        values[s.name] = s.digit if s.base is None else s.value(values[s.base])
    return values


def parse_question(question: str) -> tuple[dict[str, Statement], str]:
    """Statements by name, in order, and the name asked for."""
    *parts, asked = question.split(' ; ')
    statements = {}
    for part in parts:
        name, *words = part.split()
        statements[name] = (
            Statement(name, None, '+', int(words[0]))
            if len(words) == 1
            else Statement(name, words[1], words[2], int(words[3]))
        )
    return statements, asked.removesuffix(' ?')


_STEP = re.compile(r'(\w+) : (\w+) (\d) ([+-]) (\d) = (\d) ; \1 \6')
_ANSWER = re.compile(r'#### (\d)')


def parse_step(line: str) -> Step | None:
    """The step that a line of an attempt is; None where it is none, such as the answer line."""
    match = _STEP.fullmatch(line.strip())
    return match and Step(*match.group(1, 2, 4), *map(int, match.group(5, 3, 6)))


def judge(question: str, attempt: str) -> Judgement:
    """Checks an attempt line by line: the first wrong line, its kind, and the oracle's critique.

    A step is right where it copies the question's statement, its base is known by then, and its
    value is right. Steps that are right but not needed are allowed. A malformed line is wrong.
    """
    statements, target = parse_question(question)
    known = {s.name: s.digit for s in statements.values() if s.base is None}
    lines = []
    attempt_lines = attempt.split('\n')
    for i, line in enumerate(attempt_lines[:-1]):
        step = parse_step(line)
        name = step.name if step else line.split()[0] if line.split() else ''
        derivation, kind, value = _check_step(statements, known, name, step)
        lines.append(f'{derivation} ; {"wrong" if kind else "correct"}')
        if kind:
            return Judgement(i, kind, '\n '.join([*lines, 'answer : wrong']))
        known[name] = value
    final = _ANSWER.fullmatch(attempt_lines[-1].strip())
    right = final is not None and target in known and int(final[1]) == known[target]
    told = f'answer : {target} ?'
    if final is not None and target in known:
        told = f'answer : {target} {difference(known[target], int(final[1]))}'
    lines.append(f'{told} ; {"correct" if right else "wrong"}')
    kind = None if right else 'skipped' if target not in known else 'target'
    return Judgement(None if right else len(attempt_lines) - 1, kind, '\n '.join(lines))


def difference(one: int, other: int) -> str:
    """What is told and what is found, one from the other: 0 where they agree."""
    return f'{one} - {other} = {(one - other) % 10}'


def _check_step(statements, known, name: str, step) -> tuple[str, str | None, int | None]:
    """(derivation in words, kind of mistake or None, value) of one step line."""
    statement = statements.get(name)
    if statement is None:
        return f'{name} ?'.strip(), 'operand', None
    if statement.base is None:
        return f'{name} : {statement.digit}', 'operand', None
    shown = statement.text()
    if statement.base not in known:
        return f'{shown} ; {statement.base} ?', 'skipped', None
    base_value = known[statement.base]
    value = statement.value(base_value)
    told = f'{name} {difference(step.value, value)}' if step else f'{name} ?'
    derivation = f'{shown} ; {derived(statement, base_value)} ; {told}'
    operands = (statement.base, statement.digit, base_value)
    if step is None or (step.base, step.digit, step.base_value) != operands:
        return derivation, 'operand', value
    if step.sign != statement.sign:
        return derivation, 'operation', value
    return derivation, None if step.value == value else 'arithmetic', value


def _steps(question: str) -> list[Step]:
    values = known_values(question)
    return [
        Step(s.name, s.base, s.sign, s.digit, values[s.base], values[s.name])
        for s in parse_question(question)[0].values()
        if s.base is not None
    ]


def _draw(rng: random.Random, *, num_steps: int) -> tuple[list[Statement], str]:
    """Two chains of random statements, their steps interleaved, and the end of the one asked for.

    The digits come first and no quantity is the base of two others, so that a small model learns
    to follow the statements in minutes; what is left to get wrong is looking up and computing.
    """
    num_distractors = rng.randint(*NUM_DISTRACTORS)
    names = rng.sample(NAMES, num_steps + 1 + num_distractors)
    chain, distractors = names[: num_steps + 1], names[num_steps + 1 :]
    digits = [Statement(name, None, '+', rng.randrange(10)) for name in (chain[0], distractors[0])]
    rng.shuffle(digits)
    pairs = {True: itertools.pairwise(chain), False: itertools.pairwise(distractors)}
    order = [True] * num_steps + [False] * (num_distractors - 1)
    rng.shuffle(order)
    steps = []
    for which in order:
        base, name = next(pairs[which])
        steps.append(Statement(name, base, rng.choice('+-'), rng.randrange(1, 10)))
    return [*digits, *steps], chain[-1]
