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


def _name(case: tuple) -> str:
    return '-'.join(map(str, case))
