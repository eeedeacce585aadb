"""Parametrisations of which a few cases are fast tests and all others are slow ones."""

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import pytest


def combinations(fast: Collection[tuple], **values: Sequence[Any]) -> pytest.MarkDecorator:
    """Parametrises a test over all combinations of values; those outside `fast` are slow.

    A fast case that has a value which is none is an error: it would be in no suite.
    """
    for place, (name, every) in enumerate(values.items()):
        seen = {case[place] for case in fast}
        assert seen <= set(every), f'{name}: {seen - set(every)} is no value'
    cases = list(itertools.product(*values.values()))
    assert set(fast) <= set(cases)
    return pytest.mark.parametrize(
        tuple(values),
        [
            pytest.param(*case, marks=() if case in fast else pytest.mark.slow, id=_name(case))
            for case in cases
        ],
    )


def some(values: Collection[Any], *, fast: Collection[Any]) -> list[Any]:
    """Parameters of a test; those outside `fast` are slow."""
    assert set(fast) <= set(values)
    return [pytest.param(v, marks=() if v in fast else pytest.mark.slow) for v in values]


def _name(case: tuple) -> str:
    return '-'.join(map(str, case))
