"""What a row of metrics says about the health of a run: a warning with its likely cause."""

import math
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Range(NamedTuple):
    """The values of a metric that need no explanation, and what others usually come from."""

    low: float
    high: float
    cause: str


class Finding(NamedTuple):
    metric: str
    text: str


INFINITE = math.inf
STALE = 'too many or too large updates on the same samples; fewer minibatches or a lower rate'
MISMATCH = (
    'sampler and trainer compute different numbers: other temperature or truncation, lower '
    'precision, or stale weights; reinforce.importance_cap bounds the harm'
)

HEALTHY = {
    'loss/ratio': Range(0.8, 1.25, STALE),
    'loss/ratio_max': Range(0.0, 20.0, STALE),
    'loss/clipped_low': Range(0.0, 0.2, STALE),
    'loss/clipped_high': Range(0.0, 0.2, STALE),
    'loss/kl': Range(-0.05, 1.0, 'the policy has left its reference; a larger objective.kl_coef'),
    'loss/entropy': Range(
        0.003, INFINITE, 'the policy has collapsed; a larger clip_high, entropy_coef or temperature'
    ),
    'loss/excluded': Range(
        0.0,
        0.02,
        'trained tokens that the sampling truncation excludes; weaken top_k, top_p, min_p',
    ),
    'sampler/gap': Range(0.0, 0.02, MISMATCH),
    'sampler/gap_max': Range(0.0, 1.0, MISMATCH),
    'reward/groups_without_variance': Range(
        0.0,
        0.9,
        'problems are all too easy or too hard; other problems, more samples a problem, or '
        'reinforce.refill_rounds',
    ),
    'reward/unfinished': Range(
        0.0, 0.5, 'turns are cut off before their end; longer sampling.*_tokens or a length reward'
    ),
    'grads/norm': Range(
        0.0, 100.0, 'a gradient explodes; a lower learning rate, or look for a bad batch'
    ),
}
"""By metric name; [own] bounds, wide enough that a sound run of the lab stays inside."""


def warnings(row: Mapping[str, float]) -> list[Finding]:
    """What in a row of metrics is outside its healthy range, with the likely cause.

    A name may tell the player, as in 'loss/critic/kl'. Not-a-number is outside every range.
    """
    found = []
    for name, value in row.items():
        group, *_, metric = name.split('/')
        healthy = HEALTHY.get(f'{group}/{metric}')
        if healthy is not None and not healthy.low <= value <= healthy.high:
            bounds = f'[{healthy.low:g}, {healthy.high:g}]'
            found.append(Finding(name, f'{name}={value:.4g} is not in {bounds}: {healthy.cause}'))
    return found


def make_watch(tell: Callable[[str], None]) -> Callable[[int, Mapping[str, float]], None]:
    """Returns watch(step, row), which tells the warnings of a row, each metric's only once."""
    told = set()

    def watch(step: int, row: Mapping[str, float]) -> None:
        for warning in warnings(row):
            if warning.metric not in told:
                told.add(warning.metric)
                tell(f'warning: step {step}: {warning.text}')

    return watch


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr)
