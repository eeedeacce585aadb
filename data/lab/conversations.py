"""Texts that the lab's actor and base model learn from: demonstrations and refinements.

A refinement can only be read off its critique: constants have other values in every conversation,
and where the critique derives a value, the refinement takes it over and continues from it, true or
false. Without such data a refiner computes everything again and ignores the critique.
"""

import dataclasses
import random
import re
from typing import NamedTuple

from elenchus.data.critiques import mistakes
from elenchus.data.lab import task
from elenchus.data.records import Problem

REORDER_SHARE = 0.15  # of demonstrations that need not follow the question's order
LIKELY_SHARE = 0.7  # of flawed attempts: a wrong constant or sum, as sampled attempts have them
FALSE_VALUE_SHARE = 0.5  # of critiques that derive a value
MISQUOTE_SHARE = 0.1  # of conversations: a right line is called wrong by misquoting the question


class Conversation(NamedTuple):
    """A question with an attempt, a critique of it and the refinement that follows."""

    question: str
    attempt: str
    critique: str
    refinement: str
    unknown: tuple[str, ...]  # constants of the refinement whose values the critique does not tell


def demonstrate(question: str, *, rng: random.Random) -> str:
    """Writes a right attempt: mostly the reference, else in another order with fewer steps.

    Other orders are rare because a small model that learns them copies statements less reliably.
    """
    if rng.random() > REORDER_SHARE:
        return task.solve(question)
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


def converse(problem: Problem, *, rng: random.Random, right_share: float = 0.0) -> Conversation:
    """Writes an attempt with a critique and the refinement that reads it.

    A share of the attempts may be right, with a critique that says so: the refinement repeats them.
    """
    constants = task.constants_of(problem.question)
    stated = [f'{name} {rng.randrange(10)}' for name in constants]
    question = ' ; '.join([*stated, problem.question])
    solution = demonstrate(question, rng=rng)
    if right_share and rng.random() < right_share:
        attempt, refinement = solution, solution
        critique = task.judge(question, solution).critique
    elif rng.random() < MISQUOTE_SHARE and (misquote := _misquote(question, solution, rng=rng)):
        attempt, critique, refinement = solution, misquote, solution
    else:
        kind = rng.choice((task.FACT, 'arithmetic')) if rng.random() < LIKELY_SHARE else None
        worded = dataclasses.replace(problem, question=question, solution=solution)
        attempt = mistakes.corrupt(worded, rng=rng, first_kind=kind)
        judgement = task.judge(question, attempt)
        critique, values = judgement.critique, {}
        if rng.random() < FALSE_VALUE_SHARE:
            critique, values = _falsify(question, attempt, critique, rng=rng) or (critique, {})
        lines = attempt.split('\n')[: judgement.first_error]
        refinement = task.complete(question, lines, values=values)
    unknown = tuple(c for c in constants if not re.search(rf'\b{c} \d', critique))
    return Conversation(problem.question, attempt, critique, refinement, unknown)


def _falsify(
    question: str, attempt: str, critique: str, *, rng: random.Random
) -> tuple[str, dict[str, int]] | None:
    """Replaces the value that a critique derives for the first wrong line by a false one.

    Unlike counterfactual.falsify it knows question and attempt, and leaves a constant as it is:
    constants are random here. Returns the critique and {quantity: false value}, or None if the
    critique derives none there.
    """
    *before, located, final = critique.split('\n')
    statements, _ = task.parse_question(question)
    statement = statements.get(located.split()[0]) if located.strip() else None
    if statement is None or statement.base is None or not located.endswith(' ; wrong'):
        return None
    if located.split(' ; ')[1].endswith('?'):  # nothing is derived: the base is not known yet
        return None
    step = task.parse_step(attempt.split('\n')[len(before)])
    base_value = task.known_values(question)[statement.base]
    stated = step.value if step else None
    excluded = (statement.value(base_value), stated)
    false = rng.choice([v for v in range(10) if v not in excluded])
    words = task.explain(statement, base_value, stated=stated, result=false)
    lines = [line.strip() for line in (*before, f'{words} ; wrong', final)]
    return '\n '.join(lines), {statement.name: false}


def _misquote(question: str, solution: str, *, rng: random.Random) -> str | None:
    """Writes a critique that calls a right line wrong, because it misquotes its statement.

    Returns None if no other sign changes a value.
    """
    *lines, _ = solution.split('\n ')
    statements, _ = task.parse_question(question)
    steps = list(map(task.parse_step, lines))
    # Another sign before 0 or 5 changes no value.
    places = [at for at, step in enumerate(steps) if step.digit % 5]
    if not places:
        return None
    at = rng.choice(places)
    step, statement = steps[at], statements[steps[at].name]
    changed = dataclasses.replace(statement, sign='-' if statement.sign == '+' else '+')
    right = task.judge(question, solution).critique.split('\n ')[:at]
    words = task.explain(changed, step.base_value, stated=step.value)
    return '\n '.join([*right, f'{words} ; wrong', 'answer : wrong'])
