"""The calculator: the exact value of an expression, as words for the model."""

from elenchus.data.critiques.calculator import expressions, tokens
from elenchus.data.critiques.calculator.expressions import Fraction
from elenchus.data.tools.answer import Answer

MAX_CHARACTERS = 200
DECIMALS = 4
"""Digits behind the point, or behind its leading zeros, of a number without an end, as 1/3."""


def calculate(text: str) -> Answer:
    """Returns the value of an expression, such as `48/2`, `20% of 50`, `(3 + 4) * 2^3`.

    Numbers without an end are rounded to DECIMALS; all else is exact.
    """
    text = text.strip()
    if len(text) > MAX_CHARACTERS:
        return Answer(f'refused: more than {MAX_CHARACTERS} characters', 'refused')
    words = tokens.tokenize(tokens.prose(text))
    parser = expressions.Parser(words, 0)
    expression = parser.expression() if words and _is_shallow(text) else None
    if expression is None or parser.at < len(words):
        return Answer(f'error: {text!r} is no expression of numbers and + - * / ^ ( )', 'error')
    value = expression.value
    if value is None:
        return Answer('error: it has no value, or a power is too large', 'error')
    return Answer(written(value))


def before_equals(line: str) -> str | None:
    """Returns the longest expression at the end of a text, such as `7 - 4` of `eve 7 - 4`.

    None if there is none with an operation: a number by itself asks for nothing.
    """
    words = tokens.tokenize(tokens.prose(line[-MAX_CHARACTERS:].rpartition('\n')[2]))
    if not _is_shallow(line[-MAX_CHARACTERS:]):
        return None
    for first in range(len(words)):
        parser = expressions.Parser(words, first)
        expression = parser.expression()
        if expression is not None and parser.at == len(words) and not expression.is_number:
            return expression.text
    return None


def _is_shallow(text: str) -> bool:
    """Returns whether brackets and signs are few enough for a parser that calls itself."""
    return text.count('(') + text.count('[') + text.count('-') <= MAX_CHARACTERS // 2


def written(value: Fraction) -> str:
    """Returns a number with the digits that it has, or rounded ones if they have no end."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    places = DECIMALS
    while abs(value) * 10**places < 10 ** (DECIMALS - 1):  # digits behind leading zeros
        places += 1
    while rest == 1 and (value * 10**places).denominator != 1:
        places += 1
    digits = str(round(abs(value) * 10**places)).rjust(places + 1, '0')
    text = f'{digits[:-places]}.{digits[-places:]}'.rstrip('0').rstrip('.')
    return f'-{text}' if value < 0 else text
