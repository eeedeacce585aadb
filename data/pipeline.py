"""The training pipeline: shuffled, repeated, packed and sharded, its position saved exactly."""

from collections.abc import Callable, Sequence
from typing import Any

import grain

from data import packing
from data.records import Batch, Example


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

    def __init__(self, examples: grain.MapDataset, *, rows: int, length: int, shard: slice):
        super().__init__()
        self._examples = examples
        self._rows, self._length, self._shard = rows, length, shard
        self._next_index = 0
        self._carried = []

    def next_rows(self) -> list[list[tuple[int, Example]]]:
        """(index, example) of every row of the next batch, of all processes."""
        items, self._carried = packing.fill(
            self._carried, self._read(), rows=self._rows, length=self._length
        )
        if not any(items):
            raise StopIteration
        return items

    def __next__(self) -> Batch:
        rows = self.next_rows()[self._shard]
        return packing.to_batch([[item[-1] for item in row] for row in rows], length=self._length)

    def _read(self):
        while self._next_index < len(self._examples):
            index = self._next_index
            self._next_index += 1
            yield index, self._examples[index]

    def get_state(self) -> dict[str, Any]:
        """Plain JSON; valid on every process, and on another number of processes too."""
        return {'next_index': self._next_index, 'carried': [index for index, _ in self._carried]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues right after the batch at which `state` was taken."""
        self._next_index = int(state['next_index'])
        self._carried = [(int(index), self._examples[int(index)]) for index in state['carried']]


class PackedDataset(grain.IterDataset):
    """Iterates over [rows, length] Batches of a random-access dataset of Examples."""

    def __init__(self, examples: grain.MapDataset, *, rows: int, length: int, shard: slice):
        super().__init__(examples)
        self._settings = {'rows': rows, 'length': length, 'shard': shard}

    def __iter__(self) -> PackedIterator:
        return PackedIterator(self._parent, **self._settings)


def make_dataset(
    examples: Sequence[Example] | Callable[[int], Example],
    *,
    seed: int,
    rows: int,
    length: int,
    num_epochs: int | None,
    process_index: int,
    process_count: int,
) -> PackedDataset:
    """An IterDataset of this process's Batches, each exactly [rows, length].

    `examples` is a sequence, or a callable from index to Example that has a length. The order is
    a new permutation every epoch; `num_epochs=None` never ends (and so never yields a part-filled
    batch), else the last batch has empty rows. `rows` counts this process's rows: every process
    packs the same global batch of `rows * process_count` rows and keeps its own, so all of them
    see the same number of batches, and the global batch does not depend on how it is split.
    """
    if not 0 <= process_index < process_count:
        raise ValueError(f'process_index={process_index}, expected 0 to {process_count - 1}')
    if rows < 1:
        raise ValueError(f'rows={rows}, expected at least 1')
    if not hasattr(examples, '__getitem__'):
        examples = _Calls(examples)
    if not len(examples):
        raise ValueError('no examples to train on')
    ordered = grain.MapDataset.source(examples).seed(seed).shuffle().repeat(num_epochs)
    return PackedDataset(
        ordered,
        rows=rows * process_count,
        length=length,
        shard=slice(process_index * rows, (process_index + 1) * rows),
    )
