"""The stability gap: the lowest accuracy of earlier tasks over the rounds, beside the last one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.configs.methods import stability_gap
from elenchus.sampling.metrics import measures


def rounds(**levels):
    """Summaries of rounds; levels are lists of accuracies."""
    count = len(next(iter(levels.values())))
    rows = [
        {name[1:]: [values[i], 0.0, 1.0] for name, values in levels.items()} for i in range(count)
    ]
    return [{'accuracy': {'attempt': {'all': [0.5, 0.0, 1.0], **row}}} for row in rows]


def test_a_worked_example():
    """Tasks 1 and 2 fall to .5 and .4 and recover; task 3, the newest, ends at .6."""
    table = rounds(L1=[0.9, 0.5, 0.8], L2=[0.7, 0.6, 0.4], L3=[0.1, 0.3, 0.6])
    figures = stability_gap.worst_case(table)
    assert figures == pytest.approx(
        {'min_acc': 0.45, 'wc_acc': 0.6 / 3 + (2 / 3) * 0.45, 'gap': 0.6 - 0.45}
    )


def test_the_tenth_level_is_newer_than_the_ninth():
    table = rounds(L10=[0.2], L9=[0.8])
    assert stability_gap.worst_case(table)['min_acc'] == 0.8


def test_one_task_has_no_earlier_one():
    assert stability_gap.worst_case(rounds(L0=[0.1, 0.4])) == {
        'min_acc': 0.4, 'wc_acc': 0.4, 'gap': 0.0
    }  # fmt: skip


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1))
def test_bounds(rows):
    first, second, third = map(list, zip(*rows, strict=True))
    figures = stability_gap.worst_case(rounds(L1=first, L2=second, L3=third))
    assert 0 <= figures['wc_acc'] <= 1 and figures['gap'] >= -1e-9
    assert figures['min_acc'] <= min((a + b) / 2 for a, b, _ in rows) + 1e-9
    if len(rows) == 1:
        assert figures['gap'] == pytest.approx(0)


def test_the_slot_stores_it_by_name():
    reference = stability_gap.CHANGES['improve.measures'][0]
    table = rounds(L1=[0.9, 0.5], L2=[0.2, 0.6])
    stored = measures.measure_rounds((reference,), table)
    assert stored == {'own_measures': {'worst_case': stability_gap.worst_case(table)}}
    assert measures.measure_rounds((), table) == {}
