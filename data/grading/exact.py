"""Exact values of expressions: constants as fractions, others modulo a prime at random points."""

import fractions
import functools
import math
import random

from elenchus.data.grading.expressions import Tree

PRIME = 2**61 - 1
MAX_DIGITS = 20_000  # of an exact number


class Undecided(Exception):
    """An operation that this arithmetic does not have, or a value that it does not reach."""


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
    except (Undecided, ZeroDivisionError, OverflowError):
        return None


def _exact(tree: Tree) -> fractions.Fraction:
    """Evaluates a tree of rational numbers. Raises Undecided where it leaves them."""
    kind, *parts = tree
    if kind == 'number':
        return parts[0]
    if kind in ('variable', 'constant') or kind not in _RATIONAL:
        raise Undecided
    value = _RATIONAL[kind](*map(_exact, parts))
    if max(abs(value.numerator).bit_length(), value.denominator.bit_length()) > 3.4 * MAX_DIGITS:
        raise Undecided
    return value


def _exact_power(base: fractions.Fraction, exponent: fractions.Fraction) -> fractions.Fraction:
    if exponent.denominator != 1:
        if base < 0:  # it has a real and a complex reading
            raise Undecided
        return (
            _exact_root(base**exponent.numerator, fractions.Fraction(exponent.denominator))
            if (abs(exponent.numerator) < 1000)
            else _raise()
        )
    size = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
    if abs(exponent) * size > 3.4 * MAX_DIGITS and base not in (0, 1, -1):
        raise Undecided
    if abs(exponent) > 10**6:
        raise Undecided
    return base ** int(exponent)


def _raise():
    raise Undecided


def _exact_root(value: fractions.Fraction, index: fractions.Fraction) -> fractions.Fraction:
    """Returns a rational root. Raises Undecided if the root is irrational or not real."""
    if index.denominator != 1 or not 1 <= index <= 64:
        raise Undecided
    if value < 0:
        return -_exact_root(-value, index) if index % 2 else _raise()
    roots = []
    for number in (value.numerator, value.denominator):
        root = math.isqrt(number) if index == 2 else round(number ** (1 / int(index)))
        if root ** int(index) != number:
            raise Undecided
        roots.append(root)
    return fractions.Fraction(*roots)


def _exact_factorial(value: fractions.Fraction) -> fractions.Fraction:
    if value.denominator != 1 or not 0 <= value <= 5000:
        raise Undecided
    return fractions.Fraction(math.factorial(int(value)))


def _exact_binomial(n: fractions.Fraction, k: fractions.Fraction) -> fractions.Fraction:
    if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= 5000:
        raise Undecided
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
def modular(tree: Tree, point: int) -> int | None:
    """Returns the value of a rational expression at a random point modulo PRIME, if defined."""
    try:
        return _residue(tree, point)
    except (Undecided, ZeroDivisionError, ValueError):
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
            raise Undecided
        base = _residue(parts[0], point)
        return pow(base if exponent >= 0 else _inverse(base), abs(int(exponent)), PRIME)
    raise Undecided


def _inverse(value: int) -> int:
    if value % PRIME == 0:
        raise ZeroDivisionError
    return pow(value, -1, PRIME)
