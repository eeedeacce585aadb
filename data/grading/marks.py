r"""Finds prime and inch marks and inverse functions, which algebra would leave out.

`5'11"` is not 511, `f'(x)` is not `f(x)` and `f^{-1}(x)` is not `1/f(x)`. The marks are read from
the original text, because the normalised spelling has no `"`.
"""

import re

_ALIKE = str.maketrans({'\u2019': "'", '\u2018': "'", '\u2032': "'", '\u02b9': "'", '\u00b4': "'"})
_DOUBLE = re.compile("\u2033|\u201d|\u02ba|''|\\^\\{?\\\\prime\\\\prime\\}?")
_TRIPLE = re.compile('\u2034')
_SINGLE = re.compile(r'\^\s*\{?\s*\\prime\s*\}?|\\prime(?![A-Za-z])')
_THOUSANDS = re.compile(r"(?<![\d.,'])[1-9]\d{0,2}(?:'\d{3})+(?![\d'\"])")
_QUOTED = re.compile(
    r"""\s*(?:["\u201c]([^"\u201c\u201d]*)["\u201d]|['\u2018]([^'\u2018\u2019]*)['\u2019])[.,]?\s*"""
)
_MARK = re.compile(
    r"""(?:(?<=[0-9)\]}])|(?<=(?<![A-Za-z])[A-Za-z])|(?<=[A-Z]))\s?(['"]+)(?!(?:[sS]|m|d|t|ll|re|ve)(?![A-Za-z]))"""
)
_INVERSE = re.compile(
    r'(?<![A-Za-z\\])[fghFGHPQpq]\s*\^\s*\{?\s*-\s*1\s*\}?\s*\(|(?<![A-Za-z\\])[fgh]\s*\^\s*\{?\s*-\s*1(?![0-9])|'
    r'(?<![A-Za-z\\])[fghy]\s*\^\s*\{?\s*\(\s*[0-9n]+\s*\)'
)


def marks(text: str) -> tuple[str, ...]:
    """Returns the primes, feet and inch marks and the inverse functions of a text, in order."""
    if quoted := _QUOTED.fullmatch(text):
        text = quoted[1] or quoted[2] or ''
    text = _TRIPLE.sub("'''", text.translate(_ALIKE))
    text = _SINGLE.sub("'", _DOUBLE.sub('"', text))
    text = _THOUSANDS.sub('0', text)
    primes = [match[1].replace('"', "''") for match in _MARK.finditer(text)]
    return tuple(primes + ['inverse'] * len(_INVERSE.findall(text)))
