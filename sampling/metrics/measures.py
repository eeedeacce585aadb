"""Figures and conditions of an evaluation that users define: `evaluate.measures`, `.conditions`."""

import itertools
import json
import math
import numbers
import types
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from elenchus.data.records import Episode, Problem, RolloutGroup, Turn
from elenchus.sampling import user_functions
from elenchus.sampling.metrics.faithfulness import unfaithful
from elenchus.sampling.slots import Slot

MEASURES = Slot('(groups, text of a turn) -> {name: number}', {'unfaithful': unfaithful})
"""Figures of an evaluation, by name; the second argument is a function from a turn to its text.

A group has the problem and its judged episodes, each with attempt, critique and refinement where
they were sampled. A function with the attribute `reads_conditions = True` gets as a third argument
the groups of attempts after each guide of `evaluate.conditions`, by the guide's name; those of an
edited question have a problem with that question, and the id of the original. One with
`reads_rounds = True` gets the later rounds of each attempt, lists of episodes as [group][attempt];
one with `reads_states = True` the actor's hidden states [N, D] behind the N questions; in this
order."""

ROUND_MEASURES = Slot('(rounds) -> {name: number}', {})
"""Figures of a stage, by name, from the summaries of its rounds."""

CONDITIONS = Slot(
    '(problem) -> text of a guide',
    {'answer': lambda problem: f'#### {problem.answer}', 'solution': lambda p: p.solution},
)
"""Text of the guide that an attempt is sampled after.

A function with the attribute `writes = True` is called with notes as a second argument, and may
have the actor write the guide, as those of `improve.explore.player_guide` do. One with `edits =
True` returns another question in place of a guide, or '' for none: it is attempted, criticised and
refined as the problem itself is, with the same noise."""


def guide(reference: str, problem: Problem) -> str:
    """Returns the guide that a function of CONDITIONS gives; raises ValueError if it is no text."""
    function = CONDITIONS.find(reference, 'evaluate.conditions')
    text = function(problem)
    if not isinstance(text, str):
        user_functions.refuse(function, text, 'a text', field='evaluate.conditions')
    return text


def check_names(section: str, **fields: Sequence[str]) -> None:
    """Raises ValueError if two functions of a field have one name: figures are kept by it."""
    for field, references in fields.items():
        names = [reference.rpartition(':')[2] for reference in references]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'{section}.{field} has two functions {name!r}: rename one')


def measure(
    references: Sequence[str],
    groups: Sequence[RolloutGroup],
    read: Callable[[Turn], str],
    *,
    conditions: Mapping[str, Sequence[RolloutGroup]] = types.MappingProxyType({}),
    rounds: Mapping[int, Sequence[Episode]] = types.MappingProxyType({}),
    states: Callable[[], np.ndarray] | None = None,
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Returns {'own_measures': figures by the function's name}, or {}; NaN is None, unknown.

    `rounds` are those after the first, by the number of the attempt among all; states() computes
    the hidden states.
    """
    figures, numbers_of = {}, itertools.count()
    later = [[tuple(rounds.get(next(numbers_of), ())) for _ in group] for group in groups]
    for reference in references:
        function = MEASURES.find(reference, 'evaluate.measures')
        more = (conditions,) if getattr(function, 'reads_conditions', False) else ()
        more += (later,) if getattr(function, 'reads_rounds', False) else ()
        more += (states(),) if getattr(function, 'reads_states', False) else ()
        values = function(tuple(groups), read, *more)
        name = reference.rpartition(':')[2]
        figures[name] = _figures(function, values, field='evaluate.measures')
    return {'own_measures': figures} if figures else {}


def measure_rounds(
    references: Sequence[str], rounds: Sequence[Mapping]
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Returns {'own_measures': figures by the function's name} of all rounds of a stage, or {}."""
    figures = {}
    for reference in references:
        function = ROUND_MEASURES.find(reference, 'improve.measures')
        values = function(json.loads(json.dumps(rounds)))  # its own copy of what is stored
        name = reference.rpartition(':')[2]
        figures[name] = _figures(function, values, field='improve.measures')
    return {'own_measures': figures} if figures else {}


def _figures(function: Callable, values: object, *, field: str) -> dict[str, float | None]:
    """Figures as they are stored. Raises ValueError, naming the function, if they are none."""
    if not isinstance(values, Mapping) or not all(map(_is_figure, values.values())):
        user_functions.refuse(
            function, values, 'numbers by name, finite or NaN (unknown)', field=field
        )
    return {
        str(name): None if math.isnan(value) else float(value) for name, value in values.items()
    }


def _is_figure(value: object) -> bool:
    try:
        return isinstance(value, numbers.Real) and not math.isinf(value)
    except OverflowError:  # an integer beyond float64
        return False
