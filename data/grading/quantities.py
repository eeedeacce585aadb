r"""Parses numbers with their units, currencies, degrees, percent signs and hedges.

`about 42 apples (in total)` is 42 with the unit `apple`; `\$1.5 million` is 1500000 with `dollar`.
"""

import fractions
import functools
import re
from typing import NamedTuple

from elenchus.data.grading import unit_words
from elenchus.data.grading.spelling import normalise

MAX_ANSWER = 1000  # characters; longer answers are compared as text only

_INTEGER = r'(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[0-9]+)'
_DECIMAL = rf'(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)'
_NUMBER = re.compile(
    rf'(?P<sign>[-+]?)\s*(?:(?P<whole>{_INTEGER})\s+(?={_INTEGER}\s*/))?(?P<top>{_DECIMAL})'
    rf'(?:\s*/\s*(?P<bottom>-?{_DECIMAL})|[eE](?P<exponent>[-+]?[0-9]{{1,3}}))?'
)
NUMBER_IN_TEXT = re.compile(rf'{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+')
"""A number in a sentence, such as `1,234.50` or `.5`; a full stop after it is not part of it."""

_FRACTION = re.compile(
    rf'\\frac\s*(?:\{{\s*(-?{_DECIMAL})\s*\}}|([0-9]))\s*(?:\{{\s*({_DECIMAL})\s*\}}|([0-9]))'
)
_REPEATING = re.compile(
    r'(?P<sign>-?)(?P<whole>[0-9]{0,50})\.(?P<fixed>[0-9]{0,50})\\overline\{(?P<again>[0-9]{1,50})\}'
)
_SCALES = {
    'hundred': 2, 'thousand': 3, 'lakh': 5, 'million': 6, 'crore': 7, 'billion': 9, 'trillion': 12,
}  # fmt: skip
_SCALE = re.compile(rf'\s*({"|".join(_SCALES)})s?$', re.IGNORECASE)

_HEDGE = re.compile(
    r'(?:(?:about|approximately|approx\.?|roughly|around|exactly|precisely|only|just|ca\.|circa|'
    r'the\s+(?:final\s+)?answer\s+is|(?:final\s+)?answer(?=\s*:)|it\s+is|there\s+is|'
    r'(?:he|she|it|they|we|[A-Z][a-z]+)\s+(?:has|have|had|needs?|earns?|earned|pays?|paid|spends?|spent|'
    r'bought|sold|made|makes?|gets?|got|costs?)|'
    r'(?:a|the)\s+total\s+(?:of|is)|total(?:\s+of)?|equal\s+to|equals|is|are|there\s+are)(?![A-Za-z])|'
    r'\\(?:approx|sim|simeq|thickapprox)(?![A-Za-z])|~|=|:)\s*',
    re.IGNORECASE,
)
_REMARK = re.compile(
    r"\s+\((?=[^()]*[A-Za-z]{2})[A-Za-z][A-Za-z ,.'-]*\)\s*$|"
    r'[\s,]+(?:in (?:total|all)|altogether|total|approximately|respectively)\s*$',
    re.IGNORECASE,
)

_SYNONYMS = """
cm centimeter centimetre|m meter metre|mm millimeter millimetre|km kilometer kilometre kms|inch in
inches|ft foot feet|yd yard|mi mile|g gm gram gramme|kg kilogram kgs|mg milligram|lb pound lbs|
oz ounce|s sec second|min minute mins|h hr hour hrs|ms millisecond|l liter litre|
ml milliliter millilitre|mph|kmh kph|w watt|kw kilowatt|kwh|hz hertz|khz|mhz|n newton|j joule|kj|
v volt|a ampere amp|k kelvin|pa|kpa|kb|mb|gb|tb|cal calorie|kcal|mol mole|rad radian|celsius|
fahrenheit|usd dollar $ us$|eur euro \u20ac|gbp \u00a3|inr rupee rs rs. \u20b9|jpy yen \u00a5|
cny rmb yuan|krw won \u20a9|cent \u00a2|percent % pct|degree \\degree|gal gallon|pt pint|qt quart|
day|week|month|year yr|a$ aud|c$ cad|chf|person people
"""
_CANONICAL = {
    word: group.split()[0]
    for group in _SYNONYMS.replace('\n', ' ').split('|')
    for word in group.split()
}
_SHORT = frozenset(
    word for word in _CANONICAL if len(word) > 1 or word in '%$\u20ac\u00a3\u20b9\u00a5\u20a9\u00a2'
)
_LETTERS = frozenset('mshglLWNJVACF')  # not K, which is also a thousand
_FILLERS = frozenset(
    [
        'of',
        'a',
        'an',
        'in',
        'the',
        'each',
        'every',
        'total',
        'altogether',
        'old',
        'long',
        'high',
        'tall',
        'wide',
    ]
)
_NOUN = re.compile(r"(?=[^ ]*[aeiouy])[a-z]{3,}(?:[-'][a-z]+)*")
_SIGN = r'[%$\u20ac\u00a3\u20b9\u00a5\u20a9\u00a2]'
_TOKEN = re.compile(
    r'\\degree|\^\{?(-?[123])\}?|/|\\cdot|\\times|(?:US|[AC])?\$|'
    rf"{_SIGN}|Rs\.|[A-Za-z]+(?:[-'][A-Za-z]+)*|[.,*]|\s+"
)
_PLACE = re.compile(rf'(?<=[0-9}}).!%])\s*(?=[A-Za-z\\]|{_SIGN})|\s+')
_PREFIX = re.compile(
    r'(-?)\s*((?:US|[AC])?\$|[\u20ac\u00a3\u20b9\u00a5\u20a9]|'
    r'(?:USD|EUR|GBP|INR|JPY|CNY|CAD|AUD|CHF)\b|Rs\.?(?![a-z]))\s*(?=[-.\\0-9])'
)
_ANGLE = re.compile(r'\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])')


