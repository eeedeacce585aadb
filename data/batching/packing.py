"""Packs examples of any length into rows of one fixed shape; a sequence never crosses rows."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from elenchus.data.records import Batch, Example

_FLOATS = ('loss_mask', 'weights', 'old_logprobs', 'ref_logprobs')
_DTYPES = {name: np.float32 if name in _FLOATS else np.int32 for name in Batch._fields}

Keyed = TypeVar('Keyed', bound=tuple)


class Rows:
    """First-fit rows of `length` tokens; `max_rows=None` opens as many rows as are needed.

    `items[r]` are the items of row r in the order they were added. An item is a tuple that ends
    with its Example, so that a caller can store a key with it.
    """

    def __init__(self, max_rows: int | None, length: int):
        self._free = [length] * (max_rows or 0)
        self._unbounded = max_rows is None
        self._length = length
        self.items = [[] for _ in self._free]

    def add(self, item: tuple) -> bool:
        """Puts the item in the first row with room. Returns False if no row has room."""
        size = check_length(item[-1], self._length)
        row = next((r for r, free in enumerate(self._free) if free >= size), None)
        if row is None:
            if not self._unbounded:
                return False
            row = len(self._free)
            self._free.append(self._length)
            self.items.append([])
        self._free[row] -= size
        self.items[row].append(item)
        return True


def check_length(example: Example, length: int) -> int:
    """Returns the example's length.

    Raises ValueError if it is 0 or above `length`, or if the fields differ in length.
    """
    size = len(example.tokens)
    if not 0 < size <= length:
        raise ValueError(f'an example has {size} tokens; a row holds 1 to {length}')
    for name, values in zip(Example._fields, example, strict=True):
        if np.shape(values) != (size,):
            raise ValueError(
                f'Example.{name} has shape {np.shape(values)}; tokens has shape {(size,)}'
            )
    return size


def to_batch(rows: Sequence[Sequence[Example]], *, length: int) -> Batch:
    """Lays out the sequences of every row one after another: fields are [len(rows), length]."""
    arrays = {name: np.zeros((len(rows), length), dtype) for name, dtype in _DTYPES.items()}
    for r, row in enumerate(rows):
        start = 0
        for segment, example in enumerate(row, 1):
            size = len(example.tokens)
            span = slice(start, start + size)
            for name, values in zip(Example._fields, example, strict=True):
                arrays[name][r, span] = values
            arrays['positions'][r, span] = np.arange(size)
            arrays['segments'][r, span] = segment
            start += size
        assert start <= length, (start, length)
    return Batch(**arrays)


def pack(
    examples: Sequence[Example], *, rows: int | None, length: int, decreasing: bool = False
) -> Batch:
    """Packs all examples, first-fit, into one Batch of [rows, length].

    `rows=None` opens as many rows as first-fit needs. `decreasing` places longer examples first
    (ties in their order in `examples`), which leaves less padding. Raises ValueError if an example
    is longer than `length`, or if the examples do not fit in `rows`.
    """
    if decreasing:
        examples = sorted(examples, key=lambda example: -len(example.tokens))
    packed = Rows(rows, length)
    num_rejected = sum(not packed.add((example,)) for example in examples)
    if num_rejected:
        raise ValueError(
            f'{num_rejected} of {len(examples)} examples do not fit in {rows} rows of {length}'
        )
    return to_batch([[item[-1] for item in row] for row in packed.items], length=length)


def joined(pair: Sequence[Example]) -> Example:
    """Returns the sequences of a pair as one: `Rows` measures an item by its last element."""
    return Example(*(np.concatenate(sides) for sides in zip(*pair, strict=True)))


def pad(examples: Sequence[Example], *, length: int) -> Batch:
    """Lays out one example per row, without packing: [len(examples), length]."""
    for example in examples:
        check_length(example, length)
    return to_batch([[example] for example in examples], length=length)


def fill(
    carried: Iterable[Keyed], stream: Iterator[Keyed], *, rows: int, length: int
) -> tuple[list[list[Keyed]], list[Keyed]]:
    """Fills `rows` rows from `carried`, then from `stream`; returns (items of each row, set aside).

    An item that fits in no row is set aside and the next one is tried, until `rows` items are set
    aside or the stream ends. The next call takes them first, as `carried`: there is an empty row
    for each, so no item waits for more than one batch. No other item is read ahead, so the saved
    position of the data stays small.
    """
    packed, set_aside = Rows(rows, length), []
    for item in itertools.chain(carried, stream):
        if not packed.add(item):
            set_aside.append(item)
            if len(set_aside) == rows:
                break
    return packed.items, set_aside


def token_counts(batch: Batch) -> dict[str, int]:
    """Returns the number of trained tokens of a batch, and that of positions that are padding.

    The other tokens, of prompts and of untrained turns, are in neither.
    """
    return {
        'tokens_trained': int(np.count_nonzero(batch.loss_mask)),
        'tokens_padding': int(np.count_nonzero(batch.segments == 0)),
    }


def waste(batch: Batch) -> float:
    """Returns the share of the batch that is padding."""
    return float(np.mean(batch.segments == 0))
