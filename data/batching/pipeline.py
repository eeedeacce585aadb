"""Training data pipeline: shuffles, repeats and packs examples, and saves its exact position.

The position is a few indices, with those of examples that wait for the next batch, so a resumed run
continues with the same batches.
"""

from collections.abc import Callable, Sequence
from typing import Any

import grain

from elenchus.data.batching import packing
from elenchus.data.records import Batch, Example


class _LazySequence:
    """Adapts a callable with a length to the sequence interface."""

    def __init__(self, make: Callable[[int], Example]):
        self._make = make

    def __len__(self) -> int:
        return len(self._make)

    def __getitem__(self, index: int) -> Example:
        return self._make(index)


class PackedIterator(grain.DatasetIterator):
    """Yields batches in order; its state is the next index to read and the indices set aside."""

    def __init__(self, examples: grain.MapDataset, *, rows: int, length: int):
        super().__init__()
        self._examples = examples
        self._rows, self._length = rows, length
        self._next_index = 0
        self._carried = []

    def next_rows(self) -> list[list[tuple]]:
        """Returns the items of every row of the next batch: (index, example), or see `_item`."""
        items, self._carried = packing.fill(
            self._carried, self._read(), rows=self._rows, length=self._length
        )
        if not any(items):
            raise StopIteration
        return items

    def __next__(self) -> Batch:
        return self.to_batch(self.next_rows())

    def to_batch(self, rows: list[list[tuple]]) -> Batch:
        """Lays out rows that `next_rows` returned."""
        sequences = [[example for item in row for example in _sequences(item)] for row in rows]
        return packing.to_batch(sequences, length=self._length)

    def _item(self, index: int) -> tuple:
        """Index and example, or index, pair and the pair as one sequence."""
        element = self._examples[index]
        if isinstance(element, Example):
            return index, element
        return index, element, packing.joined(element[:2])

    def _read(self):
        while self._next_index < len(self._examples):
            index = self._next_index
            self._next_index += 1
            yield self._item(index)

    def get_state(self) -> dict[str, Any]:
        """Returns the position as plain JSON values; the same on every process."""
        return {'next_index': self._next_index, 'carried': [item[0] for item in self._carried]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues directly after the batch at which `state` was taken."""
        self._next_index = int(state['next_index'])
        self._carried = [self._item(int(index)) for index in state['carried']]


def _sequences(item: tuple) -> Sequence[Example]:
    """The sequences of an item: its example, or both sides of its pair, side by side in a row."""
    return item[1:] if len(item) == 2 else item[1][:2]


class PackedDataset(grain.IterDataset):
    """Iterates over [rows, length] Batches of a random-access dataset of Examples."""

    def __init__(self, examples: grain.MapDataset, *, rows: int, length: int):
        super().__init__(examples)
        self._settings = {'rows': rows, 'length': length}

    def __iter__(self) -> PackedIterator:
        return PackedIterator(self._parent, **self._settings)


def make_dataset(
    examples: Sequence[Example] | Sequence[tuple] | Callable[[int], Example],
    *,
    seed: int,
    rows: int,
    length: int,
    num_epochs: int | None,
) -> PackedDataset:
    """Returns an IterDataset of Batches, each exactly [rows, length].

    Args:
        examples: a sequence, or a callable from index to Example that has a length. An element may
            be a tuple that begins with two Examples, a pair, which stays together in a row.
        seed: decides the order, which is a new permutation in every epoch.
        rows: rows of a batch.
        length: tokens of a row.
        num_epochs: passes over the examples; the last batch may have empty rows. None never ends,
            so all batches are full.

    Every process packs the same whole batch; the code that places a batch on devices selects the
    rows of its process.
    """
    if rows < 1:
        raise ValueError(f'rows={rows} must be at least 1')
    if not hasattr(examples, '__getitem__'):
        examples = _LazySequence(examples)
    if not len(examples):
        raise ValueError('no examples to train on')
    ordered = grain.MapDataset.source(examples).seed(seed).shuffle().repeat(num_epochs)
    return PackedDataset(ordered, rows=rows, length=length)
