"""The calculator: the exact value of an expression, as words for the model."""

from collections.abc import Sequence

from elenchus.data.critiques.calculator import expressions, tokens
from elenchus.data.critiques.calculator.expressions import Fraction
from elenchus.data.tools.answer import Answer

MAX_CHARACTERS = 200
MAX_CLAUSE = 2 * MAX_CHARACTERS
"""Characters of a clause before an equals sign; an expression in a longer one is too long."""
MAX_LINE = 10 * MAX_CHARACTERS
"""Characters before an equals sign that are read: far more than a clause may have."""
DECIMALS = 4
"""Digits behind the point, or behind its leading zeros, of a number without an end, as 1/3."""
_ENDS = ('equals', 'verb', 'break', 'other')
"""Kinds of tokens that are in no expression."""


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

    None if there is none with an operation: a number by itself asks for nothing. None also if it is
    too long, because a part of it has another value.
    """
    words = tokens.tokenize(tokens.prose(line[-MAX_LINE:].rpartition('\n')[2]))
    start = _clause_start(words)
    clause = ' '.join(word.text for word in words[start:])
    if len(clause) > MAX_CLAUSE or not _is_shallow(clause):
        return None
    for first in range(start, len(words)):
        parser = expressions.Parser(words, first)
        expression = parser.expression()
        if expression is not None and parser.at == len(words) and not expression.is_number:
            return expression.text if len(expression.text) <= MAX_CHARACTERS else None
    return None


def _clause_start(words: Sequence[tokens.Token]) -> int:
    """Returns the index behind the last place of a line that no expression can run over."""
    for i in range(len(words) - 1, 0, -1):
        before, after = words[i - 1], words[i]
        is_noun = before.kind == 'word' and before.text != 'of'
        starts_anew = is_noun and after.kind in ('number', '(')
        if starts_anew or before.kind == after.kind == 'number' or before.kind in _ENDS:
            return i
    return 0


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
