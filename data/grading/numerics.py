"""Decides whether two expressions are equal, by exact and by precise arithmetic.

Rational expressions are compared exactly: constants as fractions, others at random points modulo a
prime (Schwartz 1980, doi 10.1145/322217.322225), where expressions that differ agree with a
probability below 1e-12 a point. Other expressions are evaluated to 50 digits, with more working
digits where a sum or a function loses some, and compared relative to their size. If neither way
decides, the result is None, and math-verify decides.

An odd root of a negative number is real. A power of a negative number with a fraction as exponent
has two readings, a real and a complex one, so that it has no value here.
"""

import fractions
import functools
import math
import random
from collections.abc import Iterator

import mpmath

from elenchus.data.grading.exact import PRIME, Undecided, exact_value, modular, variables
from elenchus.data.grading.expressions import Tree

__all__ = ['equal', 'exact_value', 'nearly_equal', 'precise_value', 'proportional', 'variables']

NUM_POINTS = 3
MAX_DIGITS = 600
"""Digits of the precision; this process has no time limit, so that longer work is for a worker."""

Point = int | tuple[tuple[str, fractions.Fraction], ...]
"""Number of one of _SIDES, or the value of each variable."""

_MAX_EXPONENT = 20_000  # decimal exponent of a power
_SIDES = ((0.3, 3.0, 1), (3.0, 9.0, 1), (0.3, 3.0, -1), (2.0, 5.0, -1))
"""(smallest, largest, sign) of the variables at a point of the precise evaluation."""


def equal(first: Tree, second: Tree) -> bool | None:
    """Returns whether two expressions are equal wherever both are defined; None if unknown."""
    exact = exact_value(first), exact_value(second)
    if None not in exact:
        return exact[0] == exact[1]
    if variables(first) or variables(second):
        points = [(modular(first, k), modular(second, k)) for k in range(NUM_POINTS)]
        if all(None not in pair for pair in points):
            return all(a == b for a, b in points)
    return _equal_numerically(first, second)


def proportional(first: Tree, second: Tree) -> bool:
    """Returns True if two rational expressions with variables differ by a constant factor only."""
    if not variables(first) or variables(first) != variables(second):
        return False
    points = [(modular(first, k), modular(second, k)) for k in range(NUM_POINTS + 1)]
    if any(None in pair or 0 in pair for pair in points):
        return False
    (a, b), *others = points
    return all(a * d % PRIME == b * c % PRIME for c, d in others)


def precise_value(tree: Tree) -> mpmath.mpc | None:
    """Returns the value of a constant to 50 digits; None if it has no value or is too large."""
    return _precise(tree, 0, 50)


def nearly_equal(first: Tree, second: Tree) -> bool:
    """Returns True if two constants differ by less than 1 %: one may be the other, rounded."""
    values = [_precise(tree, 0, 50) for tree in (first, second)]
    return None not in values and bool(abs(values[0] - values[1]) < max(map(abs, values)) / 100)


def _equal_numerically(first: Tree, second: Tree) -> bool | None:
    """Compares precise values: once for constants, else at positive and at negative points.

    Expressions that are one for some signs or sizes of their variables and another for others are
    equal only if they agree for all of them; else the result is None.
    """
    constant = not variables(first) and not variables(second)
    outcomes = [_agree(first, second, point=k) for k in range(1 if constant else len(_SIDES))]
    positive = outcomes[:2]
    if None in positive:
        return None
    if not all(outcomes):
        return False if not any(positive) else None
    if not constant and (_has_branches(first) or _has_branches(second)):
        points = _points(first, second)
        return True if all(_agree(first, second, point=point) for point in points) else None
    return True


@functools.lru_cache(maxsize=20_000)
def _has_branches(tree: Tree) -> bool:
    """Returns True if a tree has a root, logarithm, absolute value or such of variables."""
    parts = [part for part in tree[1:] if isinstance(part, tuple)]
    if any(variables(part) for part in parts[:1]):
        exponent = exact_value(parts[1]) if tree[0] == 'power' else None
        if tree[0] in _BRANCHED or tree[0] == 'power' and (exponent is None or exponent % 1):
            return True
    return any(_has_branches(part) for part in parts)


