"""Flawed attempts by rule, and critiques by an annotator that knows the reference."""

import random
import re

from data import critiques, lab, verify
from data.records import Problem

_NUMBER = re.compile(r'\d+')


def corrupt(problem: Problem, *, rng: random.Random) -> str:
    """The reference with one mistake: of a named kind on the lab, a changed number elsewhere."""
    if problem.source == 'lab':
        return lab.corrupt(problem.question, rng=rng)
    lines = problem.solution.split('\n')
    candidates = [i for i, line in enumerate(lines) if _NUMBER.search(line)]
    if not candidates:
        raise ValueError(f'{problem.id}: the solution has no number to change')
    at = rng.choice(candidates)
    number = rng.choice(list(_NUMBER.finditer(lines[at])))
    changed = str(int(number[0]) + rng.choice((1, 2, 10)))
    lines[at] = lines[at][: number.start()] + changed + lines[at][number.end() :]
    return '\n'.join(lines)


def annotate(problem: Problem, attempt: str) -> str:
    """The critique of an attempt: the oracle's on the lab, by comparison with the reference else.

    By comparison, a step is right where the number it ends with is one that the reference has
    reached too (or it has none, so that nothing contradicts it), and the critique stops at the
    first wrong step (released grammar).
    """
    if problem.source == 'lab':
        return lab.judge(problem.question, attempt).critique
    reached = set(_NUMBER.findall(problem.solution.replace(',', '')))
    *lines, final = attempt.split('\n')
    steps = []
    for line in (line for line in lines if line.strip()):
        numbers = _NUMBER.findall(line.replace(',', ''))
        right = not numbers or numbers[-1] in reached
        told = f'It reaches {numbers[-1]}.' if numbers else 'It reaches no number.'
        steps.append(critiques.StepVerdict(line.strip(), right, told))
        if not right:
            break
    answer = verify.extract_answer(final)
    right = (
        all(s.correct for s in steps)
        and answer is not None
        and verify.equivalent(answer, problem.answer)
    )
    told = f'The answer is {answer}.' if answer else 'There is no answer.'
    return critiques.RELEASED.write(critiques.Critique(tuple(steps), right, told))
