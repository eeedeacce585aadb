"""What the health panel shows: checks of episodes, and metrics against their healthy ranges."""

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from elenchus.data.files import jsonl
from elenchus.data.text.printable import printable
from elenchus.train.metrics import writers
from elenchus.train.report.browser.rows import FLAGS
from elenchus.train.rl import diagnostics

MAX_POINTS = 200
"""Points of a series; longer ones are thinned, but for their least and greatest values."""


class Check(NamedTuple):
    """A share of episodes that should stay below a limit."""

    flag: str
    limit: float
    of: str  # share of which ones: episodes, sampled, critiques, steps, groups, stored
    remedy: str


CHECKS = (
    Check(
        'truncated',
        0.1,
        'sampled',
        'longer sampling.*_tokens; a model that never ends a turn has seen too few ends',
    ),
    Check(
        'unreadable',
        0.05,
        'critiques',
        'more critic training steps, or prompts.critique with the format',
    ),
    Check('no_answer', 0.05, 'episodes', 'data.answer with the marks that the model uses'),
    Check('verifier', 0.01, 'episodes', 'data.answer.timeout_s; look for expressions that explode'),
    Check('unsure', 0.05, 'episodes', 'answers in a form that can be compared'),
    Check('spurious', 0.2, 'steps', 'rewards of steps; such answers are trained on as right'),
    Check(
        'no_variance',
        diagnostics.HEALTHY['reward/groups_without_variance'].high,
        'groups',
        diagnostics.HEALTHY['reward/groups_without_variance'].cause,
    ),
    Check('mismatch', 0.02, 'stored', diagnostics.MISMATCH),
)
"""Limits are of shares of episodes; they are ours, and healthy runs of the lab stay below them."""


def describe_checks() -> list[dict[str, Any]]:
    """Returns the checks for the page, with the meaning of each flag."""
    return [check._asdict() | {'meaning': FLAGS[check.flag]} for check in CHECKS]


def read_series(workdir: epath.Path) -> list[dict[str, Any]]:
    """Returns every metric that has a healthy range, of every metrics.jsonl of a run."""
    paths = itertools.chain(
        *(workdir.glob(f'stages/*/{depth}{writers.METRICS}') for depth in ('', '*/', '*/*/'))
    )
    return [
        _series(path, workdir, name=name, rows=rows)
        for path in sorted(paths)
        for rows in [writers.read_rows(path)]
        for name in sorted({name for row in rows for name in row})
        if diagnostics.healthy_range(name)
    ]


def read_verifier(workdir: epath.Path) -> list[dict[str, Any]]:
    """Returns what the verifier counted in each stage: shares of timeouts, errors and doubts."""
    return [
        {'stage': printable(path.parent.name)} | _numbers(jsonl.read_object(path))
        for path in sorted(workdir.glob('stages/*/verifier.json'))
    ]


def _series(
    path: epath.Path, workdir: epath.Path, *, name: str, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    healthy = diagnostics.healthy_range(name)
    points = [(row['step'], row[name]) for row in rows if name in row]
    outside = [step for step, value in points if not healthy.low <= value <= healthy.high]
    return {
        'stage': printable(os.fspath(path.parent.relative_to(workdir / 'stages'))),
        'name': printable(name),
        'low': healthy.low,
        'high': healthy.high if healthy.high < diagnostics.INFINITE else None,
        'cause': healthy.cause,
        'outside': len(outside),
        'first_outside': outside[0] if outside else None,
        'points': _thinned(points),
        'count': len(points),
    }


def _thinned(points: Sequence[tuple[int, float]]) -> list[list[float | None]]:
    """Returns at most MAX_POINTS points; of each stretch that is left out, the least and greatest.

    NaN and infinite values become None.
    """
    size = -(-len(points) // (MAX_POINTS // 2))
    kept = []
    for start in range(0, len(points), size or 1):
        stretch = points[start : start + size]
        extremes = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += stretch if size <= 2 else sorted(extremes)
    return [[step, _finite(value)] for step, value in kept]


def _finite(value: float) -> float | None:
    return round(value, 6) if abs(value) < diagnostics.INFINITE else None


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {printable(n): v for n, v in values.items() if isinstance(v, (int, float))}
