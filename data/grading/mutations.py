"""Changes reference answers into wrong ones, to count how often a verifier calls them right.

A change is one of `CHANGES`: another digit, the other sign, two letters of a word swapped, another
unit. It is made only where it certainly makes the answer wrong.
"""

import random
import re
from collections.abc import Callable, Sequence

from elenchus.data.grading import kinds, quantities
from elenchus.data.grading.spelling import normalise

_UNITS = ('km', 'kg', 'hours', 'dollars', 'liters', 'chairs')
_WORD = re.compile(r'(?<![\\A-Za-z{])[A-Za-z]{2,}(?![A-Za-z}]*\{)|(?<=\{)[A-Za-z]{2,}')


def change_digit(answer: str, rng: random.Random) -> str | None:
    """Returns the answer with another digit in one place; None if it has none."""
    places = [match.start() for match in re.finditer(r'[0-9]', answer)]
    if not places:
        return None
    place = rng.choice(places)
    digit = rng.choice([d for d in '123456789' if d != answer[place]])
    return answer[:place] + digit + answer[place + 1 :]


def change_sign(answer: str, rng: random.Random) -> str | None:
    """Returns the answer with the other sign before its first number; None if that is zero."""
    del rng
    number = re.search(r'\\frac|\\sqrt|[0-9.]+', answer)
    if not number or not number[0].strip('0.') or r'\pm' in answer[: number.end()]:
        return None
    start = number.start()
    before = answer[:start].rstrip()
    if before.endswith('-'):
        return before[:-1] + ('+' if before[:-1].strip(' ([{$\\') else '') + answer[start:]
    return answer[:start] + '-' + answer[start:]


def swap_letters(answer: str, rng: random.Random) -> str | None:
    """Returns a text with two neighbouring letters of a word exchanged; None if it has no words."""
    if kinds.read(answer).kind != 'words':
        return None
    places = [
        match.start() + k
        for match in _WORD.finditer(answer)
        if match[0] not in ('text', 'mbox', 'textbf')
        for k in range(len(match[0]) - 1)
        if match[0][k].casefold() != match[0][k + 1].casefold()
    ]
    if not places:
        return None
    k = rng.choice(places)
    return answer[:k] + answer[k + 1] + answer[k] + answer[k + 2 :]


def change_unit(answer: str, rng: random.Random) -> str | None:
    """Returns a number with another unit; None if the answer is no number with a unit."""
    quantity = quantities.split_unit(normalise(answer))
    if not quantity.unit or quantity.is_percent:
        return None
    names = [name for name in _UNITS if quantities.split_unit(f'1 {name}').unit != quantity.unit]
    return rf'{quantity.core} \text{{ {rng.choice(names)}}}'


CHANGES: dict[str, Callable[[str, random.Random], str | None]] = {
    'digit': change_digit,
    'sign': change_sign,
    'letters': swap_letters,
    'unit': change_unit,
}
"""Name -> function of (answer, random numbers), which returns None where it does not apply."""


def mutate(references: Sequence[str], count: int) -> dict[str, list[tuple[str, str]]]:
    """Returns at most `count` pairs (wrong answer, reference), evenly from the changes that apply.

    Returns the pairs by the name of the change. A change that leaves the text as it was is skipped.
    """
    rng = random.Random(0)
    pairs: dict[str, list[tuple[str, str]]] = {}
    for name, change in CHANGES.items():
        order = rng.sample(references, len(references))
        mutated = ((change(reference, rng), reference) for reference in order)
        pairs[name] = [pair for pair in mutated if pair[0] is not None and pair[0] != pair[1]]
    chosen: dict[str, list[tuple[str, str]]] = {name: [] for name in pairs}
    for k in range(max(map(len, pairs.values()))):
        for name, available in pairs.items():
            if k < len(available) and sum(map(len, chosen.values())) < count:
                chosen[name].append(available[k])
    return chosen