def _points(first: Tree, second: Tree) -> Iterator[Point]:
    """Yields points with independent signs and sizes of the variables.

    The sizes lie on both sides of each number in the trees, where a sign may change, and reach from
    1e-3 to 1e4.
    """
    names = sorted(variables(first) | variables(second))
    sizes = {abs(float(number)) for tree in (first, second) for number in _numbers(tree)}
    sizes = sorted(s for s in sizes if 1e-15 < s < 1e15)[:8]
    bounds = sorted({*(10.0**k for k in range(-3, 5)), *sizes, *(30 * s for s in sizes[-1:])})
    bounds = [bounds[0] / 30, *bounds]
    rng = random.Random(' '.join(names))
    for place in range(len(bounds) - 1):
        for signs in range(4 * place, 4 * place + min(2 ** len(names), 4)):
            point = []
            for at, name in enumerate(names):
                shift = rng.randrange(len(bounds) - 1) if at else 0
                low, high = bounds[(place + shift) % (len(bounds) - 1) :][:2]
                sign = -1 if (signs >> at if at < 3 else rng.getrandbits(1)) & 1 else 1
                value = fractions.Fraction(sign * (low + (high - low) * rng.uniform(0.1, 0.9)))
                point.append((name, value))
            yield tuple(point)


def _numbers(tree: Tree) -> Iterator[fractions.Fraction]:
    """Yields the numbers of a tree that a float can hold."""
    if tree[0] == 'number' and abs(tree[1]) < 10**15:
        yield tree[1]
    for part in tree[1:]:
        if isinstance(part, tuple):
            yield from _numbers(part)


def _agree(first: Tree, second: Tree, *, point: Point) -> bool | None:
    """Returns whether two expressions have the same value at a point; None if undefined there."""
    losses = [_loss(tree, point) for tree in (first, second)]
    if None in losses:
        return None
    digits = 50 + 2 * max(losses)
    if digits > MAX_DIGITS:
        return None
    values = [_precise(tree, point, digits) for tree in (first, second)]
    if None in values:
        return None
    with mpmath.workdps(digits):
        difference, size = abs(values[0] - values[1]), max(map(abs, values))
        return bool(difference <= size * mpmath.mpf(10) ** (-0.7 * digits))


@functools.lru_cache(maxsize=20_000)
def _loss(tree: Tree, point: Point) -> int | None:
    """Returns the decimal digits that the sums and functions of an expression may lose."""
    losses = [0.0]
    return (
        None if _evaluate(tree, point, digits=30, losses=losses) is None else math.ceil(max(losses))
    )


@functools.lru_cache(maxsize=20_000)
def _precise(tree: Tree, point: Point, digits: int) -> mpmath.mpc | None:
    return _evaluate(tree, point, digits=digits + 10, losses=[])


def _evaluate(tree: Tree, point: Point, *, digits: int, losses: list[float]):
    """Returns the value of a tree at a point, None if it has none."""
    try:
        with mpmath.workdps(digits):
            return _value(tree, point, losses)
    except (Undecided, ValueError, ArithmeticError):
        return None


def _coordinate(name: str, point: Point) -> fractions.Fraction:
    """Returns the value of a variable at a point."""
    if not isinstance(point, int):
        return dict(point)[name]
    low, high, sign = _SIDES[point]
    fraction = fractions.Fraction(random.Random(f'{name} {point}').randrange(10**9), 10**9)
    return sign * (fractions.Fraction(low) + fraction * fractions.Fraction(high - low))


