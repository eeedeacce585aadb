"""Ranks the points of a sweep by one figure of their summaries, with intervals over the seeds."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from elenchus.data.text import markdown
from elenchus.data.text.printable import printable_json
from elenchus.sampling.metrics import statistics
from elenchus.sampling.metrics.statistics import Interval
from elenchus.train.report.csv_tables import write_csv
from elenchus.train.report.study_contrasts import CONFIDENCE
from elenchus.train.report.study_table import Summaries, figure_at
from elenchus.train.run.directory import write_json

NAME = 'sweep'


class Ranked(NamedTuple):
    """A point with its figure."""

    name: str
    changes: Mapping[str, Any]
    values: dict[str, float]  # by seed; NaN where the figure is not defined
    interval: Interval | None  # Student's t over the seeds; None without a value
    less_best: Interval | None  # difference from the best point, paired by seed; None: no common
    failures: dict[str, str]  # seed -> why its run failed


def path_of(text: str) -> tuple[str, ...]:
    """Returns the path of a figure, such as evaluate.accuracy.refined.all."""
    path = tuple(part for part in text.split('.') if part)
    if len(path) < 2:
        raise ValueError(
            f'--rank={text!r} must be the path of a figure in summary.json: a stage, or last, then '
            'keys, such as evaluate.accuracy.refined.all or last.final_loss'
        )
    return path


def figure_of(summaries: Summaries, path: Sequence[str]) -> float:
    """Returns the figure at a path of a run's summaries; the mean of a figure with an interval.

    Raises ValueError, naming the nearest key, if there is no number.
    """
    keys: list[str | int] = []
    value: Any = summaries
    for part in path:
        value = figure_at(summaries, tuple(keys), where='--rank') if keys else value
        is_index = isinstance(value, list) and part.lstrip('-').isdigit()
        keys.append(int(part) if is_index else part)
    figure: Any = figure_at(summaries, tuple(keys), where='--rank')
    if isinstance(figure, list) and figure:
        figure = float('nan') if figure[0] is None else figure[0]
    if isinstance(figure, bool) or not isinstance(figure, (int, float)):
        keys_of = list(figure) if isinstance(figure, dict) else ['none']
        raise ValueError(
            f'--rank={".".join(path)} is no number; nearest: {".".join(path)}.{keys_of[0]}'
        )
    return float(figure)


def rank(
    points: Sequence[tuple[str, Mapping[str, Any]]],
    values: Mapping[str, Mapping[str, float]],
    failures: Mapping[str, Mapping[str, str]],
    *,
    is_ascending: bool = False,
) -> list[Ranked]:
    """Ranks points (name, changes) by the mean over their seeds; those without one come last.

    Args:
        values: Name -> seed -> figure.
        failures: Name -> seed -> why that run failed.
        is_ascending: The least is best, as of a loss.
    """

    def mean_of(name: str) -> float:
        known = list(values.get(name, {}).values())
        mean = float(np.mean(known)) if known else float('nan')
        return float('inf') if np.isnan(mean) else mean if is_ascending else -mean

    ordered = sorted(points, key=lambda point: (mean_of(point[0]), point[0]))
    best = values.get(ordered[0][0], {}) if ordered else {}
    return [
        Ranked(
            name,
            changes,
            dict(values.get(name, {})),
            _interval(list(values.get(name, {}).values())),
            _interval([v - best[s] for s, v in values.get(name, {}).items() if s in best]),
            dict(failures.get(name, {})),
        )
        for name, changes in ordered
    ]


def write_table(
    ranked: Sequence[Ranked], workdir: epath.Path, *, path: Sequence[str], seeds: Sequence[int]
) -> list[str]:
    """Writes sweep.json, sweep.csv and sweep.md; returns the lines of the table."""
    fields = list(dict.fromkeys(field for row in ranked for field in row.changes))
    rows = [
        {
            'rank': number if row.interval else None,
            'name': row.name,
            'changes': row.changes,
            'values': {seed: _known(value) for seed, value in row.values.items()},
            **_bounds(row.interval, ''),
            **_bounds(row.less_best, 'less_best_'),
            'failures': row.failures,
        }
        for number, row in enumerate(ranked, 1)
    ]
    results = {'figure': '.'.join(path), 'seeds': list(seeds), 'level': CONFIDENCE, 'points': rows}
    write_json(workdir / f'{NAME}.json', printable_json(results))
    numbers = ('mean', 'low', 'high', 'less_best_mean', 'less_best_low', 'less_best_high')
    write_csv(
        workdir / f'{NAME}.csv',
        ('rank', *fields, *numbers, *(f'seed{seed}' for seed in seeds), 'failed', 'name'),
        (
            (
                row['rank'],
                *(_cell(row['changes'].get(field)) for field in fields),
                *(row[name] for name in numbers),
                *(row['values'].get(str(seed)) for seed in seeds),
                '; '.join(f'seed {s}: {why}' for s, why in row['failures'].items()),
                row['name'],
            )
            for row in rows
        ),
    )
    lines = table_lines(ranked, fields, figure='.'.join(path))
    (workdir / f'{NAME}.md').write_text('\n'.join(lines) + '\n')
    return lines


def table_lines(ranked: Sequence[Ranked], fields: Sequence[str], *, figure: str) -> list[str]:
    """Markdown lines of the ranking: fields, mean with its interval, and difference to the best."""
    head = ('', *fields, figure, 'less the best, by seed', 'seeds')
    lines = [markdown.row(map(markdown.text, head)), '|---' * len(head) + '|']
    for number, row in enumerate(ranked, 1):
        cells = [str(number) if row.interval else '-']
        cells += [markdown.text(str(row.changes.get(field, '-'))) for field in fields]
        cells += [_text(row.interval), _text(row.less_best, sign='+') if number > 1 else '-']
        failed = f', {len(row.failures)} failed' if row.failures else ''
        lines.append(markdown.row([*cells, f'{len(row.values)}{failed}']))
    return lines


def _interval(values: Sequence[float]) -> Interval | None:
    """Returns Student's t interval over seeds; None without values, or if one is NaN."""
    if not values or np.isnan(values).any():
        return None
    return statistics.t_interval(values, level=CONFIDENCE)


def _bounds(interval: Interval | None, prefix: str) -> dict[str, float | None]:
    return {
        f'{prefix}{n}': v for n, v in zip(Interval._fields, interval or (None,) * 3, strict=True)
    }


def _text(interval: Interval | None, *, sign: str = '') -> str:
    if interval is None:
        return '-'
    text = f'{interval.mean:{sign}.4g}'
    bounds = (
        '' if interval.low is None else f' [{interval.low:{sign}.4g}, {interval.high:{sign}.4g}]'
    )
    return text + bounds


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _cell(value: Any) -> Any:
    return (
        value
        if value is None or isinstance(value, (bool, int, float, str))
        else os.fspath(str(value))
    )
