"""Decides whether two expressions are equal, by exact and by precise arithmetic.

Rational expressions are compared exactly: constants as fractions, others at random points modulo a
prime (Schwartz 1980, doi 10.1145/322217.322225), where expressions that differ agree with a
probability below 1e-12 a point. Other expressions are evaluated to 50 digits, with more working
digits where a sum or a function loses some, and compared relative to their size. If neither way
decides, the result is None, and math-verify decides.
"""

import fractions
import functools
import math
import random

import mpmath

from elenchus.data.grading.expressions import Tree

PRIME = 2**61 - 1
NUM_POINTS = 3
MAX_DIGITS = 20_000  # of an exact number, and of the precision
_SIDES = ((0.3, 3.0, 1), (3.0, 9.0, 1), (0.3, 3.0, -1), (2.0, 5.0, -1))
"""(smallest, largest, sign) of the variables at a point of the precise evaluation."""


class _Undecided(Exception):
    """An operation that this arithmetic does not have, or a value that it does not reach."""


def equal(first: Tree, second: Tree) -> bool | None:
    """Returns whether two expressions are equal wherever both are defined; None if unknown."""
    exact = exact_value(first), exact_value(second)
    if None not in exact:
        return exact[0] == exact[1]
    if variables(first) or variables(second):
        points = [(_modular(first, k), _modular(second, k)) for k in range(NUM_POINTS)]
        if all(None not in pair for pair in points):
            return all(a == b for a, b in points)
    return _equal_numerically(first, second)


def proportional(first: Tree, second: Tree) -> bool:
    """Returns True if two rational expressions with variables differ by a constant factor only."""
    if not variables(first) or variables(first) != variables(second):
        return False
    points = [(_modular(first, k), _modular(second, k)) for k in range(NUM_POINTS + 1)]
    if any(None in pair or 0 in pair for pair in points):
        return False
    (a, b), *others = points
    return all(a * d % PRIME == b * c % PRIME for c, d in others)


@functools.lru_cache(maxsize=20_000)
def variables(tree: Tree) -> frozenset[str]:
    """Returns the names of the variables in a tree."""
    if tree[0] == 'variable':
        return frozenset([tree[1]])
    return frozenset().union(*(variables(part) for part in tree[1:] if isinstance(part, tuple)))


@functools.lru_cache(maxsize=20_000)
def exact_value(tree: Tree) -> fractions.Fraction | None:
    """Returns the rational value of a constant expression; None if it has none or is too large."""
    try:
        return _exact(tree)
    except (_Undecided, ZeroDivisionError, OverflowError):
        return None


def _exact(tree: Tree) -> fractions.Fraction:
    """Evaluates a tree of rational numbers. Raises _Undecided where it leaves them."""
    kind, *parts = tree
    if kind == 'number':
        return parts[0]
    if kind in ('variable', 'constant') or kind not in _RATIONAL:
        raise _Undecided
    value = _RATIONAL[kind](*map(_exact, parts))
    if max(abs(value.numerator).bit_length(), value.denominator.bit_length()) > 3.4 * MAX_DIGITS:
        raise _Undecided
    return value


def _exact_power(base: fractions.Fraction, exponent: fractions.Fraction) -> fractions.Fraction:
    if exponent.denominator != 1:
        return (
            _exact_root(base**exponent.numerator, fractions.Fraction(exponent.denominator))
            if (abs(exponent.numerator) < 1000)
            else _raise()
        )
    size = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
    if abs(exponent) * size > 3.4 * MAX_DIGITS and base not in (0, 1, -1):
        raise _Undecided
    if abs(exponent) > 10**6:
        raise _Undecided
    return base ** int(exponent)


def _raise():
    raise _Undecided


def _exact_root(value: fractions.Fraction, index: fractions.Fraction) -> fractions.Fraction:
    """Returns a rational root. Raises _Undecided if the root is irrational or not real."""
    if index.denominator != 1 or not 1 <= index <= 64 or value < 0:
        raise _Undecided
    roots = []
    for number in (value.numerator, value.denominator):
        root = math.isqrt(number) if index == 2 else round(number ** (1 / int(index)))
        if root ** int(index) != number:
            raise _Undecided
        roots.append(root)
    return fractions.Fraction(*roots)


def _exact_factorial(value: fractions.Fraction) -> fractions.Fraction:
    if value.denominator != 1 or not 0 <= value <= 5000:
        raise _Undecided
    return fractions.Fraction(math.factorial(int(value)))


def _exact_binomial(n: fractions.Fraction, k: fractions.Fraction) -> fractions.Fraction:
    if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= 5000:
        raise _Undecided
    return fractions.Fraction(math.comb(int(n), int(k)))


_RATIONAL = {
    'sum': lambda *terms: sum(terms),
    'negative': lambda a: -a,
    'product': lambda a, b: a * b,
    'quotient': lambda a, b: a / b,
    'power': _exact_power,
    'root': _exact_root,
    'factorial': _exact_factorial,
    'binomial': _exact_binomial,
    'absolute': abs,
}


@functools.lru_cache(maxsize=20_000)
def _modular(tree: Tree, point: int) -> int | None:
    """Returns the value of a rational expression at a random point modulo PRIME, if defined."""
    try:
        return _residue(tree, point)
    except (_Undecided, ZeroDivisionError, ValueError):
        return None


