"""Examples of any length into rows of one fixed shape; a sequence never crosses rows."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from elenchus.data.records import Batch, Example

_FLOATS = ('loss_mask', 'weights', 'old_logprobs', 'ref_logprobs')
_DTYPES = {name: np.float32 if name in _FLOATS else np.int32 for name in Batch._fields}

Keyed = TypeVar('Keyed', bound=tuple)


class Rows:
    """First-fit rows of `length` tokens; `max_rows=None` opens as many rows as are needed.

    `items[r]` are the items of row r in the order they were added. An item is a tuple that ends
    with its Example, so that a caller can carry a key along.
    """

    def __init__(self, max_rows: int | None, length: int):
        self._free = [length] * (max_rows or 0)
        self._grows = max_rows is None
        self._length = length
        self.items = [[] for _ in self._free]

    def add(self, item: tuple) -> bool:
        """Puts the item in the first row with room. False where no row has any."""
        size = check_length(item[-1], self._length)
        row = next((r for r, free in enumerate(self._free) if free >= size), None)
        if row is None:
            if not self._grows:
                return False
            row = len(self._free)
            self._free.append(self._length)
            self.items.append([])
        self._free[row] -= size
        self.items[row].append(item)
        return True


def check_length(example: Example, length: int) -> int:
    """The example's length. ValueError where it is 0, above `length`, or differs among fields."""
    size = len(example.tokens)
    if not 0 < size <= length:
        raise ValueError(f'an example of {size} tokens: rows hold 1 to {length}')
    for name, values in zip(Example._fields, example, strict=True):
        if np.shape(values) != (size,):
            raise ValueError(f'Example.{name} has shape {np.shape(values)}, tokens {(size,)}')
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
    """First-fit packing of all examples into one Batch of [rows, length].

    `rows=None` takes as many rows as first-fit needs. `decreasing` places longer examples first
    (ties in the given order), which wastes less. Raises ValueError on an example that is longer
    than `length`, or where the examples do not fit in `rows`.
    """
    if decreasing:
        examples = sorted(examples, key=lambda example: -len(example.tokens))
    packed = Rows(rows, length)
    left = sum(not packed.add((example,)) for example in examples)
    if left:
        raise ValueError(
            f'{left} of {len(examples)} examples do not fit in {rows} rows of {length}'
        )
    return to_batch([[item[-1] for item in row] for row in packed.items], length=length)


def pack_pairs(pairs: Sequence[tuple[Example, Example]], *, rows: int | None, length: int) -> Batch:
    """First-fit packing of (preferred, other) pairs: segments 1 and 2 of a row, 3 and 4, ...

    A pair never crosses rows, so a loss of pairs does not depend on how a batch is split. `rows`
    and errors as in `pack`.
    """
    packed = Rows(rows, length)
    left = 0
    for pair in pairs:
        joined = Example(*(np.concatenate(sides) for sides in zip(*pair, strict=True)))
        left += not packed.add((*pair, joined))
    if left:
        raise ValueError(f'{left} of {len(pairs)} pairs do not fit in {rows} rows of {length}')
    laid = [[example for item in row for example in item[:2]] for row in packed.items]
    return to_batch(laid, length=length)


def pad(examples: Sequence[Example], *, length: int) -> Batch:
    """One example a row, unpacked: [len(examples), length]."""
    for example in examples:
        check_length(example, length)
    return to_batch([[example] for example in examples], length=length)


class Places(NamedTuple):
    """Where every position of one layout comes from in another; all fields are [B, T]."""

    rows: np.ndarray
    columns: np.ndarray
    taken: np.ndarray  # False on padding

    def take(self, values: np.ndarray) -> np.ndarray:
        """The values in the new layout, 0 on padding."""
        return np.where(self.taken, values[self.rows, self.columns], 0).astype(values.dtype)

    def give_back(self, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Values of the new layout where they came from; 0 where none did."""
        found = np.zeros(shape, values.dtype)
        found[self.rows[self.taken], self.columns[self.taken]] = values[self.taken]
        return found


def share_prompts(
    batch: Batch, *, samples: int, prompt: int, response: int
) -> tuple[Batch, Places]:
    """(batch whose rows hold `samples` neighbouring rows with their prompt once, its places).

    The batch given has one sequence a row. Its prompt is what `samples` of them begin with and none
    is trained on, at most `prompt` tokens, padded in front; the rest of each follows in `response`
    positions. Sequences are segments 1, 2, ... of their row, the prompt with the first of them.
    Raises ValueError where a rest is longer.
    """
    fields = (batch.tokens, batch.loss_mask, batch.segments)
    tokens, mask, segments = (x.reshape(-1, samples, x.shape[1]) for x in fields)
    alike = (tokens == tokens[:, :1]) & (mask == 0) & (segments > 0)
    begin = np.minimum(np.cumprod(alike.all(axis=1), axis=1).sum(axis=1), prompt)[:, None]
    size = (segments > 0).sum(axis=2)
    longest = (size - begin).max()
    if longest > response:
        raise ValueError(
            f'{longest} tokens after the prompt that {samples} samples share: a row has {response} '
            'for each'
        )
    column = np.arange(prompt) - (prompt - begin)
    parts = [(np.zeros_like(column), column, column >= 0)]
    for sample in range(samples):
        column = begin + np.arange(response)
        parts.append((np.full_like(column, sample), column, column < size[:, sample, None]))
    row, column, taken = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    first = samples * np.arange(len(tokens))[:, None]
    places = Places(first + row, np.where(taken, column, 0), taken)
    laid = Batch(*(places.take(values) for values in batch))
    return laid._replace(segments=np.where(taken, 1 + row, 0).astype(np.int32)), places


def fill(
    carried: Iterable[Keyed], stream: Iterator[Keyed], *, rows: int, length: int
) -> tuple[list[list[Keyed]], list[Keyed]]:
    """Fills `rows` rows from `carried`, then from `stream`: (items of each row, set aside).

    An item that fits nowhere is set aside and the next one tried, until `rows` items are aside or
    the stream ends. The set-aside items open the next call, where each finds at worst an empty
    row of its own: nothing starves, and nothing beyond them is read ahead.
    """
    packed, aside = Rows(rows, length), []
    for item in itertools.chain(carried, stream):
        if not packed.add(item):
            aside.append(item)
            if len(aside) == rows:
                break
    return packed.items, aside


def waste(batch: Batch) -> float:
    """Share of the batch that is padding."""
    return float(np.mean(batch.segments == 0))
