"""Where the numbers of a step may come from: the question, earlier steps, well-known constants."""

import re
from collections.abc import Iterator

from elenchus.data.critiques.calculator import tokens
from elenchus.data.critiques.calculator.expressions import Fraction

CONSTANTS = frozenset(
    map(Fraction, (0, 1, 2, 3, 4, 5, 7, 10, 12, 16, 24, 28, 29, 30, 31, 36, 52, 60, 90, 100, 180))
) | frozenset(map(Fraction, (360, 365, 366, 1000, 3600)))
"""Numbers that a solution may use without a source: units of time, money and length, and counts."""

_WORD = re.compile(r'[A-Za-z]+')
_NUMBER = re.compile(r'\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d*\.\d+|\d+')
_TOO_LONG = re.compile(rf'\d{{{tokens.MAX_DIGITS + 1},}}')
_MIXED = re.compile(r'(?:(\d+)\s*(?:and\s+)?)?(\d+)\s*/\s*(\d+)')
_CLOSE = re.compile(r'[.;?!]\s|\n|,\s|\s(?:and|but|then|so|who|which|that|if|when)\s')
MAX_QUOTE = 60


def numbers_of(text: str) -> set[Fraction]:
    """Returns every number that a text may mean, in digits, words, parts and percentages.

    Rather one too many: what is not in the set is certainly not in the text.
    """
    text = _TOO_LONG.sub(' ', text)
    matches = [match[0].replace(',', '') for match in _NUMBER.finditer(text)]
    numbers = {Fraction(match) for match in matches if len(match) <= tokens.MAX_DIGITS}
    numbers |= {Fraction(digits) for digits in re.findall(r'\d+', text)}
    for whole, top, bottom in _MIXED.findall(text):
        if int(bottom):
            part = Fraction(int(top), int(bottom))
            numbers |= {part, 1 - part, part + int(whole or 0)}
    words = [word.lower() for word in _WORD.findall(text)]
    numbers |= set(_of_words(words))
    if '%' in text or 'percent' in text.lower() or 'cent' in text.lower():
        numbers |= {part for n in numbers for part in (n / 100, 1 - n / 100, 1 + n / 100, 100 - n)}
    return numbers


def _of_words(words: list[str]) -> Iterator[Fraction]:
    value = Fraction(0)
    for word in (*words, ''):
        singular = word.removesuffix('s')
        if word in tokens.CARDINALS:
            yield tokens.CARDINALS[word]
            value += tokens.CARDINALS[word]
        elif singular in tokens.SCALES:
            yield Fraction(tokens.SCALES[singular])
            value = (value or 1) * tokens.SCALES[singular]
        elif word != 'and':
            value = Fraction(0)
        if value:
            yield value
        if word in tokens.PARTS or singular in tokens.PARTS:
            bottom = tokens.PARTS.get(word) or tokens.PARTS[singular]
            yield from (Fraction(top, bottom) for top in range(1, bottom + 1))
            yield Fraction(bottom)
        if word in tokens.MULTIPLES:
            yield Fraction(tokens.MULTIPLES[word])


def quote(question: str, value: Fraction) -> str | None:
    """Returns the words of a question around the only place that states a number, else None."""
    places = [
        match
        for match in _NUMBER.finditer(question)
        if len(match[0]) <= tokens.MAX_DIGITS
        and Fraction(match[0].replace(',', '')) == value
        and not re.match(r'\s*[/:]|%', question[match.end() :])
    ]
    if len(places) != 1:
        return None
    start, end = places[0].span()
    begin = max((m.end() for m in _CLOSE.finditer(question[:start])), default=0)
    close = _CLOSE.search(question, end)
    finish = close.start() if close else len(question)
    text = question[begin:finish].strip().rstrip('.?!,;')
    if len(text) > MAX_QUOTE:
        words = question[end:finish].split()[:3]
        text = ' '.join([question[start:end], *words]).rstrip('.?!,;')
    return text if text and '"' not in text and len(text) <= MAX_QUOTE else None
