"""Which criticised attempts are refined at test time: the slot `evaluate.refine`."""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

from elenchus.data.records import Episode, Problem, RolloutGroup
from elenchus.sampling import user_functions
from elenchus.sampling.slots import Slot

FIELD = 'evaluate.refine'

Refine = Literal['always', 'wrong']
"""Which attempts are refined: all, or those whose critique does not call them correct."""

Gate = Callable[[Sequence[RolloutGroup], int], Sequence[Sequence[bool]]]
"""(groups of criticised attempts, number of the round from 1) -> whether each is refined.

The groups are those of a part (`sampling.part_size` problems); an attempt has its critique behind
it and the critic's scores as facts. From round 2 on an attempt is the last round's refinement, and
a group has those whose chain has not ended."""


def asks_for_refinement(episode: Episode, refine: Refine) -> bool:
    """Returns whether a criticised attempt is refined; a critique without verdict asks for it."""
    return refine == 'always' or episode.critique.facts.verdict is not True


def _by_verdict(refine: Refine) -> Gate:
    """Returns the built-in gate of this name."""
    return lambda groups, number: [[asks_for_refinement(e, refine) for e in g] for g in groups]


GATES = Slot(
    '(groups, round) -> a boolean for each attempt of each group',
    {'always': _by_verdict('always'), 'wrong': _by_verdict('wrong')},
)


def due(
    name: str, episodes: Sequence[Episode], problems: Sequence[Problem], *, number: int
) -> list[bool]:
    """Returns whether a gate of GATES refines each criticised attempt; problems[i] is of [i].

    Raises ValueError if the function returns anything but a boolean for each.
    """
    pairs = itertools.groupby(zip(problems, episodes, strict=True), key=lambda pair: pair[0].id)
    rows = [list(row) for _, row in pairs]
    groups = tuple(RolloutGroup(row[0][0], tuple(e for _, e in row)) for row in rows)
    function = GATES.find(name, FIELD)
    returned = function(groups, number) if groups else []
    try:
        flags = [[user_functions.as_float(flag) for flag in row] for row in returned]
    except (TypeError, ValueError):
        flags = [[-1.0]]
    sizes = [len(group) for group in groups]
    if [len(row) for row in flags] != sizes or not {f for row in flags for f in row} <= {0.0, 1.0}:
        wanted = f'lists of booleans, one for each attempt of each group: {sizes}'
        user_functions.refuse(function, returned, wanted, field=FIELD)
    return [bool(flag) for row in flags for flag in row]
