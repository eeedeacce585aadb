"""Finds units that may give the numbers of a line another value: two of a kind, compound, times."""

import itertools
from collections.abc import Sequence

from elenchus.data.critiques.calculator import expressions
from elenchus.data.critiques.calculator.tokens import Token

_MEASURES = {
    unit: kind
    for kind, units in {
        'time': 'second seconds sec secs minute minutes min mins hour hours hr hrs day days week '
        'weeks month months year years decade decades',
        'money': '$ dollar dollars cent cents quarter quarters dime dimes nickel nickels penny '
        'pennies € £ pound pence',
        'length': 'inch inches foot feet ft yard yards mile miles mm cm m km meter meters metre '
        'metres centimeter centimeters kilometer kilometers millimeter millimeters',
        'mass': 'ounce ounces oz pounds lb lbs ton tons gram grams g kg kilogram kilograms mg '
        'milligrams',
        'volume': 'cup cups pint pints quart quarts gallon gallons liter liters litre litres ml '
        'milliliters milliliter millilitres tablespoon tablespoons teaspoon teaspoons',
    }.items()
    for unit in units.split()
}
"""Unit -> the quantity it measures; solutions convert between units of one without saying so."""


def has_two(segment: Sequence[Token]) -> bool:
    """Whether the clause has two units of one quantity, as in `2 * 30 minutes = 1 hour`."""
    units: dict[str, set[str]] = {}
    for token in segment:
        names = [token.text.lower()] if token.kind == 'word' else []
        if token.kind == 'number' and token.text[0] in '$€£':
            names = [token.text[0]]
        for name in names:
            if name in _MEASURES:
                stem = {'$': 'dollar', 'feet': 'foot', 'inches': 'inch'}.get(name, name)
                units.setdefault(_MEASURES[name], set()).add(stem.rstrip('s'))
    return any(len(stems) > 1 for stems in units.values())


def has_compound(segment: Sequence[Token], start: int, end: int) -> bool:
    """Whether a number with its unit stands before, or after, as in `= 5 feet 7 inches`."""
    before = [token.kind for token in segment[max(start - 2, 0) : start]]
    after = [token.kind for token in segment[end : end + 3]]
    joined = end + 1 < len(segment) and segment[end + 1].text == 'and'
    if joined and _is_measure(segment[end]):
        after = [after[0], *(token.kind for token in segment[end + 2 : end + 4])]
        joined = len(after) > 2 and _is_measure(segment[end + 3])
        return joined and after == ['word', 'number', 'word']
    if before == ['number', 'word'] and _may_be_unit(segment[start - 1]):
        return True
    return after == ['word', 'number', 'word'] and _may_be_unit(segment[end])


_NO_UNITS = expressions.STOP_WORDS | {'for', 'in', 'on', 'of', 'per', 'each', 'means', 'worth'}


def _may_be_unit(token: Token) -> bool:
    return token.text.lower() not in _NO_UNITS


def _is_measure(token: Token) -> bool:
    return token.text.lower() in _MEASURES


_CLOCK = {'am', 'pm', "o'clock", 'o’clock', 'noon', 'midnight'}


def has_clock_time(segment: Sequence[Token], start: int, end: int) -> bool:
    """Whether a number of the equation is a time of the day, as in `8 AM + 5 hours = 1 PM`."""
    pairs = itertools.pairwise(segment[start : end + 1])
    return any(token.kind == 'number' and after.text.lower() in _CLOCK for token, after in pairs)
