"""Blends: exact counts by weight, and an order whose every beginning is a blend."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data.problems import blending

WEIGHTS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=6)


def test_counts_by_hand():
    assert blending.counts([1.0, 2.0], 300) == [100, 200]
    assert blending.counts([1.0, 1.0, 1.0], 10) == [4, 3, 3]  # the earlier set gets the rest
    assert blending.counts([1.0, 2.0], 10) == [3, 7]
    assert blending.counts([1.0, 1e-6], 5) == [5, 0]


@given(WEIGHTS, st.integers(0, 10_000))
def test_counts_are_exact_and_nearly_proportional(weights, total):
    numbers = blending.counts(weights, total)
    assert sum(numbers) == total
    for number, weight in zip(numbers, weights, strict=True):
        assert abs(number - total * weight / sum(weights)) < 1 + 1e-6


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.data())
def test_every_beginning_is_a_blend_and_each_set_keeps_its_order(sizes, data):
    sets = [[(i, j) for j in range(size)] for i, size in enumerate(sizes)]
    items = blending.interleave(sets)
    assert sorted(items) == [pair for one in sets for pair in one]
    for i, one in enumerate(sets):
        assert [pair for pair in items if pair[0] == i] == one
    end = data.draw(st.integers(0, len(items)))
    for i, size in enumerate(sizes):
        in_start = sum(pair[0] == i for pair in items[:end])
        assert in_start == pytest.approx(end * size / max(1, len(items)), abs=len(sizes))
