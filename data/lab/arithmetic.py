"""Arithmetic of the lab: how numbers are written, and how an operation is worked out in digits.

The modulus is 10 or 100, and a number always has as many digits as the modulus has zeros. Its units
come first, the order in which they are worked out: small models learn sums much sooner that way
(arXiv 2307.03381).
"""


def write(value: int, modulus: int) -> str:
    """Writes a number with all its digits, units first.

    >>> write(7, 10), write(47, 100), write(7, 100)
    ('7', '74', '70')
    """
    return f'{value:0{len(str(modulus)) - 1}d}'[::-1]


def read(text: str) -> int:
    """Reads a number that `write` wrote; `read('74')` is 47."""
    return int(text[::-1])


def apply(first: int, sign: str, second: int, *, modulus: int) -> int:
    """Returns the sum ('+'), difference ('-') or product ('*'), modulo `modulus`."""
    results = {'+': first + second, '-': first - second, '*': first * second}
    return results[sign] % modulus


def work_out(first: int, sign: str, second: int, *, modulus: int, result: int | None = None) -> str:
    """Writes an operation as operations on single digits, which a small model does without fault.

    Modulo 100 these are the units, whose result is a unit and a carry (or borrow); the tens; and
    the tens with the carry. A factor of a product has one digit.

    >>> work_out(7, '-', 8, modulus=10)
    '7 - 8 = 9'
    >>> work_out(47, '+', 38, modulus=100)
    '7 + 8 = 51 ; 4 + 3 = 70 ; 7 + 1 = 80'
    >>> work_out(47, '*', 6, modulus=100)
    '7 * 6 = 24 ; 4 * 6 = 42 ; 4 + 4 = 80'

    With a `result`, the text ends in that value instead: a false derivation.
    """
    if modulus == 10:
        value = apply(first, sign, second, modulus=10) if result is None else result
        return f'{first} {sign} {second} = {value}'
    (tens, units), (other_tens, other_units) = divmod(first, 10), divmod(second, 10)
    if sign == '*':
        other_tens = other_units
    carry, unit = _of_digits(units, sign, other_units)
    first_carry, ten = _of_digits(tens, sign, other_tens)
    last_sign = '+' if sign == '*' else sign
    last_carry, last = _of_digits(ten, last_sign, carry)
    if result is not None:
        last, unit = divmod(result, 10)
    return (
        f'{units} {sign} {other_units} = {unit}{carry} ; '
        f'{tens} {sign} {other_tens} = {ten}{first_carry} ; '
        f'{ten} {last_sign} {carry} = {last}{last_carry}'
    )


def difference(first: int, second: int, *, modulus: int) -> str:
    """Writes the subtraction, digit by digit, that compares two values; all 0 = equal.

    Small models did not learn to compare two digits, but they learn a subtraction like any sum.

    >>> difference(8, 5, modulus=10), difference(85, 19, modulus=100)
    ('8 - 5 = 3', '58 - 91 = 67')
    """
    texts = write(first, modulus), write(second, modulus)
    digits = ''.join(str((int(a) - int(b)) % 10) for a, b in zip(*texts, strict=True))
    return f'{texts[0]} - {texts[1]} = {digits}'


def _of_digits(first: int, sign: str, second: int) -> tuple[int, int]:
    """Returns (carry or borrow, unit) of an operation on two digits."""
    if sign == '-':
        return int(first < second), (first - second) % 10
    return divmod(apply(first, sign, second, modulus=100), 10)
