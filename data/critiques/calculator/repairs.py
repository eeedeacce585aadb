"""Finds which computation of a wrong solution has to be another one, by trying the reference's.

A repair counts only if it is verified: the computation is replaced by one of the reference
solution, whose operands the solution already has, and the steps that follow then reach the
reference answer.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from elenchus.data.critiques.calculator import chains, sources
from elenchus.data.critiques.calculator.chains import Computation
from elenchus.data.critiques.calculator.expressions import Expression, Fraction

KINDS = ('operand', 'operation', 'missing', 'extra', 'other')
"""What a repair changes, from the most particular on."""


@dataclasses.dataclass(frozen=True)
class Repair:
    """A computation that should be another one; `old` and `new` are the numbers that differ."""

    place: int  # of the computation in its chain
    kind: str
    needed: Expression  # what it should be
    result: Fraction  # and its result
    old: Fraction | None = None
    new: Fraction | None = None


class Attempt(NamedTuple):
    """A solution's computations, and the numbers that its question has."""

    chain: Sequence[Computation]
    question: Set[Fraction]
    answer: Fraction  # of the reference

    def available(self, place: int) -> set[Fraction]:
        """Returns the numbers that a computation may use."""
        earlier = {item.equation.result for item in self.chain[:place]}
        return earlier | self.question | sources.CONSTANTS

    def reaches_answer(self, changed: Mapping[int, Fraction]) -> bool:
        """Whether the last result is the reference answer after these changes."""
        return chains.recompute(self.chain, changed)[-1] == self.answer


def find(
    attempt: Attempt, reference: Sequence[Computation], *, slips: Mapping[int, Fraction]
) -> Repair | None:
    """Returns the one verified repair of a solution; None if there is none, or several lines.

    Args:
        attempt: The wrong solution.
        reference: The computations of the reference solution.
        slips: Computations that are false -> their true results, which are corrected as well.
    """
    computed = {item.left.key() for item in attempt.chain}
    needed = [item for item in reference if item.left.key() not in computed]
    known = {item.left.key() for item in reference}
    candidates = []
    for place, item in enumerate(attempt.chain):
        if item.left.key() in known:
            continue
        for other in needed:
            repair = _edit(item.left, other, place=place)
            if repair and _is_verified(attempt, repair, slips=slips, known=known):
                candidates.append(repair)
    if len({attempt.chain[repair.place].line for repair in candidates}) != 1:
        return None
    return min(candidates, key=lambda repair: (repair.place, KINDS.index(repair.kind)))


def _is_verified(
    attempt: Attempt, repair: Repair, *, slips: Mapping[int, Fraction], known: Set[tuple]
) -> bool:
    place, chain = repair.place, attempt.chain
    available = attempt.available(place)
    corrected = chains.recompute(chain, slips)
    available |= {value for value in corrected[:place] if value is not None}
    if not set(repair.needed.values) <= available:
        return False
    if not attempt.reaches_answer({**slips, place: repair.result}):
        return False
    if chains.dependents(chain, place):
        return True
    # The last computation: any that has the answer as its result would do, so more is asked.
    earlier = all(item.left.key() in known for item in chain[:place])
    return place == len(chain) - 1 and (repair.kind != 'other' or earlier)


def _edit(left: Expression, other: Computation, *, place: int) -> Repair | None:
    """Returns how a computation becomes another one."""
    result, needed = other.equation.result, other.left
    if result == left.value or other.equation.holds is False:
        return None
    for index, leaf in enumerate(left.leaves):
        for new in needed.leaves:
            changed = left.with_leaf(index, new)
            if changed.key() == needed.key():
                return Repair(place, 'operand', changed, result, leaf.value, new.value)
    have, need = (collections.Counter(e.values) for e in (left, needed))
    if have == need:
        return Repair(place, 'operation', needed, result)
    more, less = need - have, have - need
    if more.total() == 1 and not less:
        return Repair(place, 'missing', needed, result, new=next(iter(more)))
    if less.total() == 1 and not more and len(needed.leaves) > 1:
        return Repair(place, 'extra', needed, result, old=next(iter(less)))
    return Repair(place, 'other', needed, result)
