"""The chain of a solution's computations: which results later computations use as operands.

`recompute` corrects computations and propagates the changes. With it a repair can be tested: does
the rest of the solution then lead to the reference answer?
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from elenchus.data.critiques.calculator import equations, expressions
from elenchus.data.critiques.calculator.equations import Equation
from elenchus.data.critiques.calculator.expressions import Expression, Fraction


@dataclasses.dataclass(frozen=True)
class Computation:
    """An equation of a solution, its line, and where its operands come from."""

    line: int
    equation: Equation
    sources: tuple[int | None, ...]  # per leaf: index of the computation whose result it is

    @property
    def computed(self) -> Expression:
        """What is computed."""
        return self.equation.computed


def read(
    lines: Sequence[str], *, exact_values: Collection[Fraction] | None = None
) -> list[Computation]:
    """Returns the computations of a solution; an operand's source is the latest equal result."""
    chain: list[Computation] = []
    for number, line in enumerate(lines):
        for equation in equations.find(line, exact_values=exact_values):
            if equation.result is None:
                continue
            sources = tuple(_source(chain, value) for value in equation.computed.values)
            chain.append(Computation(number, equation, sources))
    return chain


def _source(chain: Sequence[Computation], value: Fraction) -> int | None:
    places = (i for i in range(len(chain) - 1, -1, -1) if chain[i].equation.result == value)
    return next(places, None)


def recompute(
    chain: Sequence[Computation],
    slips: Mapping[int, Fraction],
    replaced: Mapping[int, Fraction] | None = None,
) -> list[Fraction | None]:
    """Returns the results of all computations after corrections.

    A result that does not depend on a corrected one stays as it is stated.

    Args:
        chain: Computations in their order.
        slips: False computations -> true results; recomputed if their operands change.
        replaced: Computations to be replaced -> results of the replacements.

    Returns:
        One result for each computation; None if there is no exact one.
    """
    results: list[Fraction | None] = []
    for place, item in enumerate(chain):
        values = [
            value if source is None else results[source]
            for value, source in zip(item.computed.values, item.sources, strict=True)
        ]
        if replaced and place in replaced:
            results.append(replaced[place])
        elif values == list(item.computed.values):
            results.append(slips.get(place, item.equation.result))
        else:
            results.append(_computed(item, values))
    return results


def _computed(item: Computation, values: Sequence[Fraction | None]) -> Fraction | None:
    """Returns the result with other operands; None if percent signs make it ambiguous."""
    percent = any(leaf.percent for leaf in (*item.computed.leaves, *item.equation.right.leaves))
    if None in values or percent:
        return None
    return expressions.evaluate(item.computed.node, values)


def dependents(chain: Sequence[Computation], place: int) -> set[int]:
    """Returns the indices of later computations that use the result of the one at `place`."""
    places = {place}
    for later in range(place + 1, len(chain)):
        if places & set(chain[later].sources):
            places.add(later)
    return places - {place}


def leads_to(chain: Sequence[Computation], answer: Fraction) -> set[int]:
    """Returns the indices that the last computation with this result depends on, and its own."""
    last = _source(chain, answer)
    places = set() if last is None else {last}
    for place in range(len(chain) - 1, -1, -1):
        if place in places:
            places |= {source for source in chain[place].sources if source is not None}
    return places


def with_results(
    chain: Sequence[Computation],
    results: Sequence[Fraction | None],
    *,
    place: int,
    needed: Expression,
) -> list[Computation]:
    """Returns the chain as it would be written with other results and one other computation.

    Operands that are results get the new results; the sources of `needed` are found anew.
    """
    changed: list[Computation] = []
    for at, item in enumerate(chain):
        if at == place:
            computed = needed
            sources = tuple(_source(changed, value) for value in needed.values)
        else:
            computed, sources = item.computed, item.sources
            for index, source in enumerate(sources):
                new = None if source is None else results[source]
                if new is not None and new != computed.values[index]:
                    leaf = computed.leaves[index]._replace(value=new, text=str(new))
                    computed = computed.with_leaf(index, leaf)
        right = item.equation.right
        if results[at] is not None and results[at] != right.value:
            leaf = right.leaves[0]._replace(value=results[at], text=str(results[at]), percent=False)
            right = Expression(0, (leaf,))
        equation = Equation(computed, right, item.equation.holds)
        changed.append(Computation(item.line, equation, sources))
    return changed
