"""Compares a computation with the number that a line states as its result."""

import itertools
from collections.abc import Collection

from elenchus.data.critiques.calculator import expressions
from elenchus.data.critiques.calculator.expressions import Expression, Fraction


def compare(
    computed: Expression, right: Expression, exact_values: Collection[Fraction] | None
) -> bool | None:
    """Compares a computation with the number that stands for its result.

    True if they are equal, or equal after rounding to the digits that the result shows. None if
    digits were cut off, or may have been lost in decimals that are not `exact_values`; if the
    result is whole and a remainder was dropped; or if they are equal only where percent signs are
    not taken literally, as in `20% of 50 = 1000`.
    """
    exact, shown = computed.value, right.value
    if exact is None or shown is None:
        return None
    readings, certain = _readings(computed, exact, right), _certain(computed, exact, right)
    if shown in readings:
        return True if shown in certain else None
    if not right.is_number:
        return False
    # `50 - 20%` may mean 20 % of 50.
    kinds = {leaf.percent for leaf in computed.leaves}
    if len(kinds) > 1 and set(computed.operators) & {'+', '-'}:
        return None
    unit = Fraction(1, 10 ** right.leaves[0].decimals) / (100 if in_percent(right) else 1)
    distance = min(abs(reading - shown) for reading in readings)
    terminates = any(_has_decimals(v, right) for v in readings)
    if distance < unit and not terminates:
        near = 2 * min(abs(reading - shown) for reading in certain) <= unit
        return True if right.leaves[0].decimals and near else None
    low, high = _range(computed, exact_values)
    return None if low - unit < shown < high + unit and low < high else False


def _readings(computed: Expression, exact: Fraction, right: Expression) -> tuple[Fraction, ...]:
    """Returns the values that the left side may have: percent signs may count as 1 or 1/100."""
    readings = [exact]
    if in_percent(right) and not any(leaf.percent for leaf in computed.leaves):
        readings.append(exact / 100)
    bare = [leaf.value * (100 if leaf.percent else 1) for leaf in computed.leaves]
    if any(leaf.percent for leaf in computed.leaves):
        value = expressions.evaluate(computed.node, bare)
        readings += [] if value is None else [value, value / 100]
    return tuple(readings)


def _certain(computed: Expression, exact: Fraction, right: Expression) -> tuple[Fraction, ...]:
    """Returns the readings that state no falsehood: literal, and those of customary spellings.

    Customary are a result in percent, `20/50*100 = 40%`, and sums of percentages, `25% + 25% = 50`.
    """
    percents = [leaf.percent for leaf in computed.leaves]
    is_sum = all(percents) and set(computed.operators) <= {'+', '-'}
    loose = in_percent(right) if not any(percents) else is_sum
    return _readings(computed, exact, right) if loose else (exact,)


def in_percent(right: Expression) -> bool:
    """Whether a number is followed by a percent sign."""
    return right.is_number and right.leaves[0].percent


def _has_decimals(value: Fraction, right: Expression) -> bool:
    """Whether a value can be written exactly with the decimals of the right side."""
    scale = 10 ** right.leaves[0].decimals * (100 if in_percent(right) else 1)
    return (value * scale).denominator == 1


def _range(computed: Expression, exact_values) -> tuple[Fraction, Fraction]:
    """Returns the least and greatest value, where decimals may have lost further digits."""
    choices = []
    for leaf in computed.leaves[:8]:
        lost = exact_values is not None and leaf.decimals and leaf.value not in exact_values
        unit = Fraction(1, 10**leaf.decimals) / (100 if leaf.percent else 1)
        choices.append((leaf.value - unit, leaf.value + unit) if lost else (leaf.value,))
    choices += [(leaf.value,) for leaf in computed.leaves[8:]]
    values = [expressions.evaluate(computed.node, corner) for corner in itertools.product(*choices)]
    known = [value for value in values if value is not None]
    return min(known), max(known)
