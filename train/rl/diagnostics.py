"""Warnings about metrics outside their healthy range, each with its likely cause."""

import math
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Range(NamedTuple):
    """Healthy values of a metric, and the usual cause of others with a remedy."""

    low: float
    high: float
    cause: str


class HealthWarning(NamedTuple):
    """A metric outside its range, and the text to print."""

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
    'loss/ratio_clamped': Range(0.0, 0.001, STALE),
    'loss/kl_clamped': Range(
        0.0, 0.01, 'tokens are far from the reference; a larger objective.kl_coef, a lower rate'
    ),
    'loss/clipped_low': Range(0.0, 0.2, STALE),
    'loss/clipped_high': Range(0.0, 0.2, STALE),
    'loss/kl': Range(
        -0.05, 1.0, 'the policy is far from its reference; a larger objective.kl_coef'
    ),
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
"""Metric name -> range. The bounds are ours: healthy runs of the lab stay inside them."""


def healthy_range(name: str) -> Range | None:
    """Returns the range of a metric, None without one.

    The name may include the player, as in 'loss/critic/kl'.
    """
    group, _, rest = name.partition('/')
    return HEALTHY.get(f'{group}/{rest.rpartition("/")[2]}')


def warnings(row: Mapping[str, float]) -> list[HealthWarning]:
    """Returns a warning for every metric of a row that is outside its healthy range.

    A name may include the player, as in 'loss/critic/kl'. NaN is outside every range. With a value
    model groups of equal rewards teach too, so their share is not judged.
    """
    results, has_values = [], any(name.startswith('value/') for name in row)
    for name, value in row.items():
        if has_values and name.endswith('/groups_without_variance'):
            continue
        healthy = healthy_range(name)
        if healthy is not None and not healthy.low <= value <= healthy.high:
            bounds = f'[{healthy.low:g}, {healthy.high:g}]'
            results.append(
                HealthWarning(name, f'{name}={value:.4g} is not in {bounds}: {healthy.cause}')
            )
    return results


def make_watch(report: Callable[[str], None]) -> Callable[[int, Mapping[str, float]], None]:
    """Returns watch(step, row), which reports the warnings of a row; each metric only once."""
    reported = set()

    def watch(step: int, row: Mapping[str, float]) -> None:
        for warning in warnings(row):
            if warning.metric not in reported:
                reported.add(warning.metric)
                report(f'warning: step {step}: {warning.text}')

    return watch


def to_stderr(text: str) -> None:
    """Prints a line on stderr."""
    print(text, file=sys.stderr)
