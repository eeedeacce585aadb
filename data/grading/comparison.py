"""Compares two answers: by their kinds first, then by their values.

A false "right" rewards a wrong answer, which is worse than a false "wrong". So two answers are
`RIGHT` only if both kinds and values agree. Where their form is ambiguous the verdict is `UNSURE`,
which is graded as wrong and counted separately.
"""

import enum
import re
from collections.abc import Sequence

from elenchus.data.grading import expressions, kinds, marks, numerics, quantities, relations
from elenchus.data.grading.kinds import Collection, Reading


class Verdict(enum.StrEnum):
    """Result of a comparison; `OPEN` needs algebra, `UNSURE` is graded as wrong."""

    RIGHT = enum.auto()
    WRONG = enum.auto()
    UNSURE = enum.auto()
    OPEN = enum.auto()


RIGHT, WRONG, UNSURE, OPEN = Verdict.RIGHT, Verdict.WRONG, Verdict.UNSURE, Verdict.OPEN


def decide(answer: str, reference: str) -> Verdict:
    """Compares an answer to a reference without math-verify; returns OPEN if it is needed.

    Answers longer than MAX_ANSWER characters are compared as text only.
    """
    if max(len(answer), len(reference)) > quantities.MAX_ANSWER:
        return RIGHT if answer.strip() == reference.strip() else WRONG
    first, second = kinds.read(answer, True), kinds.read(reference)
    if not first.text or not second.text:
        return WRONG
    primes = marks.marks(answer), marks.marks(reference)
    if any(primes):
        same = primes[0] == primes[1] and _squeezed(first.text) == _squeezed(second.text)
        return RIGHT if same else UNSURE
    if re.sub(r'\s+', ' ', first.text) == second.text:
        return RIGHT if re.search(r'[^\W_]', first.text) or '\\' in first.text else WRONG
    right_choice = kinds.choice(second.text, whole=True)
    if right_choice and (choice := kinds.choice(first.text, whole=False)):
        return RIGHT if choice == right_choice else WRONG
    verdict = _by_kind(first, second)
    return _side_by_side(first.text, second.text) if verdict is OPEN else verdict


def _side_by_side(first: str, second: str) -> Verdict:
    """Compares two answers side by side, as equations and relations.

    Returns UNSURE where algebra would be imprecise, and OPEN where only algebra can decide.
    """
    if (verdict := _plus_minus(first, second)) is not None:
        return verdict
    if relations.signs_differ(first, second) or _is_range_and_list(first, second):
        return UNSURE
    if relations.equal_sides(first, second):
        return RIGHT
    texts = (first, second)
    if any(relations.has_extreme_number(text) or relations.two_readings(text) for text in texts):
        return UNSURE
    return OPEN


def _plus_minus(first: str, second: str) -> Verdict | None:
    r"""Compares an expression with `\pm` and a list of two values; None for other texts."""
    values = relations.both_values(first) or relations.both_values(second)
    collection = kinds.read_collection(second if relations.both_values(first) else first)
    if values is None or collection is None or collection.around not in ('{}', 'list'):
        return None
    if len(collection.items) != 2:
        return UNSURE
    return RIGHT if _unordered(values, collection.items) is RIGHT else UNSURE


def _is_range_and_list(first: str, second: str) -> bool:
    """Returns True if one text is a range, `0 < x < 1`, and the other lists values, `0, 1`."""
    ranges = [relations.is_range(text) for text in (first, second)]
    if ranges[0] == ranges[1]:
        return False
    collection = kinds.read_collection(second if ranges[0] else first)
    return collection is not None and collection.around in ('{}', 'list')


def _by_kind(first: Reading, second: Reading) -> Verdict:
    """Compares two readings by kind; the kinds with the least room for meaning come first."""
    pair = {first.kind, second.kind}
    if 'words' in pair:
        return _words(first, second)
    if 'contradiction' in pair:
        return UNSURE
    if 'base' in pair:
        return _bases(first, second)
    if 'time' in pair:
        return _times(first, second)
    if first.name and second.name and first.name != second.name:
        return UNSURE if 'other' not in pair else _others(first, second)
    if 'ratio' in pair:
        return _ratios(first, second)
    if 'other' in pair:
        return _others(first, second)
    if 'collection' in pair:
        return _collections(first, second)
    if pair == {'number'}:
        return _numbers(first, second)
    return _expressions(first, second)


def _words(first: Reading, second: Reading) -> Verdict:
    """Compares words; the order of the words and of their letters matters."""
    if first.kind == second.kind:
        if ''.join(first.value) == ''.join(second.value):
            return RIGHT
        return UNSURE if set(first.value) & set(second.value) else WRONG
    text, other = (first, second) if first.kind == 'words' else (second, first)
    tree = expressions.parse(text.text) if other.kind == 'expression' else None
    if tree is not None:  # `ab` is also a product of two letters
        return RIGHT if numerics.equal(tree, other.value) else UNSURE
    return WRONG if other.kind in ('number', 'time', 'base', 'ratio', 'expression') else UNSURE