class Quantity(NamedTuple):
    """A core, which is a number or an expression, and its unit; either may be empty."""

    core: str
    unit: tuple[str, ...]

    @property
    def is_percent(self) -> bool:
        """Whether the core is a percentage."""
        return self.unit == ('percent',)


@functools.lru_cache(maxsize=20_000)
def split_unit(text: str, letters: bool = False) -> Quantity:
    """Splits a normalised text into its core and its unit.

    Args:
        text: From `spelling.normalise`.
        letters: Whether a lone letter after a space is a unit (`12 m`) and not a variable.
    """
    text = _strip_beside(text)
    prefix = _PREFIX.match(text)
    currency = ()
    if prefix:
        currency = (_canonical_unit(prefix[2]),)
        text = prefix[1] + text[prefix.end() :]
    for place in _PLACE.finditer(text):
        core, rest = text[: place.start()], text[place.end() :]
        if not core or not rest or not re.search(r'[0-9})!.]$|\\[a-z]+$|[a-zA-Z%]$', core):
            continue
        unit = _read_unit(rest, spaced=bool(place[0]), letters=letters)
        is_angle = unit == ('degree',) and _ANGLE.search(core)
        if unit is not None and not is_angle and re.search(r'[0-9\\]', core):
            return Quantity(core.rstrip(' ,'), currency or unit)
    return Quantity(text, currency)


def _strip_beside(text: str) -> str:
    """Removes hedges before a value and remarks after it."""
    hedge = re.match(f'(?:{_HEDGE.pattern})+', text, re.IGNORECASE)
    if hedge and re.match(r'[-+.0-9\\$\u20ac\u00a3\u20b9\u00a5(]|[A-Z]{3} ', text[hedge.end() :]):
        text = text[hedge.end() :]
    while re.search(r'[0-9\\]', text) and (remark := _REMARK.search(text)):
        if not re.search(r'[0-9\\}]', text[: remark.start()]) or unit_words.doubt(remark[0]):
            break
        text = text[: remark.start()]
    return text.strip()


def _read_unit(text: str, *, spaced: bool, letters: bool) -> tuple[str, ...] | None:
    """Returns the canonical words of a unit; None if the text is something else."""
    words, power, place = [], '', 0
    tokens = []
    while place < len(text):
        token = _TOKEN.match(text, place)
        if not token:
            return None
        place = token.end()
        if token[0].strip() and token[0] not in '.,*' and token[0] not in (r'\cdot', r'\times'):
            tokens.append(token)
    if not tokens or len(tokens) > 9:
        return None
    compound = any(token[0] == '/' or (token[1] or '').startswith('-') for token in tokens)
    for token in tokens:
        word = token[0]
        if token[1]:
            if not words:
                return None
            words[-1:] = ['/', words[-1]] if token[1][0] == '-' else words[-1:]
            words.append(f'^{token[1].lstrip("-")}')
            continue
        if word in ('square', 'sq', 'cubic'):
            power = '^3' if word == 'cubic' else '^2'
            continue
        canonical = _unit_word(word, spaced=spaced or compound, letters=letters or compound)
        if canonical is None:
            return None
        if canonical:
            words += [canonical, power] if power and canonical != '/' else [canonical]
            power = '' if canonical != '/' else power
    words = [word for word in words if word != '^1' and word]
    if power and not words:
        words = ['unit', power]
    return _simplified(tuple(words))