def _residue(tree: Tree, point: int) -> int:
    kind, *parts = tree
    if kind == 'variable':
        return random.Random(f'{parts[0]} {point}').randrange(PRIME)
    exact = exact_value(tree)
    if exact is not None:
        return exact.numerator * _inverse(exact.denominator) % PRIME
    if kind == 'sum':
        return sum(_residue(part, point) for part in parts) % PRIME
    if kind == 'negative':
        return -_residue(parts[0], point) % PRIME
    if kind == 'product':
        return _residue(parts[0], point) * _residue(parts[1], point) % PRIME
    if kind == 'quotient':
        return _residue(parts[0], point) * _inverse(_residue(parts[1], point)) % PRIME
    if kind == 'power':
        exponent = exact_value(parts[1])
        if exponent is None or exponent.denominator != 1 or abs(exponent) > 10_000:
            raise _Undecided
        base = _residue(parts[0], point)
        return pow(base if exponent >= 0 else _inverse(base), abs(int(exponent)), PRIME)
    raise _Undecided


def _inverse(value: int) -> int:
    if value % PRIME == 0:
        raise ZeroDivisionError
    return pow(value, -1, PRIME)


def precise_value(tree: Tree) -> mpmath.mpc | None:
    """Returns the value of a constant to 50 digits; None if it has no value or is too large."""
    return _precise(tree, 0, 50)


def nearly_equal(first: Tree, second: Tree) -> bool:
    """Returns True if two constants differ by less than 1 %: one may be the other, rounded."""
    values = [_precise(tree, 0, 50) for tree in (first, second)]
    return None not in values and bool(abs(values[0] - values[1]) < max(map(abs, values)) / 100)


def _equal_numerically(first: Tree, second: Tree) -> bool | None:
    """Compares precise values: once for constants, else at positive and at negative points."""
    constant = not variables(first) and not variables(second)
    outcomes = [_agree(first, second, point=k) for k in range(1 if constant else len(_SIDES))]
    positive = outcomes[:2]
    if None in positive:
        return None
    if all(outcomes):
        return True
    return False if not any(positive) else None


def _agree(first: Tree, second: Tree, *, point: int) -> bool | None:
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
def _loss(tree: Tree, point: int) -> int | None:
    """Returns the decimal digits that the sums and functions of an expression may lose."""
    losses = [0.0]
    return (
        None if _evaluate(tree, point, digits=30, losses=losses) is None else math.ceil(max(losses))
    )


@functools.lru_cache(maxsize=20_000)
def _precise(tree: Tree, point: int, digits: int) -> mpmath.mpc | None:
    return _evaluate(tree, point, digits=digits + 10, losses=[])


def _evaluate(tree: Tree, point: int, *, digits: int, losses: list[float]):
    """Returns the value of a tree at a point, None if it has none."""
    try:
        with mpmath.workdps(digits):
            return _value(tree, point, losses)
    except (_Undecided, ValueError, ArithmeticError):
        return None


def _value(tree: Tree, point: int, losses: list[float]):
    """Evaluates a tree with mpmath; appends the digits that its operations may lose."""
    kind, *parts = tree
    if kind == 'variable':
        low, high, sign = _SIDES[point]
        fraction = fractions.Fraction(random.Random(f'{parts[0]} {point}').randrange(10**9), 10**9)
        value = sign * (fractions.Fraction(low) + fraction * fractions.Fraction(high - low))
        return mpmath.mpf(value.numerator) / value.denominator
    exact = exact_value(tree)
    if exact is not None:
        return mpmath.mpf(exact.numerator) / exact.denominator
    if kind == 'constant':
        return {'pi': +mpmath.pi, 'e': +mpmath.e, 'i': mpmath.mpc(0, 1)}[parts[0]]
    if kind not in _PRECISE:
        raise _Undecided
    values = [_value(part, point, losses) for part in parts]
    value = _PRECISE[kind](*values)
    if not mpmath.isfinite(value):
        raise _Undecided
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
        raise _Undecided
    if abs(exponent) * (abs(mpmath.log(abs(base))) + 1) > 2.3 * MAX_DIGITS:
        raise _Undecided
    return mpmath.power(base, exponent)


def _precise_root(value, index):
    return mpmath.power(value, 1 / index) if value else value


def _precise_exp(value):
    if abs(value) > 2.3 * MAX_DIGITS:
        raise _Undecided
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

_PRECISE = {
    'sum': lambda *terms: mpmath.fsum(terms),
    'negative': lambda a: -a,
    'product': lambda a, b: a * b,
    'quotient': lambda a, b: a / b,
    'power': _precise_power,
    'root': _precise_root,
    'absolute': abs,
    'ln': mpmath.log,
    'exp': _precise_exp,
} | {
    name: getattr(mpmath, {'arc': 'a' + name[3:]}.get(name[:3], name))
    for name in ('sin', 'cos', 'tan', 'cot', 'sec', 'csc', 'arcsin', 'arccos', 'arctan', 'sinh',
                 'cosh', 'tanh')
}  # fmt: skip
