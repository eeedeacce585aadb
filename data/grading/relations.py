r"""Compares relations, plus-minus and ratios side by side, and finds numbers that algebra misreads.

math-verify rounds decimals and compares by absolute difference, so that `x < 10^{-30}` equals
`x < 10^{-31}`. Here `x < a` and `b > x` are equal if their sides are equal by the arithmetic of
`numerics`. Others go to algebra only if they have no very small or very long number.
"""

import fractions
import re

import mpmath

from elenchus.data.grading import expressions, numerics
from elenchus.data.grading.expressions import Tree

SMALLEST, LARGEST = 1e-6, 1e12  # least and greatest size of a number given to algebra, except 0
MAX_DECIMALS = 5  # most decimals of a number that is given to algebra
MAX_SIGNIFICANT = 12  # most significant digits of such a number

_RELATION = re.compile(r'<=|>=|!=|[=<>:]|\\(?:le|ge|ne|in|notin|to|approx|equiv|lt|gt)(?![A-Za-z])')
_MIRRORED = {'<': '>', '>': '<', r'\le': r'\ge', r'\ge': r'\le', '=': '=', r'\ne': r'\ne'}
_SPELLINGS = {'<=': r'\le', '>=': r'\ge', '!=': r'\ne', r'\lt': '<', r'\gt': '>'}
_PLUS_MINUS = re.compile(r'\\(pm|mp)(?![A-Za-z])')
_PIECES = re.compile(rf'{_RELATION.pattern}|[,;&]|\\(?:pm|mp|cup|cap|begin|end)(?![A-Za-z])|\\\\')
_RANGE = re.compile(r'[<>]|\\(?:le|ge|lt|gt)(?![A-Za-z])|\\in(?![A-Za-z])\s*[(\[]')
_SLASH = re.compile(
    r'/\s*(?:[0-9]+(?:\.[0-9]+)?|[a-eijk-zA-Z](?![A-Za-z]{2})|\\pi)\s*'
    r'(?:[A-Za-z](?![A-Za-z]{2})|\(|\\(?:pi|sqrt|frac|sin|cos|tan|ln|theta|alpha|beta)(?![A-Za-z]))'
)
_NUMERAL = re.compile(r'[0-9]+(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]+))?|\.([0-9]+)')
_EXTREME = re.compile(
    r'[0-9]{2,}\s*\}?\)?\s*!|\^\s*\{?\s*\(?\s*(?:-\s*(?:[6-9](?![0-9])|[0-9]{2,})|[0-9]{2,})|'
    r'\\(?:binom|exp)(?![A-Za-z])|[0-9A-Za-z)}]\s*\^\s*\{?\s*-?\s*[0-9]+\s*!'
)


def equal_sides(first: str, second: str) -> bool | None:
    """Returns True if two relations have equal sides, perhaps exchanged; False if one differs.

    None if they have no such sides: different relations, or a side that is not understood.
    """
    sides, operators = _sides(first)
    other_sides, other_operators = _sides(second)
    if None in sides or None in other_sides or len(sides) != len(other_sides):
        return None
    if not operators and not any(_PLUS_MINUS.search(text) for text in (first, second)):
        return None
    orders = [(sides, operators)]
    if all(operator in _MIRRORED for operator in operators):
        mirrored = [_MIRRORED[operator] for operator in reversed(operators)]
        orders.append((sides[::-1], mirrored))
    outcomes = [
        [numerics.equal(*pair) for pair in zip(order, other_sides, strict=True)]
        for order, signs in orders
        if signs == other_operators
    ]
    if any(all(same is True for same in outcome) for outcome in outcomes):
        return True
    return False if outcomes and all(False in outcome for outcome in outcomes) else None


def both_values(text: str) -> tuple[str, str] | None:
    r"""Returns the two values of an expression with `\pm`; None if it has none or is a relation.

    All signs of one value are the upper ones, or the lower ones: `\mp` is the opposite of `\pm`.
    Several `\pm` without `\mp` may be independent, so that they are more values: None.
    """
    written = _PLUS_MINUS.findall(text)
    if not written or len(written) > 1 and 'mp' not in written:
        return None
    if _RELATION.search(text) or re.search('[,;]', text):
        return None
    signs = {'pm': '+-', 'mp': '-+'}
    return tuple(_PLUS_MINUS.sub(lambda m, k=k: signs[m[1]][k], text) for k in (0, 1))