def _bases(first: Reading, second: Reading) -> Verdict:
    """Compares numerals and their bases; only one in base 10 may omit its base."""
    if first.kind == second.kind:
        if first.value == second.value:
            return RIGHT
        values = [int(digits, base) for digits, base in (first.value, second.value)]
        return UNSURE if values[0] == values[1] else WRONG
    numeral, other = (first, second) if first.kind == 'base' else (second, first)
    digits, base = numeral.value
    if other.kind != 'number':
        return UNSURE if other.kind == 'other' else WRONG
    if base == 10:
        return RIGHT if other.value == int(digits) else WRONG
    same = other.value == int(digits, base) or str(other.value) == digits
    return UNSURE if same else WRONG


def _times(first: Reading, second: Reading) -> Verdict:
    """Compares times of the day; one side may omit a.m. or p.m.

    A reference that is a number without a unit may be an hour: `6 PM` is 6, and `6:00` may be.
    """
    if first.kind != second.kind:
        time, number = (first, second) if first.kind == 'time' else (second, first)
        if number.kind == 'number' and not number.unit and time.value[1:3] == (0, 0):
            hours = {time.value[0] + 12 * (time.value[3] in ('p', 'P')), time.value[0]}
            if number.value in hours:
                certain = time is first and time.value[3] in ('a', 'p')
                return RIGHT if certain and number.value == time.value[0] else UNSURE
        return WRONG if {first.kind, second.kind} <= {'time', 'number', 'expression'} else UNSURE
    *clock, half = first.value
    *other_clock, other_half = second.value
    if clock != other_clock:
        return WRONG
    if half.lower() == other_half.lower():
        return RIGHT
    return RIGHT if '' in (half, other_half) and 'P' not in (half, other_half) else UNSURE


def _ratios(first: Reading, second: Reading) -> Verdict:
    if first.kind == second.kind:
        return RIGHT if first.value == second.value else WRONG
    other = second if first.kind == 'ratio' else first
    if other.kind == 'number' and not other.unit:
        return RIGHT if first.value == second.value else WRONG
    return UNSURE


def _numbers(first: Reading, second: Reading) -> Verdict:
    """Compares exact numbers and units; `50%` equals both 50 and 0.5.

    The references of the data sets omit percent signs, and answers write either form.
    """
    percents = ['percent' in reading.unit for reading in (first, second)]
    a, b = first.value, second.value
    if percents[0] != percents[1]:
        same = a == b or (100 * b == a if percents[0] else 100 * a == b)
        other_unit = second.unit if percents[0] else first.unit
        return WRONG if not same else UNSURE if other_unit else RIGHT
    if a != b:
        return WRONG
    return RIGHT if quantities.units_agree(first.unit, second.unit) else UNSURE


def _expressions(first: Reading, second: Reading) -> Verdict:
    """Compares numbers and expressions by exact and precise arithmetic."""
    trees = [_tree(reading) for reading in (first, second)]
    if None in trees:
        return OPEN
    if first.unit and second.unit and not quantities.units_agree(first.unit, second.unit):
        return UNSURE
    if 'percent' in first.unit + second.unit and first.unit != second.unit:
        return OPEN
    same = numerics.equal(*trees)
    if same is None:
        return OPEN
    if not same and _is_rounded(first, second, trees=trees):
        return UNSURE
    if not same and _same_letters(first, second):
        return UNSURE
    return RIGHT if same else WRONG


def _tree(reading: Reading) -> expressions.Tree | None:
    return ('number', reading.value) if reading.kind == 'number' else reading.value


def _is_rounded(first: Reading, second: Reading, *, trees: Sequence[expressions.Tree]) -> bool:
    """Returns True if one side may be the other one after rounding."""
    if not any('.' in reading.text for reading in (first, second)):
        return False
    if any(numerics.variables(tree) for tree in trees):
        return False
    return numerics.nearly_equal(*trees)


def _same_letters(first: Reading, second: Reading) -> bool:
    """Returns True if only the case of the letters differs."""
    return first.text != second.text and first.text.casefold() == second.text.casefold()


