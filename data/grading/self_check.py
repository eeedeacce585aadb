"""Self-check of the verifier on a problem set's reference answers.

Every reference is checked against itself, against itself in another spelling, and against the next
one. The first two should be equal, the third mostly not. A solution should not end with another
answer than its problem's. Wrong answers made of references by `mutations` must never be right.
"""

import re
import time
from collections.abc import Sequence
from typing import NamedTuple

import rich.table

from elenchus.data.grading import mutations, verify
from elenchus.data.grading.verify import Outcome

SPELLINGS = ((r'\frac', r'\dfrac'), ('(', r'\left('), (')', r'\right)'), (',', ', '))
"""(text, other spelling of the same): replaced in this order."""
NEXT, SOLUTION = 'the next', 'its solution'
_GROUPED = re.compile(r'\d,\d{3}(?!\d)')


class Check(NamedTuple):
    """Outcomes of one kind of (answer, reference) pairs, and the time that they took."""

    name: str
    pairs: Sequence[tuple[str, str]]
    outcomes: Sequence[Outcome]
    seconds: float


def respell(answer: str) -> str:
    r"""Returns the same answer in another spelling: `(3, \frac12)` as `\left(3, \dfrac12\right)`.

    An answer that contains such spellings already is returned unchanged.
    """
    if any(mark in answer for mark in (r'\left', '{,}', r',\!', r'\,')):
        return answer
    is_grouped = _GROUPED.search(answer)  # the comma of 1,234 separates no list
    for old, new in SPELLINGS[: 3 if is_grouped else 4]:
        answer = answer.replace(old, new)
    return answer


def run_checks(
    references: Sequence[str],
    verifier: verify.Verifier,
    *,
    solutions: Sequence[str] = (),
    num_mutated: int = 0,
) -> list[Check]:
    """Checks every reference against itself, against itself respelled, and against the next one.

    Then the `solutions` of the same problems, where there are any ('': none), and up to
    `num_mutated` wrong answers, with a check for each kind of change.
    """
    answers_of_check = {
        'itself': references,
        'itself, respelt': [respell(reference) for reference in references],
        NEXT: [*references[1:], *references[:1]],
    }
    pairs_of_check = {
        name: list(zip(answers, references, strict=True))
        for name, answers in answers_of_check.items()
    }
    solved = [(s, r) for s, r in zip(solutions, references, strict=False) if s]
    if solved:
        pairs_of_check[SOLUTION] = solved
    if num_mutated:
        mutated = mutations.mutate(references, num_mutated)
        pairs_of_check |= {name: pairs for name, pairs in mutated.items() if pairs}
    checks = []
    for name, pairs in pairs_of_check.items():
        start = time.perf_counter()
        shown = '{}' if name == SOLUTION else r'\boxed{{{}}}'
        outcomes = verifier.check((shown.format(a), reference) for a, reference in pairs)
        checks.append(Check(name, pairs, outcomes, time.perf_counter() - start))
    return checks


def surprises(check: Check) -> list[tuple[str, str, str]]:
    """(outcome, answer, reference) of the pairs with an unexpected outcome, without duplicates."""
    wrong = check.name == NEXT or check.name in mutations.CHANGES
    expected = {Outcome.WRONG, Outcome.UNSURE} if wrong else {Outcome.RIGHT}
    if check.name == SOLUTION:  # many do not say their answer by the rules of a response
        expected |= {Outcome.UNSURE, Outcome.NO_ANSWER}
    unexpected = {
        (str(outcome), answer, reference): None
        for (answer, reference), outcome in zip(check.pairs, check.outcomes, strict=True)
        if outcome not in expected and (check.name != NEXT or answer != reference)
    }
    return list(unexpected)


def outcome_table(checks: Sequence[Check]) -> rich.table.Table:
    """Table of the outcomes, with one row per check."""
    table = rich.table.Table('against', 'pairs', *map(str, Outcome), 'seconds per thousand')
    for check in checks:
        counts = [sum(outcome == kind for outcome in check.outcomes) for kind in Outcome]
        rate = 1000 * check.seconds / len(check.pairs)
        table.add_row(check.name, *map(str, (len(check.pairs), *counts)), f'{rate:.2f}')
    return table
