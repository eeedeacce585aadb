"""Labels of lines from continuations of them: the slots `critique.labels` and `reinforce.labels`.

Continuations are sampled from the end of every line but the last; how many reach the reference
answer says what a line is worth (annotators.count_successes).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from elenchus.data.records import Problem
from elenchus.sampling import user_functions
from elenchus.sampling.slots import Slot


class Outcomes(NamedTuple):
    """What a labelling gets of one attempt: lines in order, from the first that may be wrong."""

    successes: tuple[int, ...]  # continuations from each line's end that reach the answer
    num_rollouts: int  # continuations from each line's end
    threshold: float  # share of them, of the config
    correct: bool  # the attempt's own answer, which its last line states, is right
    problem: Problem


LABELS = Slot(
    '(outcomes) -> a boolean for each line',
    {'threshold': lambda o: [n >= o.threshold * o.num_rollouts for n in o.successes]},
)
"""Whether each line of `outcomes.successes` is right; the first that is not is the first error."""


def first_wrong(
    name: str,
    successes: Mapping[int, int],
    *,
    num_rollouts: int,
    threshold: float,
    correct: bool,
    problem: Problem,
    field: str = 'critique.labels',
) -> int | None:
    """Returns the first line that a function of LABELS calls wrong, or None; lines are the keys.

    Raises ValueError if the function returns anything but a boolean for each line.
    """
    lines = sorted(successes)
    counts = tuple(successes[i] for i in lines)
    function = LABELS.find(name, field)
    returned = function(Outcomes(counts, num_rollouts, threshold, correct, problem))
    try:
        flags = user_functions.as_floats(returned)
    except (TypeError, ValueError):
        flags = np.full(1, -1.0)
    if flags.shape != (len(lines),) or not np.isin(flags, (0, 1)).all():
        wanted = f'a boolean for each of {len(lines)} lines'
        user_functions.refuse(function, returned, wanted, field=field)
    return next((i for i, flag in zip(lines, flags, strict=True) if not flag), None)
