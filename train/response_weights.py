"""Weights of the tokens of a self-improvement response: the slot `improve.weighting`."""

import numpy as np

from elenchus.data.records import Turn
from elenchus.sampling import user_functions
from elenchus.sampling.slots import Slot
from elenchus.train.rl.advantages import over_tokens

FIELD = 'improve.weighting'


def _ones(turn: Turn, success_rate: float) -> np.ndarray:
    return np.ones(len(turn.tokens), np.float32)


def _score(turn: Turn, success_rate: float) -> np.ndarray:
    """The critic's score of the answer."""
    return np.full(len(turn.tokens), np.float32(turn.facts.score), np.float32)


def _steps(turn: Turn, success_rate: float) -> np.ndarray:
    """The critic's score of the step."""
    return over_tokens(turn.step_scores, turn.step_ends)


def _advantage(turn: Turn, success_rate: float) -> np.ndarray:
    """The score of the step minus that of the step before; at first, minus the success rate.

    Negative where a step makes the response worse. arXiv 2406.14532.
    """
    values = np.diff(np.array([success_rate, *turn.step_scores], np.float32))
    return over_tokens(values, turn.step_ends)


for _weighting in (_score, _steps, _advantage):
    _weighting.reads_scores = True
_advantage.trains_wrong = True

WEIGHTINGS = Slot(
    '(turn, success_rate) -> [tokens]',
    # 'threshold' keeps responses by their score, and weights them alike.
    {
        'keep': _ones,
        'threshold': _ones,
        'score': _score,
        'steps': _steps,
        'advantage': _advantage,
    },
)
"""(response, share of right attempts at its question) -> weight of each token, NaN = unknown.

Attributes, all off where absent: `reads_scores`, the critic scores the responses first;
`trains_wrong`, wrong responses are trained on too."""


def response_weights(turn: Turn, *, weighting: str, success_rate: float) -> np.ndarray:
    """Returns the weight of each token of a response. Raises ValueError for another shape."""
    function = WEIGHTINGS.find(weighting, FIELD)
    returned = function(turn, success_rate)
    try:
        values = user_functions.as_floats(returned)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.shape != (len(turn.tokens),) or np.isinf(values).any():
        wanted = f'a finite number, or NaN (unknown), for each of {len(turn.tokens)} tokens'
        user_functions.refuse(function, returned, wanted, field=FIELD)
    return values
