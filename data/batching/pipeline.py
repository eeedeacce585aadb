"""The training pipeline: shuffled, repeated and packed, its position saved exactly."""

from collections.abc import Callable, Sequence
from typing import Any

import grain

from elenchus.data.batching import packing
from elenchus.data.records import Batch, Example


class _Calls:
    """A callable with a length, read like a sequence."""

    def __init__(self, make: Callable[[int], Example]):
        self._make = make

    def __len__(self) -> int:
        return len(self._make)

    def __getitem__(self, index: int) -> Example:
        return self._make(index)


class PackedIterator(grain.DatasetIterator):
    """Batches in order; its state is the next index to read and the indices set aside."""

    def __init__(self, examples: grain.MapDataset, *, rows: int, length: int):
        super().__init__()
        self._examples = examples
        self._rows, self._length = rows, length
        self._next_index = 0
        self._carried = []

    def next_rows(self) -> list[list[tuple[int, Example]]]:
        """(index, example) of every row of the next batch."""
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
        """Plain JSON; the same on every process."""
        return {'next_index': self._next_index, 'carried': [index for index, _ in self._carried]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues right after the batch at which `state` was taken."""
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
    """An IterDataset of Batches, each exactly [rows, length].

    `examples` is a sequence, or a callable from index to Example that has a length. The order is
    a new permutation every epoch; `num_epochs=None` never ends (and so never yields a part-filled
    batch), else the last batch has empty rows. Every process packs the same whole batch: what a
    process puts on its devices is chosen where the batch is placed.
    """
    if rows < 1:
        raise ValueError(f'rows={rows}, expected at least 1')
    if not hasattr(examples, '__getitem__'):
        examples = _Calls(examples)
    if not len(examples):
        raise ValueError('no examples to train on')
    ordered = grain.MapDataset.source(examples).seed(seed).shuffle().repeat(num_epochs)
    return PackedDataset(ordered, rows=rows, length=length)
