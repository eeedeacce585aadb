"""Blends problem sets by weight, in an order of which every prefix has about the same blend."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar('T')


def counts(weights: Sequence[float], total: int) -> list[int]:
    """Divides `total` by weights, exactly: no count is further than 1 from its share.

    Method of the largest remainder; of equal remainders the earlier set gets more.
    """
    shares = [total * weight / sum(weights) for weight in weights]
    numbers = [int(share) for share in shares]
    by_remainder = sorted(range(len(weights)), key=lambda i: numbers[i] - shares[i])
    for i in by_remainder[: total - sum(numbers)]:
        numbers[i] += 1
    return numbers


def interleave(sets: Sequence[Sequence[T]]) -> list[T]:
    """Returns the items of all sets, each set spread evenly over the list in its own order.

    So a stage that reads only the first problems reads a blend too.
    """
    places = [
        ((position + 0.5) / len(items), number, position)
        for number, items in enumerate(sets)
        for position in range(len(items))
    ]
    return [sets[number][position] for _, number, position in sorted(places)]