def _others(first: Reading, second: Reading) -> Verdict:
    """Compares texts of no known kind: as text, or by algebra if they may be formulas.

    A text with a word of three letters or more is no formula: algebra would multiply its letters.
    """
    if _squeezed(first.text) == _squeezed(second.text):
        return RIGHT
    if _same_equation(first.text, second.text):
        return RIGHT
    long_words = [expressions.long_words(reading.text) for reading in (first, second)]
    if long_words[0] != long_words[1]:
        texts = [reading for reading, long in zip((first, second), long_words, strict=True) if long]
        return UNSURE if texts else WRONG
    if long_words[0]:
        return UNSURE
    if any(not re.search(r'[\\A-Za-z0-9]', reading.text) for reading in (first, second)):
        return WRONG
    if any(re.search(r'[0-9]\s*_', reading.text) for reading in (first, second)):
        return UNSURE  # a number in a base that it cannot have
    if any(re.search(r'[0-9] +[0-9]', reading.text) for reading in (first, second)):
        return UNSURE  # numbers beside each other
    return OPEN


def _same_equation(first: str, second: str) -> bool:
    """Returns True if two equations are equal up to a constant factor."""
    differences = []
    for text in (first, second):
        sides = [expressions.parse(side.strip()) for side in text.split('=')]
        if len(sides) != 2 or None in sides or re.search(r'[<>!]', text):
            return False
        differences.append(('sum', sides[0], ('negative', sides[1])))
    return numerics.proportional(*differences)


def _squeezed(text: str) -> str:
    """Removes all spaces except those between two digits."""
    return re.sub(r'(?<![0-9])\s+|\s+(?![0-9])', '', text)


def _collections(first: Reading, second: Reading) -> Verdict:
    """Compares sets, intervals, tuples, matrices and lists item by item."""
    if first.kind != second.kind:
        single, several = (first, second) if first.kind != 'collection' else (second, first)
        if several.value.around.startswith('('):
            digits = re.sub(r'[(), ]', '', several.text)
            return UNSURE if digits == single.text else WRONG
        return WRONG if len(several.value.items) > 1 else OPEN
    one, two = first.value, second.value
    if one.around != two.around:
        if {one.around, two.around} == {'{}', 'list'}:
            return _unordered(one.items, two.items)
        return _different_brackets(one, two)
    return (_ordered if one.is_ordered else _unordered)(one.items, two.items)


_BRACKETS = {'()', '[]', '(]', '[)'}


def _different_brackets(one: Collection, two: Collection) -> Verdict:
    """Compares collections with different brackets. A pair or an interval is no list and no set.

    Exception: a list or set with the same items in the same order is UNSURE, as it may be a pair
    written without its brackets. Matrices and unions have several spellings: OPEN, so that algebra
    decides, except a matrix beside a list or set, which is UNSURE.
    """
    around = {one.around, two.around}
    if around <= _BRACKETS:
        return WRONG
    if around & _BRACKETS and around & {'{}', 'list'}:
        return UNSURE if _ordered(one.items, two.items) is not WRONG else WRONG
    if around & {'{}', 'list'} and any(name.startswith('matrix') for name in around):
        return UNSURE
    return OPEN


def _items(items: Sequence[str], others: Sequence[str]) -> list[list[Verdict]]:
    return [[_item(item, other) for other in others] for item in items]


def _item(item: str, other: str) -> Verdict:
    """Compares two items of collections."""
    first, second = (kinds.read_normalised(text) for text in (item, other))
    if not first.text or not second.text:
        return UNSURE
    if _squeezed(first.text) == _squeezed(second.text):
        return RIGHT
    if first.kind == second.kind == 'other' and {r'\infty', 'infty'} & {
        text.strip('+-') for text in (first.text, second.text)
    }:
        return WRONG
    infinite = [r'\infty' in reading.text for reading in (first, second)]
    if infinite[0] != infinite[1] and 'number' in (first.kind, second.kind):
        return WRONG
    return _by_kind(first, second)


def _ordered(items: Sequence[str], others: Sequence[str]) -> Verdict:
    if len(items) != len(others):
        return WRONG
    return _all(_item(item, other) for item, other in zip(items, others, strict=True))


def _unordered(items: Sequence[str], others: Sequence[str]) -> Verdict:
    """Compares items in any order: a set equals another if each item has its equal."""
    if max(len(items), len(others)) > 30:
        return OPEN
    table = _items(items, others)
    verdicts = [_any(row) for row in table]
    verdicts += [_any(column) for column in zip(*table, strict=True)]
    same = _all(verdicts)
    return UNSURE if same is RIGHT and len(items) != len(others) else same


def _all(verdicts) -> Verdict:
    """Combines verdicts that must all be right."""
    verdicts = set(verdicts)
    return next((v for v in (WRONG, UNSURE, OPEN) if v in verdicts), RIGHT)


def _any(verdicts) -> Verdict:
    """Combines verdicts of which at least one must be right."""
    verdicts = set(verdicts)
    return next((v for v in (RIGHT, OPEN, UNSURE) if v in verdicts), WRONG)
