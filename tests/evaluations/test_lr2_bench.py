"""LR2Bench: parts against a puzzle's answer."""

import dataclasses

import pytest

from elenchus.configs.evaluations import lr2_bench
from tests.support import method_cases


@pytest.mark.parametrize(
    ('answer', 'correct', 'figures'),
    [
        ('red, blue, green', True, (1.0, 1.0, 1.0)),
        ('red; green; blue', False, (0.0, 1 / 3, 1.0)),
        ('Red, blue', False, (0.0, 2 / 3, 0.0)),
        (None, False, (0.0, 0.0, 0.0)),
    ],
)
def test_parts(answer, correct, figures):
    (group,) = method_cases.groups([{'answer': answer, 'correct': correct}])
    problem = dataclasses.replace(group.problem, answer='red, blue, green')
    values = lr2_bench.puzzles([dataclasses.replace(group, problem=problem)], str)
    assert tuple(values.values()) == pytest.approx(figures)
