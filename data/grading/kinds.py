r"""Classifies answers by kind, so that only answers of one kind are compared.

The kinds, in the order in which they are tried: number in a base (`1234_5`), clock time (`3:30`),
ratio (`3:5`), words, collection (sets, intervals, tuples, lists, matrices), assignment (`x = 5`),
number, expression. `3 = 7` is a contradiction; a text that is none of them is `other`.
"""

import fractions
import functools
import re
from typing import Literal, NamedTuple

from elenchus.data.grading import expressions, numerics, quantities
from elenchus.data.grading.spelling import normalise

Kind = Literal[
    'base', 'time', 'ratio', 'words', 'collection', 'number', 'expression', 'contradiction', 'other'
]

_BASE_WORDS = {
    word: number
    for number, word in enumerate(
        [
            'two',
            'three',
            'four',
            'five',
            'six',
            'seven',
            'eight',
            'nine',
            'ten',
            'eleven',
            'twelve',
            'thirteen',
            'fourteen',
            'fifteen',
            'sixteen',
        ],
        start=2,
    )
} | {'binary': 2, 'octal': 8, 'decimal': 10, 'hexadecimal': 16, 'hex': 16}
_BASE = re.compile(
    r'(?P<sign>-?)\(?(?P<digits>[0-9](?: ?[0-9A-Fa-f.])*|[0-9A-F][0-9A-Fa-f.]*)\)?\s*'
    r'(?:_\s*\{?\s*\(?\s*(?P<low>[0-9]{1,2}|[a-z]+)\s*\)?\s*\}?|'
    r'\(?\s*(?:in )?base[ -](?P<name>[0-9]{1,2}|[a-z]+)\)?)'
)
_TIME = re.compile(
    r'(?P<hour>[0-9]{1,2})(?::(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]))?)?'
    r'\s*(?P<half>[ap]\.?\s?m\b\.?)?',
    re.IGNORECASE,
)
_RATIO = re.compile(r'([0-9.]+)\s*(?::|\bto\b)\s*([0-9.]+)')
_WORDS = re.compile(r"[^\W\d_](?:[^\W\d_]|[\s,.;:'\"!?&-])*")
_ASSIGNMENT = re.compile(
    r'(?P<name>[A-Za-z](?:_\{?\w+\}?)?(?:\([A-Za-z](?:,\s*[A-Za-z])*\))?|\\[A-Za-z]+|\\angle\s*[A-Z]+|[A-Z]{2,3}'
    r"|[A-Za-z][a-z']+(?: [A-Za-z][a-z']+){0,3})\s*=\s*(?P<value>[^=<>]+)"
)
_COORDINATES = re.compile(
    r'(?P<name>\([A-Za-z](?:_\{?\w\}?)?(?:, ?[A-Za-z](?:_\{?\w\}?)?)+\)) ?= ?(?P<value>[^=<>]+)'
)
_CHOICE = re.compile(r'(?:(?i:option|choice|answer) ?)?(?:\( ?([A-Ja-j]) ?\)|([A-J])(?=[.):]|$))')
_RELATION = re.compile(
    r'[=<>]|\\(?:le|ge|ne|in|notin|approx|equiv|sim|subset|cup|cap|pm|mp)(?![a-z])'
)


class Collection(NamedTuple):
    """Items, and what is around them: brackets, 'list', 'union', or 'matrix' and row lengths."""

    around: str
    items: tuple[str, ...]

    @property
    def is_ordered(self) -> bool:
        """Whether the order of the items counts."""
        return self.around not in ('{}', 'list', 'union')


class Reading(NamedTuple):
    """A parsed answer."""

    text: str  # normalised spelling
    kind: Kind
    name: str = ''  # of the variable in `x = 5`
    value: object = None  # by kind: Fraction, Tree, Collection, time, (digits, base), words
    unit: tuple[str, ...] = ()


@functools.lru_cache(maxsize=20_000)
def read(text: str, letters: bool = False) -> Reading:
    """Parses an answer. With `letters`, a lone letter after a number and a space is a unit."""
    return read_normalised(normalise(text), letters)


@functools.lru_cache(maxsize=20_000)
def read_normalised(text: str, letters: bool = False) -> Reading:
    """Parses an answer whose spelling is normalised already."""
    for kind, reader in (('base', _read_base), ('time', _read_time), ('ratio', _read_ratio)):
        if (value := reader(text)) is not None:
            return Reading(text, kind, value=value)
    if text in ('e', 'i') or _WORDS.fullmatch(text) and not _is_list_of_letters(text):
        if len(text) == 1:
            return Reading(text, 'expression', value=expressions.parse(text))
        return Reading(text, 'words', value=words(text))
    match = _ASSIGNMENT.fullmatch(text)
    if match and not (match['name'].isalpha() and len(match['name']) > 1 and ',' in match['value']):
        inner = read_normalised(match['value'].strip(), letters)
        if not inner.name:
            return inner._replace(text=text, name=''.join(match['name'].split()))
    if match := _COORDINATES.fullmatch(text):  # `(x, y) = (2, 1)`
        inner = _read_value(match['value'].strip(), letters)
        if inner.kind == 'collection' and inner.value.is_ordered:
            return inner._replace(text=text, name=''.join(match['name'].split()))
    return _read_value(text, letters)


def _read_value(text: str, letters: bool) -> Reading:
    """Reads a collection, a number or an expression, with its unit."""
    chain = _chain(text, letters)
    if chain is not None:
        return chain
    quantity = quantities.split_unit(text, letters)
    number = quantities.plain_number(quantity.core)
    if number is not None:
        return Reading(text, 'number', value=number, unit=quantity.unit)
    if (collection := read_collection(text)) is not None:
        return Reading(text, 'collection', value=collection)
    core = quantity.core
    if not _RELATION.search(core) and (tree := expressions.parse(core)) is not None:
        return Reading(text, 'expression', value=tree, unit=quantity.unit)
    return Reading(text, 'other', value=words(text))


