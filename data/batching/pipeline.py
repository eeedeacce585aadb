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

    def next_rows(self) -> list[list[tuple[int, Example]]]:
        """Returns the (index, example) pairs of every row of the next batch."""
        items, self._carried = packing.fill(
            self._carried, self._read(), rows=self._rows, length=self._length
        )
        if not any(items):
            raise StopIteration
        return items

    def __next__(self) -> Batch:
        rows = self.next_rows()
        return packing.to_batch([[item[-1] for item in row] for row in rows], length=self._length)

    def _read(self):
        while self._next_index < len(self._examples):
            index = self._next_index
            self._next_index += 1
            yield index, self._examples[index]

    def get_state(self) -> dict[str, Any]:
        """Returns the position as plain JSON values; the same on every process."""
        return {'next_index': self._next_index, 'carried': [index for index, _ in self._carried]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues directly after the batch at which `state` was taken."""
        self._next_index = int(state['next_index'])
        self._carried = [(int(index), self._examples[int(index)]) for index in state['carried']]


class PackedDataset(grain.IterDataset):
    """Iterates over [rows, length] Batches of a random-access dataset of Examples."""

    def __init__(self, examples: grain.MapDataset, *, rows: int, length: int):
        super().__init__(examples)
        self._settings = {'rows': rows, 'length': length}

    def __iter__(self) -> PackedIterator:
        return PackedIterator(self._parent, **self._settings)


def make_dataset(
    examples: Sequence[Example] | Callable[[int], Example],
    *,
    seed: int,
    rows: int,
    length: int,
    num_epochs: int | None,
) -> PackedDataset:
    """Returns an IterDataset of Batches, each exactly [rows, length].

    Args:
        examples: a sequence, or a callable from index to Example that has a length.
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
