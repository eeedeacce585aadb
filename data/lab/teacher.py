"""The lab's fallible teacher writes the actor's demonstrations, with systematic mistakes.

A model this small learns a step either without fault or not at all, so correct demonstrations would
leave a critic nothing to find. The teacher therefore has misconceptions: it gets the same sums
wrong again and again. As with real models, the actor's mistakes then repeat in its attempts.
"""

import hashlib
import random

from elenchus.data.lab import task


def demonstrate(
    question: str, *, error_rate: float, rng: random.Random, num_correct: int = 0
) -> str:
    """Writes an attempt of a teacher who has misconceptions about a share of all sums.

    Args:
        question: a question of the lab.
        error_rate: share of all sums about which the teacher has a misconception, in [0, 1].
        rng: decides in which cases a misconception shows.
        num_correct: number of first lines that are certainly right.

    An actor that learns from such attempts repeats their mistakes, so a majority vote among its
    own attempts does not find them.
    """
    statements, target = task.parse_question(question)
    values = {s.name: s.number for s in statements.values() if s.base is None}
    lines = []
    for i, s in enumerate(s for s in statements.values() if s.base is not None):
        base_value = values[s.base]
        # Later steps build on a mistaken value, as in a real attempt.
        values[s.name] = s.value(base_value)
        if i >= num_correct:
            values[s.name] = _fallible_value(s, base_value, error_rate=error_rate, rng=rng)
        step = task.Step(s.name, s.base, s.sign, s.number, base_value, values[s.name])
        lines.append(step.text())
    return '\n '.join([*lines, f'#### {values[target]}'])


def _fallible_value(
    statement: task.Statement, base_value: int, *, error_rate: float, rng: random.Random
) -> int:
    """Returns the statement's value, or a value off by one if a misconception shows.

    A hash of the sum decides whether and how the sum is mistaken, so it is the same for all
    teachers: of the `error_rate` of sums, half are wrong 9 times in 10, the other half 5 times.
    """
    digest = hashlib.sha256(f'{base_value}{statement.sign}{statement.number}'.encode()).digest()
    rank = digest[0] / 256
    error_probability = 0.9 if rank < error_rate / 2 else 0.5 if rank < error_rate else 0.0
    value = statement.value(base_value)
    off_by_one = (value + (1 if digest[1] % 2 else -1)) % 10
    return off_by_one if rng.random() < error_probability else value
