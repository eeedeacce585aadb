"""One's own figures and conditions of an evaluation: `evaluate.measures` and `.conditions`."""

import math
from collections.abc import Callable, Mapping, Sequence

from elenchus.data.records import Problem, RolloutGroup, Turn
from elenchus.sampling.slots import Slot

Measure = Callable[[Sequence[RolloutGroup], Callable[[Turn], str]], Mapping[str, float]]
"""(groups, text of a turn) -> figures, by name.

A group has the problem and its judged episodes, each with attempt, critique and refinement where
they were sampled."""

MEASURES = Slot('(groups, text of a turn) -> {name: number}', {})

Condition = Callable[[Problem], str]
"""Text of the guide that an attempt is sampled after."""

CONDITIONS = Slot(
    '(problem) -> text of a guide',
    {'answer': lambda problem: f'#### {problem.answer}', 'solution': lambda p: p.solution},
)


def measure(
    references: Sequence[str], groups: Sequence[RolloutGroup], read: Callable[[Turn], str]
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Returns {'own_measures': figures by the function's name}, or {}; NaN is None, unknown."""
    figures = {}
    for reference in references:
        values = MEASURES[reference](groups, read)
        figures[reference.rpartition(':')[2]] = {
            name: None if math.isnan(value) else float(value) for name, value in values.items()
        }
    return {'own_measures': figures} if figures else {}
