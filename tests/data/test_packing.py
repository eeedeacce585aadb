import collections

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from elenchus.data.batching import packing
from elenchus.data.records import Batch, Example

LENGTH = 24


def make_example(size, key):
    """Every value of every field says which example and which place it belongs to."""
    code = 1 + key * 100 + np.arange(size)
    return Example(
        tokens=code.astype(np.int32),
        loss_mask=np.ones(size, np.float32),
        weights=(code + 0.25).astype(np.float32),
        old_logprobs=-code.astype(np.float32),
        ref_logprobs=-(code + 0.5).astype(np.float32),
        steps=(code + 1).astype(np.int32),
        turns=(code + 2).astype(np.int32),
        roles=(code + 3).astype(np.int32),
    )


def sequences(batch):
    """The sequences in a batch as {tokens: Example}, cut out by segment."""
    counts = collections.Counter()
    examples = {}
    for row in range(len(batch.tokens)):
        for segment in range(1, batch.segments[row].max() + 1):
            places = np.flatnonzero(batch.segments[row] == segment)
            assert np.array_equal(places, np.arange(places[0], places[-1] + 1))
            assert np.array_equal(batch.positions[row, places], np.arange(len(places)))
            example = Example(*(getattr(batch, name)[row, places] for name in Example._fields))
            counts[tuple(example.tokens)] += 1
            examples[tuple(example.tokens)] = example
    return counts, examples


def assert_holds_exactly(batches, examples):
    counts, cut = collections.Counter(), {}
    for batch in batches:
        more, parts = sequences(batch)
        counts += more
        cut |= parts
    assert counts == collections.Counter(tuple(example.tokens) for example in examples)
    for example in examples:
        for ours, theirs in zip(cut[tuple(example.tokens)], example, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def assert_padding_is_zero(batch):
    for values in batch:
        assert not values[batch.segments == 0].any()


def streamed(examples, *, rows):
    """Batches of [rows, LENGTH] as the pipeline fills them."""
    stream, carried = ((example,) for example in examples), []
    while True:
        items, carried = packing.fill(carried, stream, rows=rows, length=LENGTH)
        if not any(items):
            return
        yield packing.to_batch([[item[-1] for item in row] for row in items], length=LENGTH)


sizes = st.lists(st.integers(1, LENGTH), max_size=40)


@hypothesis.given(sizes, st.booleans())
def test_packing_keeps_every_field_of_every_example_whole(sizes, decreasing):
    examples = [make_example(size, key) for key, size in enumerate(sizes)]
    batch = packing.pack(examples, rows=None, length=LENGTH, decreasing=decreasing)
    assert_holds_exactly([batch], examples)
    assert_padding_is_zero(batch)


@hypothesis.given(sizes, st.integers(1, 5))
def test_streamed_batches_hold_the_multiset_of_the_stream_in_fixed_shapes(sizes, rows):
    examples = [make_example(size, key) for key, size in enumerate(sizes)]
    batches = list(streamed(examples, rows=rows))
    assert all(values.shape == (rows, LENGTH) for batch in batches for values in batch)
    assert_holds_exactly(batches, examples)
    for batch in batches:
        assert_padding_is_zero(batch)


@hypothesis.given(sizes, st.integers(1, 5))
def test_an_example_waits_for_at_most_one_batch(sizes, rows):
    examples = [make_example(size, key) for key, size in enumerate(sizes)]
    read, first_seen = 0, {}

    def stream():
        nonlocal read
        for key, example in enumerate(examples):
            read = key + 1
            yield example

    for index, batch in enumerate(streamed(stream(), rows=rows)):
        for key in range(read):
            first_seen.setdefault(key, index)
        for tokens in sequences(batch)[0]:
            assert index - first_seen[tokens[0] // 100] <= 1


@hypothesis.given(sizes)
def test_segments_of_a_row_are_numbered_from_one_without_gaps(sizes):
    examples = [make_example(size, key) for key, size in enumerate(sizes)]
    batch = packing.pack(examples, rows=None, length=LENGTH)
    for row in batch.segments:
        inside = row[row > 0]
        assert inside.size and inside[0] == 1
        assert set(np.diff(inside)) <= {0, 1}
        assert not row[inside.size :].any()


@hypothesis.given(sizes)
def test_packing_is_deterministic(sizes):
    examples = [make_example(size, key) for key, size in enumerate(sizes)]
    for ours, theirs in zip(
        packing.pack(examples, rows=None, length=LENGTH),
        packing.pack(examples, rows=None, length=LENGTH),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_dtypes_are_fixed_whatever_the_examples_hold():
    example = Example(*(values.astype(np.float64) for values in make_example(3, 0)))
    batch = packing.pack([example], rows=1, length=4)
    dtypes = {name: getattr(batch, name).dtype.name for name in Batch._fields}
    floats = {name for name, dtype in dtypes.items() if dtype == 'float32'}
    assert floats == {'loss_mask', 'weights', 'old_logprobs', 'ref_logprobs'}
    assert {dtypes[name] for name in Batch._fields if name not in floats} == {'int32'}


def test_pad_gives_each_example_its_own_row():
    examples = [make_example(size, key) for key, size in enumerate([3, 1, 8])]
    batch = packing.pad(examples, length=8)
    assert batch.tokens.shape == (3, 8)
    assert batch.segments.max() == 1
    assert (batch.segments > 0).sum(axis=1).tolist() == [3, 1, 8]
    assert_holds_exactly([batch], examples)


def test_pad_and_pack_lay_out_a_lone_example_alike():
    example = make_example(5, 0)
    for ours, theirs in zip(
        packing.pad([example], length=8), packing.pack([example], rows=1, length=8), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_spare_rows_are_all_padding():
    batch = packing.pack([make_example(5, 0)], rows=3, length=8)
    assert batch.tokens.shape == (3, 8)
    assert not batch.segments[1:].any()


def test_decreasing_order_needs_fewer_rows_here():
    examples = [make_example(size, key) for key, size in enumerate([4, 4, 6, 6])]
    assert len(packing.pack(examples, rows=None, length=10).tokens) == 3
    assert len(packing.pack(examples, rows=None, length=10, decreasing=True).tokens) == 2


@pytest.mark.parametrize(
    'build',
    [
        lambda examples: packing.pack(examples, rows=None, length=8),
        lambda examples: packing.pad(examples, length=8),
        lambda examples: packing.fill((), iter((e,) for e in examples), rows=2, length=8),
    ],
)
def test_an_example_longer_than_a_row_is_refused_by_its_length(build):
    with pytest.raises(ValueError, match='9 tokens.* 1 to 8'):
        build([make_example(2, 0), make_example(9, 1)])


def test_an_empty_example_is_refused():
    with pytest.raises(ValueError, match='0 tokens'):
        packing.pack([make_example(0, 0)], rows=None, length=8)


def test_fields_of_differing_lengths_are_refused_by_name():
    example = make_example(4, 0)._replace(roles=np.zeros(3, np.int32))
    with pytest.raises(ValueError, match='roles'):
        packing.pack([example], rows=None, length=8)


def test_too_few_rows_are_refused():
    examples = [make_example(5, key) for key in range(3)]
    with pytest.raises(ValueError, match='1 of 3 examples do not fit in 2 rows of 8'):
        packing.pack(examples, rows=2, length=8)


def test_waste_is_the_share_of_padding():
    assert packing.waste(packing.pad([make_example(6, 0), make_example(2, 1)], length=8)) == 0.5
