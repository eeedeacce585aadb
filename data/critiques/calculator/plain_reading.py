"""Finds equations that are false if a line is read literally, whatever the words around them mean.

`equations` does not judge ambiguous equations. A line with one may still be where a solution goes
wrong, so no later line can be called the first mistake.
"""

import operator

from elenchus.data.critiques.calculator import tokens
from elenchus.data.critiques.calculator.expressions import Fraction
from elenchus.data.critiques.calculator.tokens import Token

_OPERATIONS = {'+': operator.add, '-': operator.sub, '*': operator.mul, '/': operator.truediv}


def states_false(line: str) -> bool:
    """Returns whether a line has `a + b = c` (or -, *, /) with another result than c.

    Words are skipped, so units and names do not hide an equation. A result that differs by less
    than one in its last digit counts as rounded.
    """
    marks = [t for t in tokens.tokenize(tokens.prose(line)) if t.kind != 'word']
    edge = Token('break', '', 0, 0)
    padded = [edge, *marks, edge, edge]
    windows = (padded[at : at + 8] for at in range(len(padded) - 7))
    return any(_is_false(window) for window in windows)


def _is_false(window: list[Token]) -> bool:
    before, first, sign, second, equals, result, after, last = window
    kinds = [token.kind for token in (first, sign, second, equals, result)]
    if kinds != ['number', 'operator', 'number', 'equals', 'number']:
        return False
    # `2+6 = 4*2` and `6 = 2(3)` state another equality than that with their first number.
    goes_on = after.kind == 'operator' and last.kind in ('number', '(')
    goes_on = goes_on or (after.kind == '(' and after.start == result.end)
    if before.kind in ('operator', 'other', ')') or goes_on:
        return False
    if sign.text not in _OPERATIONS or (sign.text == '/' and not second.value):
        return False
    exact = _OPERATIONS[sign.text](first.value, second.value)
    shown = (result.value, result.value / 100, result.value * 100)
    readings = shown if '%' in first.text + second.text + result.text else shown[:1]
    unit = Fraction(1, 10**result.decimals)
    return all(abs(exact - value) >= unit for value in readings)
