"""Texts that the lab's actor and base model learn from: demonstrations and refinements.

A refinement can only be read off its critique: where the critique derives a value, the refinement
takes it over and continues from it, and in half of the conversations that value is false. Without
such data a refiner computes everything again and ignores the critique.
"""

import dataclasses
import random
from typing import NamedTuple

from elenchus.data.critiques import mistakes
from elenchus.data.lab import arithmetic, task
from elenchus.data.records import Problem

ARITHMETIC_SHARE = 0.6  # of flawed attempts: the mistake that attempts at the tail form make
FALSE_VALUE_SHARE = 0.5  # of critiques that derive a value
MISQUOTE_SHARE = 0.1  # of conversations: a right line is called wrong by misquoting the question


class Conversation(NamedTuple):
    """A question with an attempt, a critique of it and the refinement that follows."""

    question: str
    attempt: str
    critique: str
    refinement: str


def demonstrate(question: str, *, rng: random.Random) -> str:
    """Writes a right attempt: steps in a random order, with some of the unneeded ones."""
    *steps, answer = task.solve(question).split('\n ')
    statements, name = task.parse_question(question)
    chain = set()
    while name in statements:
        chain.add(name)
        name = statements[name].base
    needed = [line for line in steps if line.split()[0] in chain]
    others = [line for line in steps if line.split()[0] not in chain]
    # A step of the other chain needs the steps before it, so only its last ones are left out.
    del others[rng.randint(0, len(others)) :]
    from_chain = [True] * len(needed) + [False] * len(others)
    rng.shuffle(from_chain)
    lines = {True: iter(needed), False: iter(others)}
    return '\n '.join([*(next(lines[which]) for which in from_chain), answer])


def converse(problem: Problem, *, rng: random.Random) -> Conversation:
    """Writes an attempt with a critique and the refinement that reads it.

    A constant that the question does not state has another value in every conversation, so that
    only the critique tells it.
    """
    known = [
        f'{name} {arithmetic.write(rng.randrange(100), 100)}'
        for name in task.unstated_constants(problem.question)
    ]
    question = ' ; '.join([*known, problem.question])
    solution = demonstrate(question, rng=rng)
    if rng.random() < MISQUOTE_SHARE:
        critique, refinement = _misquote(question, solution, rng=rng), solution
        return Conversation(problem.question, solution, critique, refinement)
    first_kind = 'arithmetic' if rng.random() < ARITHMETIC_SHARE else None
    problem_with_values = dataclasses.replace(problem, question=question, solution=solution)
    attempt = mistakes.corrupt(problem_with_values, rng=rng, first_kind=first_kind)
    judgement = task.judge(question, attempt)
    critique, values = judgement.critique, {}
    if rng.random() < FALSE_VALUE_SHARE:
        critique, values = falsify(question, attempt, critique, rng=rng) or (critique, {})
    lines = attempt.split('\n')[: judgement.first_error]
    refinement = task.complete(question, lines, values=values)
    return Conversation(problem.question, attempt, critique, refinement)


def falsify(
    question: str, attempt: str, critique: str, *, rng: random.Random
) -> tuple[str, dict[str, int]] | None:
    """Replaces the value that a critique derives for the first wrong line by a false one.

    Returns the critique and {quantity: false value}, or None if the critique derives none there.
    """
    *before, located, final = critique.split('\n')
    statements, _ = task.parse_question(question)
    statement = statements.get(located.split()[0]) if located.strip() else None
    if statement is None or statement.base is None or not located.endswith(' ; wrong'):
        return None
    step = task.parse_step(attempt.split('\n')[len(before)])
    base_value = task.known_values(question)[statement.base]
    if located.split(' ; ')[1].endswith('?'):
        return None
    stated = step.value if step else None
    value = statement.value(base_value)
    false = rng.choice([v for v in range(statement.modulus) if v not in (value, stated)])
    words = task.explain(statement, base_value, stated=stated, result=false)
    return '\n'.join([*before, f' {words} ; wrong' if before else f'{words} ; wrong', final]), {
        statement.name: false
    }


def _misquote(question: str, solution: str, *, rng: random.Random) -> str:
    """Writes a critique that calls a right line wrong, because it misquotes its statement."""
    *lines, _ = solution.split('\n ')
    at = rng.randrange(len(lines))
    step = task.parse_step(lines[at])
    statement = task.parse_question(question)[0][step.name]
    changed = dataclasses.replace(
        statement, sign='-' if statement.sign == '+' else '+', number=rng.randrange(1, 100)
    )
    right = task.judge(question, solution).critique.split('\n ')[:at]
    words = task.explain(changed, step.base_value, stated=step.value)
    return '\n '.join([*right, f'{words} ; wrong', 'answer : wrong'])