def _simplified(words: tuple[str, ...]) -> tuple[str, ...]:
    """Returns one form of the spellings of speeds (`mph`, `km/h`) and of degrees of temperature."""
    if words in (('mph',), ('kmh',), ('kph',)):
        return ('mi', '/', 'h') if words == ('mph',) else ('km', '/', 'h')
    if len(words) == 2 and words[0] == 'degree':
        return ({'c': 'celsius', 'f': 'fahrenheit'}.get(words[1], words[1]),)
    return words


def _unit_word(word: str, *, spaced: bool, letters: bool) -> str | None:
    """Returns the canonical form of a word of a unit, '' for a filler, None if it is no unit."""
    if word == '/' or word.lower() == 'per':
        return '/'
    lower = word.lower()
    if lower in _FILLERS:
        return '' if spaced else None
    if (
        word in _SHORT
        or lower in _SHORT
        and len(word) > 1
        or lower.rstrip('s') in _SHORT
        and len(word) > 3
    ):
        return _canonical_unit(word)
    if word in ('C', 'F'):
        return _canonical_unit(word) if letters else 'c' if word == 'C' else 'f'
    if len(word) == 1:
        return _canonical_unit(word) if letters and spaced and word in _LETTERS else None
    if spaced and _NOUN.fullmatch(lower) and unit_words.may_be_unit(lower):
        return _canonical_unit(word)
    return None


def _canonical_unit(word: str) -> str:
    """Returns the canonical spelling of a unit: singular, lower case."""
    lower = word.lower().removesuffix("'s").removesuffix("'")
    for form in (lower, lower.removesuffix('s'), lower.removesuffix('es')):
        if form in _CANONICAL:
            return _CANONICAL[form]
    if lower.endswith('ies') and len(lower) > 4:
        return lower[:-3] + 'y'
    return lower.removesuffix('s') if not lower.endswith('ss') else lower


def units_agree(unit: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Returns True if two units may be the same: equal, one missing, or one with more words."""
    if not unit or not other or unit == other:
        return True
    first, second = set(unit) - _FILLERS, set(other) - _FILLERS
    measures = (first | second) & (set(_CANONICAL.values()) | {'/', '^2', '^3', 'unit'})
    return not measures and (first <= second or second <= first)


@functools.lru_cache(maxsize=20_000)
def plain_number(core: str) -> fractions.Fraction | None:
    """Returns the exact value of a core that is one number, else None."""
    text = _FRACTION.sub(lambda m: f' {m[1] or m[2]}/{m[3] or m[4]}', core).strip()
    text = re.sub(r'^([-+])\s+', r'\1', re.sub(r'^\((.*)\)$', r'\1', text) if '/' in core else text)
    if match := _REPEATING.fullmatch(text):
        return _repeating(**match.groupdict())
    scale = _SCALE.search(text)
    match = _NUMBER.fullmatch(text[: scale.start()] if scale else text)
    if not match:
        return None
    top, bottom, whole = (
        match[name] and fractions.Fraction(match[name].replace(',', ''))
        for name in ('top', 'bottom', 'whole')
    )
    if bottom == 0 or whole is not None and (bottom is None or bottom < 0):
        return None
    value = (whole or 0) + (top if bottom is None else top / bottom)
    exponent = int(match['exponent'] or 0) + (_SCALES[scale[1].lower()] if scale else 0)
    value *= fractions.Fraction(10) ** exponent
    return -value if match['sign'] == '-' else value


def parse_number(text: str) -> fractions.Fraction | None:
    r"""Parses one number exactly: `-1,234.50`, `$3`, `50\%`, `3 1/2`, `1e3`, `18 dollars`.

    A percent sign is dropped, not divided out, because the reference answers of the data sets do
    the same. Repeating decimals are supported: `0.1\overline{6}`. Returns None for anything else:
    expressions, lists, several numbers, digits of other scripts.
    """
    if len(text) > MAX_ANSWER:
        return None
    return plain_number(split_unit(normalise(text)).core)


def _repeating(*, sign: str, whole: str, fixed: str, again: str) -> fractions.Fraction:
    """Returns the value of the decimal whole.fixed(again)(again)..."""
    nines = 10 ** len(again) - 1
    value = int(whole + fixed or '0') + fractions.Fraction(int(again), nines)
    return value / fractions.Fraction(10) ** len(fixed) * (-1 if sign else 1)