def _value(tree: Tree, point: Point, losses: list[float]):
    """Evaluates a tree with mpmath; appends the digits that its operations may lose."""
    kind, *parts = tree
    if kind == 'variable':
        value = _coordinate(parts[0], point)
        return mpmath.mpf(value.numerator) / value.denominator
    exact = exact_value(tree)
    if exact is not None:
        return mpmath.mpf(exact.numerator) / exact.denominator
    if kind == 'constant':
        return {'pi': +mpmath.pi, 'e': +mpmath.e, 'i': mpmath.mpc(0, 1)}[parts[0]]
    if kind not in _PRECISE:
        raise Undecided
    values = [_value(part, point, losses) for part in parts]
    if kind in _TURNING and abs(values[0]) > mpmath.mpf(10) ** MAX_DIGITS:
        raise Undecided
    value = _power(tree, *values) if kind == 'power' else _PRECISE[kind](*values)
    if not mpmath.isfinite(value):
        raise Undecided
    if kind == 'sum':
        sizes = [_exponent(v) for v in values if v]
        losses.append(
            max(sizes, default=0) - min([*sizes, _exponent(value)] if value else sizes, default=0)
        )
        return _without_noise(value, max(map(abs, values)))
    if kind in _CURVED:
        losses += [abs(_exponent(v)) for v in values if v]
        if kind not in ('power', 'root', 'exp') and abs(values[0]) > 1e-3:
            return _without_noise(value, mpmath.mpf(1))
    return value


def _exponent(value) -> float:
    """Returns the decimal exponent of a number that is not zero."""
    return int(mpmath.mag(value)) * 0.30103


def _without_noise(value, size):
    """Returns 0 for a value that is only what rounding leaves of terms of a size."""
    return value * 0 if abs(value) < size * mpmath.mpf(10) ** (-0.8 * mpmath.mp.dps) else value


def _precise_power(base, exponent):
    if not base:
        raise Undecided
    if abs(exponent) * (abs(mpmath.log(abs(base))) + 1) > 2.3 * _MAX_EXPONENT:
        raise Undecided
    return mpmath.power(base, exponent)


def _power(tree: Tree, base, exponent):
    """Returns a power. Raises Undecided for a constant that may be real or complex."""
    index = exact_value(tree[2])
    if index is None or index.denominator == 1 or not _is_negative(base):
        return _precise_power(base, exponent)
    if not variables(tree):
        raise Undecided
    if index.denominator % 2 == 0:
        return _precise_power(base, exponent)
    size = _precise_power(-base, exponent)
    return -size if index.numerator % 2 else size


def _is_negative(value) -> bool:
    return not mpmath.im(value) and mpmath.re(value) < 0


def _precise_root(value, index):
    if _is_negative(value) and mpmath.isint(index) and index % 2:
        return -mpmath.power(-value, 1 / index)
    return mpmath.power(value, 1 / index) if value else value


def _precise_exp(value):
    if abs(value) > 2.3 * _MAX_EXPONENT:
        raise Undecided
    return mpmath.exp(value)


_CURVED = [
    'power',
    'root',
    'ln',
    'exp',
    'sin',
    'cos',
    'tan',
    'cot',
    'sec',
    'csc',
    'arcsin',
    'arccos',
    'arctan',
    'sinh',
    'cosh',
    'tanh',
]
"""Operations whose relative error may be larger than that of their arguments."""

_BRANCHED = {'absolute', 'root', 'ln', 'arcsin', 'arccos', 'arctan'}
"""Operations that may be another function of their argument for other signs or sizes of it."""

_TURNING = {'sin', 'cos', 'tan', 'cot', 'sec', 'csc'}
"""Operations that need all digits of a large argument."""

_PRECISE = {
    'sum': lambda *terms: mpmath.fsum(terms),
    'negative': lambda a: -a,
    'product': lambda a, b: a * b,
    'quotient': lambda a, b: a / b,
    'power': None,  # `_power`
    'root': _precise_root,
    'absolute': abs,
    'ln': mpmath.log,
    'exp': _precise_exp,
} | {
    name: getattr(mpmath, {'arc': 'a' + name[3:]}.get(name[:3], name))
    for name in ('sin', 'cos', 'tan', 'cot', 'sec', 'csc', 'arcsin', 'arccos', 'arctan', 'sinh',
                 'cosh', 'tanh')
}  # fmt: skip