def _chain(text: str, letters: bool) -> Reading | None:
    """Reads `3 + 4 = 7`, whose parts are numbers, as its last part; None for anything else."""
    parts = [part.strip() for part in text.split('=')]
    if len(parts) < 2 or len(parts) > 6 or re.search(r'[<>]|!=|\\[lgn]e(?![a-z])', text):
        return None
    name = parts.pop(0) if re.fullmatch(r'[A-Za-z]', parts[0]) and len(parts) > 2 else ''
    trees = [expressions.parse(quantities.split_unit(part).core) for part in parts]
    values = [tree and numerics.exact_value(tree) for tree in trees]
    if None in values:
        return None
    if len(set(values)) != 1:
        return Reading(text, 'contradiction')
    last = read_normalised(parts[-1], letters)
    return last._replace(text=text, name=name)


def _read_base(text: str) -> tuple[str, int] | None:
    """Returns the digits and the base of a number such as `1234_5`."""
    match = _BASE.fullmatch(text)
    if not match:
        return None
    word = match['low'] or match['name']
    base = int(word) if word.isdigit() else _BASE_WORDS.get(word)
    if base is None or not 2 <= base <= 36:
        return None
    digits = match['digits'].replace(' ', '').upper()
    if len(digits) == 1 and digits.isalpha() or not re.fullmatch(r'[0-9A-Z]+', digits):
        return None  # a variable with an index, or a fraction
    if any(int(digit, 36) >= base for digit in digits):
        return None
    return match['sign'] + (digits.lstrip('0') or '0'), base


def _read_time(text: str) -> tuple[int, int, int, str] | None:
    """Returns hour, minute, second and 'a', 'p', '' or 'P' (by the hour) of a time of the day."""
    match = _TIME.fullmatch(text)
    if not match or not (match['minute'] or match['half']) or int(match['hour']) > 24:
        return None
    half = (match['half'] or '')[:1].lower()
    hour, minute, second = (int(match[part] or 0) for part in ('hour', 'minute', 'second'))
    if hour > 12:
        hour, half = hour - 12, half or 'P'
    return hour, minute, second, half


def _read_ratio(text: str) -> fractions.Fraction | None:
    match = _RATIO.fullmatch(text)
    terms = match and [quantities.plain_number(term) for term in match.groups()]
    if not terms or None in terms or not terms[1]:
        return None
    return terms[0] / terms[1]


def words(text: str) -> tuple[str, ...]:
    """Returns the words of a text in lower case, without a leading article."""
    parts = re.findall(r'[^\W_]+', re.sub(r"['.]", '', text.casefold()))
    while len(parts) > 1 and parts[0] in ('the', 'a', 'an'):
        parts = parts[1:]
    return tuple(parts)


def _is_list_of_letters(text: str) -> bool:
    """Returns True for `B, E and G`."""
    parts = re.split(r'\s*(?:,|;|\band\b)\s*', text)
    return len(parts) > 1 and all(len(part) == 1 for part in parts if part)


def choice(text: str, *, whole: bool) -> str | None:
    """Returns the letter of a choice such as `(B)`; with `whole`, only if it is the whole text."""
    match = (_CHOICE.fullmatch if whole else _CHOICE.match)(text)
    return match and (match[1] or match[2]).upper()


_MATRIX = re.compile(r'\\begin\{([pbB]?matrix|array)\}(?:\{[clr|]*\})?(.*)\\end\{\1\}', re.DOTALL)


@functools.lru_cache(maxsize=20_000)
def read_collection(text: str) -> Collection | None:
    """Reads a set, interval, tuple, matrix, union or list; None if the text is a single value."""
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        rows = [row.split('&') for row in re.split(r'\\\\', matrix[2]) if row.strip()]
        shape = 'x'.join(str(len(row)) for row in rows)
        cells = tuple(cell.strip() for row in rows for cell in row)
        return Collection(f'matrix {shape}', cells)
    text = text.strip()
    pieces = _split(text, r'\\cup(?![a-z])')
    if len(pieces) > 1:
        return Collection('union', pieces)
    for opening, closing, around in ((r'\{', r'\}', '{}'), ('{', '}', '{}')):
        if text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : len(text) - len(closing)]
            if re.search(r'[|:]|\\in', inner) or not inner.strip():
                return None
            return Collection(around, _split(inner, r'[,;]'))
    if text[:1] in '([' and text[-1:] in ')]' and _is_one_group(text):
        items = _split(text[1:-1], r'[,;]')
        if len(items) == 1:  # `((2, 1))`
            return read_collection(items[0]) if items[0][:1] in ('(', '[') else None
        return Collection(text[0] + text[-1], items)
    items = _split(text, r'\s*[,;]\s*(?:and|or)\s+|[,;]|\s+(?:and|or)\s+')
    return Collection('list', items) if len(items) > 1 else None


def _is_one_group(text: str) -> bool:
    """Returns True if the first bracket closes at the end of the text."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in '([{') - (character in ')]}')
        if depth == 0:
            return place == len(text) - 1
    return False


def _split(text: str, pattern: str) -> tuple[str, ...]:
    """Splits a text where a pattern occurs outside brackets."""
    items, depth, start, place = [], 0, 0, 0
    separator = re.compile(pattern)
    while place < len(text):
        match = separator.match(text, place) if depth == 0 else None
        if match and match.end() > place:
            items.append(text[start:place].strip())
            start = place = match.end()
            continue
        depth += (text[place] in '([{') - (text[place] in ')]}')
        place += 1
    return (*items, text[start:].strip())
