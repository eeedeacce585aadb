import collections
import itertools
import json

import numpy as np
import pytest

from elenchus.data.batching import pipeline
from elenchus.data.records import Example

ROWS, LENGTH = 3, 32


def make_example(size, key):
    return Example(
        *(
            np.full(size, key + 1, np.float32 if 'log' in name else np.int32)
            for name in Example._fields
        )
    )


SIZES = np.random.default_rng(0).integers(1, LENGTH + 1, 60).tolist()
EXAMPLES = [make_example(size, key) for key, size in enumerate(SIZES)]


def make_dataset(examples=EXAMPLES, *, seed=7, rows=ROWS, num_epochs=2):
    return pipeline.make_dataset(
        examples,
        seed=seed,
        rows=rows,
        length=LENGTH,
        num_epochs=num_epochs,
    )


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for ours, theirs in zip(batch, other, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def keys(batches):
    """Counts the occurrences of each example by its first positions."""
    return collections.Counter(
        int(token) - 1
        for batch in batches
        for token in batch.tokens[(batch.segments > 0) & (batch.positions == 0)]
    )


@pytest.mark.parametrize('num_epochs', [2, None])
@pytest.mark.parametrize('cut', [0, 1, 2, 9, 17])
def test_resumed_from_a_saved_state_the_following_batches_are_the_same(num_epochs, cut):
    whole = list(itertools.islice(make_dataset(num_epochs=num_epochs), 60))
    iterator = iter(make_dataset(num_epochs=num_epochs))
    assert_same(list(itertools.islice(iterator, cut)), whole[:cut])
    saved = json.dumps(iterator.get_state())
    next(iterator)  # what happens after the save does not change it

    resumed = iter(make_dataset(num_epochs=num_epochs))
    next(resumed)
    resumed.set_state(json.loads(saved))
    assert_same(list(itertools.islice(resumed, 60 - cut)), whole[cut:])


def test_every_cut_of_a_run_saved_again_after_each_batch_gives_the_whole_run():
    whole = list(make_dataset())
    state, pieces = None, []
    for _ in whole:
        iterator = iter(make_dataset())
        if state is not None:
            iterator.set_state(json.loads(state))
        pieces.append(next(iterator))
        state = json.dumps(iterator.get_state())
    assert_same(pieces, whole)
    with pytest.raises(StopIteration):
        next(iterator)


def test_a_position_saved_by_orbax_resumes_exactly(tmp_path):
    ocp = pytest.importorskip('orbax.checkpoint').v1
    iterator = iter(make_dataset())
    collections.deque(itertools.islice(iterator, 5), maxlen=0)
    with ocp.training.Checkpointer(tmp_path) as checkpointer:
        checkpointer.save_checkpointables(5, {'data': iterator})
        resumed = iter(make_dataset())
        checkpointer.load_checkpointables(5, {'data': resumed})
    assert_same(list(resumed), list(make_dataset())[5:])


def test_an_exhausted_position_stays_exhausted_when_resumed():
    iterator = iter(make_dataset())
    collections.deque(iterator, maxlen=0)
    resumed = iter(make_dataset())
    resumed.set_state(iterator.get_state())
    assert list(resumed) == []


def test_each_epoch_holds_every_example_once():
    assert keys(make_dataset(num_epochs=3)) == dict.fromkeys(range(len(EXAMPLES)), 3)


def test_epochs_and_seeds_differ_in_order():
    singles = [make_example(LENGTH, key) for key in range(50)]

    def order(seed):
        dataset = make_dataset(singles, seed=seed, rows=1, num_epochs=2)
        return [int(batch.tokens[0, 0]) for batch in dataset]

    first, second = order(0)[:50], order(0)[50:]
    assert sorted(first) == sorted(second) and first != second
    assert order(0) == order(0)
    assert order(0)[:50] not in (order(1)[:50], order(1)[50:])


def test_every_batch_of_a_finite_run_has_the_fixed_shape():
    batches = list(make_dataset())
    assert all(values.shape == (ROWS, LENGTH) for batch in batches for values in batch)


def test_a_finite_run_pads_its_last_batch_with_empty_rows():
    (batch,) = make_dataset(EXAMPLES[:1], num_epochs=1)
    assert batch.segments[0].any() and not batch.segments[1:].any()


def test_an_endless_run_yields_no_part_filled_batch():
    for batch in itertools.islice(make_dataset(EXAMPLES[:1], num_epochs=None), 5):
        assert batch.segments.any(axis=1).all()


def test_a_callable_source_gives_what_the_list_gives():
    class Make:
        def __len__(self):
            return len(EXAMPLES)

        def __call__(self, index):
            return EXAMPLES[index]

    assert_same(list(make_dataset(Make())), list(make_dataset()))


def test_iterating_twice_starts_over():
    dataset = make_dataset()
    assert_same(list(dataset), list(dataset))


@pytest.mark.parametrize('settings', [{'rows': 0}, {'examples': []}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError):
        make_dataset(**settings)