def signs_differ(first: str, second: str) -> bool:
    r"""Returns True if one text has `\mp` and the other has not as many."""
    return len(re.findall(r'\\mp(?![A-Za-z])', first)) != len(
        re.findall(r'\\mp(?![A-Za-z])', second)
    )


def is_range(text: str) -> bool:
    """Returns True if a text has an inequality, or an element of an interval."""
    return bool(_RANGE.search(text))


def two_readings(text: str) -> bool:
    """Returns True for a product after a slash, and for a power that may be real or complex.

    `1/2x` may be half of x, or 1 over 2x; `(-8)^{1/3}` may be -2 or a complex number.
    """
    pieces = [piece.strip() for piece in _PIECES.split(text)] if '^' in text else []
    trees = map(expressions.parse, pieces)
    return bool(_SLASH.search(text)) or any(tree and _has_two_powers(tree) for tree in trees)


def _has_two_powers(tree: Tree) -> bool:
    """Returns True if a tree has a negative constant with a fraction as exponent."""
    if tree[0] == 'power' and not numerics.variables(tree[1]):
        base, exponent = (numerics.exact_value(part) for part in tree[1:])
        base = numerics.precise_value(tree[1]) if base is None else base
        if base is not None and exponent is not None and exponent.denominator != 1:
            return bool(mpmath.im(base) == 0 and mpmath.re(base) < 0)
    return any(_has_two_powers(part) for part in tree[1:] if isinstance(part, tuple))


def _sides(text: str) -> tuple[list[Tree | None], list[str]]:
    """Returns the syntax trees of the sides of a text, None for one not read, and its operators."""
    operators = [_SPELLINGS.get(match[0], match[0]) for match in _RELATION.finditer(text)]
    return [_side(side) for side in _RELATION.split(text)], operators


def _side(text: str) -> Tree | None:
    r"""Reads one side; plus-minus is a variable of its own there, `3 \pm x` = `3 + s x`."""
    text = text.strip()
    text = re.sub(r'\\pm(?![A-Za-z])', r'+\\Omega_{0} ', text)
    return expressions.parse(re.sub(r'\\mp(?![A-Za-z])', r'-\\Omega_{0} ', text))


def has_extreme_number(text: str) -> bool:
    """Returns True if a text has a number that is too small, large or long for algebra."""
    for numeral in _NUMERAL.finditer(text):
        decimals = numeral[1] or numeral[3] or ''
        digits = re.sub(r'[eE].*|\.', '', numeral[0]).strip('0')
        if len(decimals) > MAX_DECIMALS or len(digits) > MAX_SIGNIFICANT:
            return True
        if numeral[2] and abs(int(numeral[2])) > MAX_DECIMALS:
            return True
    return any(_is_extreme(piece.strip()) for piece in _PIECES.split(text))


def _is_extreme(piece: str) -> bool:
    """Returns True if a part of a text is, or has, a constant of an extreme size."""
    for inner in (piece, piece.strip('()[]| \\{}'), piece.rstrip(')]'), piece.lstrip('([')):
        tree = expressions.parse(inner)
        if tree is not None:
            return _has_extreme_constant(tree)
    return bool(_EXTREME.search(piece))


def _has_extreme_constant(tree: Tree) -> bool:
    if tree[0] in ('number', 'constant', 'variable'):
        return tree[0] == 'number' and _is_outside(tree[1])
    if not numerics.variables(tree):
        value = numerics.exact_value(tree)
        value = numerics.precise_value(tree) if value is None else value
        if _may_be_small(tree) if value is None else _is_outside(value):
            return True
    return any(_has_extreme_constant(part) for part in tree[1:])


def _may_be_small(tree: Tree) -> bool:
    """Returns True if a constant whose value is out of reach may be small, not only large."""
    parts = [part for part in tree[1:] if isinstance(part, tuple)]
    small = tree[0] in ('sum', 'negative', 'quotient', 'exp')
    return small or any(_may_be_small(part) for part in parts)


def _is_outside(value: fractions.Fraction | mpmath.mpc) -> bool:
    return value != 0 and not SMALLEST <= abs(value) <= LARGEST
