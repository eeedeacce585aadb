"""Finds the computation of a wrong solution that must be replaced, by trying the reference's.

A repair counts only if it is verified: the computation is replaced by one of the reference
solution, whose operands the solution has by then, and the steps after it then lead to the
reference answer.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from elenchus.data.critiques.calculator import chains, expressions, sources
from elenchus.data.critiques.calculator.chains import Computation
from elenchus.data.critiques.calculator.expressions import Expression, Fraction

KINDS = ('operand', 'operation', 'missing', 'extra', 'other')
"""What a repair changes, the most specific kind first."""


@dataclasses.dataclass(frozen=True)
class Repair:
    """A computation to be replaced; `old` and `new` are the numbers that differ."""

    place: int  # of the computation in its chain
    kind: str
    needed: Expression  # the computation that replaces it
    result: Fraction  # result of `needed`
    old: Fraction | None = None
    new: Fraction | None = None


class Attempt(NamedTuple):
    """A solution's computations, and the numbers that its question has."""

    chain: Sequence[Computation]
    question: Set[Fraction]
    answer: Fraction  # of the reference

    def reaches_answer(self, repair: Repair, *, slips: Mapping[int, Fraction]) -> bool:
        """Whether the last result is the reference answer after these corrections."""
        replaced = {repair.place: repair.result}
        return chains.recompute(self.chain, slips, replaced)[-1] == self.answer


def find(
    attempt: Attempt, reference: Sequence[Computation], *, slips: Mapping[int, Fraction]
) -> Repair | None:
    """Returns the one verified repair of a solution; None if there is none, or several lines.

    Args:
        attempt: The wrong solution.
        reference: The computations of the reference solution.
        slips: Computations that are false -> their true results, which are corrected as well.
    """
    keys = {item.computed.key() for item in attempt.chain}
    needed = [item for item in reference if item.computed.key() not in keys]
    known = {item.computed.key() for item in reference}
    candidates = []
    for place, item in enumerate(attempt.chain):
        if item.computed.key() in known:
            continue
        for other in needed:
            repair = _edit(item.computed, other, place=place)
            ready = _has_operands(attempt, other, reference, place=place, slips=slips)
            if repair and ready and _is_verified(attempt, repair, slips=slips, known=known):
                candidates.append(repair)
    if len({attempt.chain[repair.place].line for repair in candidates}) != 1:
        return None
    return min(candidates, key=lambda repair: (repair.place, KINDS.index(repair.kind)))


def _has_operands(
    attempt: Attempt,
    other: Computation,
    reference: Sequence[Computation],
    *,
    place: int,
    slips: Mapping[int, Fraction],
) -> bool:
    """Whether a solution has the operands of a computation of the reference before `place`.

    An operand that the reference computed must be a computed result of the solution, too: an equal
    number of the question is not enough, because it may be equal by chance.
    """
    earlier = set(chains.recompute(attempt.chain, slips)[:place])
    earlier |= {item.equation.result for item in attempt.chain[:place]}
    return all(
        value in (attempt.question | sources.CONSTANTS if source is None else earlier)
        for value, source in zip(other.computed.values, other.sources, strict=True)
    )


def _is_verified(
    attempt: Attempt, repair: Repair, *, slips: Mapping[int, Fraction], known: Set[tuple]
) -> bool:
    place, chain = repair.place, attempt.chain
    if not attempt.reaches_answer(repair, slips=slips):
        return False
    if not _rest_is_known(attempt, repair, slips=slips, known=known):
        return False
    earlier = all(item.computed.key() in known for item in chain[:place])
    # A replacement that shares no number may reach the answer by chance.
    shares = set(chain[place].computed.values) & set(repair.needed.values)
    if repair.kind == 'other' and not (shares or (place and earlier)):
        return False
    if chains.dependents(chain, place):
        return True
    # Any replacement of the last computation with the answer as its result would do, so it must
    # meet further conditions.
    return place == len(chain) - 1 and (repair.kind != 'other' or earlier)


def _rest_is_known(
    attempt: Attempt, repair: Repair, *, slips: Mapping[int, Fraction], known: Set[tuple]
) -> bool:
    """Whether all other computations that lead to the answer are in the reference, too.

    Otherwise the solution of another problem may reach the answer by chance: numbers of word
    problems are small, and one arbitrary computation is often enough.
    """
    results = chains.recompute(attempt.chain, slips, {repair.place: repair.result})
    repaired = chains.with_results(attempt.chain, results, place=repair.place, needed=repair.needed)
    way = chains.leads_to(repaired, attempt.answer) - {repair.place}
    return all(repaired[place].computed.key() in known for place in way)


def _edit(computed: Expression, other: Computation, *, place: int) -> Repair | None:
    """Returns how a computation becomes another one."""
    result, needed = other.equation.result, other.computed
    if result == computed.value or other.equation.holds is False:
        return None
    have, need = (collections.Counter(e.values) for e in (computed, needed))
    more, less = need - have, have - need
    if have == need:
        return Repair(place, 'operation', needed, result)
    # A number that only moves to another place is neither missing nor extra.
    (new, count), *_ = [*more.items(), (None, 0)]
    (old, excess), *_ = [*less.items(), (None, 0)]
    other_kind = Repair(place, 'other', needed, result)
    if max(more.total(), less.total()) > 1 or new in have or old in need:
        return other_kind
    if count and excess:
        return (
            _operand_edit(computed, needed, old=old, new=new, place=place, result=result)
            or other_kind
        )
    longer, shorter, value = (needed, computed, new) if count else (computed, needed, old)
    if _without(longer, value) != shorter.key():
        return other_kind
    return Repair(place, 'missing' if count else 'extra', needed, result, old, new)


def _without(expression: Expression, value: Fraction) -> tuple | None:
    """Returns the key of an expression without one summand or factor."""

    def pruned(node):
        if isinstance(node, int):
            return None if node == index else node
        operator, *parts = node
        kept = [pruned(part) for part in parts]
        if None not in kept:
            return (operator, *kept)
        if kept[0] is None and operator in '-/' or operator in ('neg', '^'):
            return None  # what remains would be another operation
        return kept[1] if kept[0] is None else kept[0]

    index = expression.values.index(value)
    node = pruned(expression.node)
    return None if node is None else expressions.canonical(node, expression.values)


def _operand_edit(
    computed: Expression, needed: Expression, *, old: Fraction, new: Fraction, place: int, result
) -> Repair | None:
    """Returns the repair by another number in the same place, if that is all that differs."""
    index = computed.values.index(old)
    leaf = next(leaf for leaf in needed.leaves if leaf.value == new)
    changed = computed.with_leaf(index, leaf)
    if changed.key() != needed.key():
        return None
    return Repair(place, 'operand', changed, result, old, new)
