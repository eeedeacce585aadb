"""Round controllers: functions that change fields of a self-improvement round before it starts.

The slot `improve.controller`. A function that has the attribute `tries_candidates = True` gets
scores of candidates, for which attempts are sampled first (controller.py). Its attribute `worth`, a
function from the attempts of each question to a number, adds a figure of that name to them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from elenchus.sampling.exploration import controller
from elenchus.sampling.slots import Slot


class RoundContext(NamedTuple):
    """What a controller gets besides the summaries of the rounds before."""

    number: int  # of the round, from 1
    settings: Mapping[str, Any]  # path -> value in the config, of every field that may change
    candidates: Sequence[Mapping[str, float]]  # temperature, threshold, balance, worth; or ()


def _balance(rounds: Sequence[Mapping], context: RoundContext) -> dict[str, float]:
    """Returns the candidate with the best balance score; threshold 0 keeps every response."""
    knobs = controller.choose(context.candidates)
    threshold = {'improve.threshold': knobs.threshold} if knobs.threshold else {}
    return {'sampling.temperature': knobs.temperature} | threshold


_balance.tries_candidates = True

CONTROLLERS = Slot(
    '(rounds, context) -> {field: value}',
    {'none': lambda rounds, context: {}, 'balance': _balance},
)
"""(summaries of the rounds before, context) -> {path of a field: its value in this round}."""
FIELD = 'improve.controller'


def tries_candidates(reference: str) -> bool:
    """Returns whether candidates are scored for a controller."""
    return bool(getattr(CONTROLLERS.find(reference, FIELD), 'tries_candidates', False))


def worth_of(reference: str) -> Callable | None:
    """Returns the function that gives candidates a further figure for a controller, if any."""
    return getattr(CONTROLLERS.find(reference, FIELD), 'worth', None)
