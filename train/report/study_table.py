"""Comparison of a study's runs: a table in Markdown and a figure, from the runs' summaries.

A config selects the values to compare by their paths in the summaries (`Comparison`).
`write_comparison` writes study.json, study.md and study.png.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elenchus.data.files.atomic import write_text
from elenchus.train.config import build
from elenchus.train.report import plots
from elenchus.train.run.directory import write_json

Key = str | int | tuple[str, ...]
FigurePath = tuple[Key, ...]
"""Path of a figure in a run's summaries: the stage (or 'last' for the run's last one), then keys
and indices. A tuple of keys means the mean of the figures under each of them."""

Summaries = dict[str, dict[str, Any]]
"""Stage -> its summary."""
Runs = dict[str, dict[str, Summaries]]
"""Arm -> seed -> summaries."""
Table = dict[str, dict[str, list[float]]]
"""Arm -> column -> its value for each seed."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table: scale * (figure - minus), or scale * figure if `minus` is empty."""

    name: str  # heading
    path: FigurePath
    minus: FigurePath  # path of a figure to subtract; (): none
    scale: float  # such as 100 for per cent


@dataclasses.dataclass(frozen=True)
class Panel:
    """A plot of y against x, with one colour per arm.

    With an empty `over` a run is one point. Otherwise `over` is the path of a list, and x and y are
    paths in its items, one point for each; an arm without the stage that `over` begins with has no
    points.
    """

    title: str
    over: FigurePath
    x: FigurePath  # (): the item's place in the list, counted from 1
    x_label: str
    y: FigurePath
    y_label: str
    scale: float  # of y


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Columns of a study's table and panels of its figure."""

    table: tuple[Column, ...]
    panels: tuple[Panel, ...]


def check_panels(comparison: Comparison, stages: Sequence[Sequence[str]]) -> None:
    """Raises ValueError if a panel is over a stage that no arm runs.

    Args:
        stages: the stages of each arm.
    """
    known = {'last'}.union(*stages)
    for panel in comparison.panels:
        if panel.over and panel.over[0] not in known:
            raise ValueError(
                f'config.comparison: panel {panel.title!r} is over the unknown stage '
                f'{panel.over[0]!r}; nearest: {build.nearest(panel.over[0], sorted(known))!r}'
            )


def figure_at(value: Any, path: FigurePath) -> Any:
    """Returns the figure at a path in nested summaries; NaN if it is None (undefined).

    Example:
        >>> summaries = {'evaluate': {'accuracy': {'1': 0.25, '2': 0.75}}}
        >>> figure_at(summaries, ('last', 'accuracy', ('1', '2')))
        0.5

    Raises ValueError, naming the nearest key, if the path does not exist.
    """
    for i, key in enumerate(path):
        if isinstance(key, tuple):
            return float(np.mean([figure_at(value, (name, *path[i + 1 :])) for name in key]))
        if value is None:
            return float('nan')
        if key == 'last' and i == 0:
            key = list(value)[-1]
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            names = list(value) if isinstance(value, Mapping) else []
            raise ValueError(
                f'config.comparison: no figure at {path[: i + 1]}; '
                f'nearest: {build.nearest(key, names)!r}'
            ) from error
    return float('nan') if value is None else value


def column_value(column: Column, summaries: Summaries) -> float:
    """Value of a column for one run."""
    subtracted = figure_at(summaries, column.minus) if column.minus else 0.0
    return column.scale * (figure_at(summaries, column.path) - subtracted)


def panel_points(panel: Panel, summaries: Summaries) -> list[tuple[float, float]]:
    """(x, y) of one run's points in a panel."""
    if panel.over and panel.over[0] not in ('last', *summaries):
        return []
    items = figure_at(summaries, panel.over) if panel.over else [summaries]
    return [
        (figure_at(item, panel.x) if panel.x else place, panel.scale * figure_at(item, panel.y))
        for place, item in enumerate(items, 1)
    ]


def table_of(runs: Runs, comparison: Comparison) -> Table:
    """Values of every column, for the arms with at least one complete run."""
    return {
        arm: {
            column.name: [column_value(column, summaries) for summaries in seeds.values()]
            for column in comparison.table
        }
        for arm, seeds in runs.items()
        if seeds
    }


def table_lines(table: Table) -> list[str]:
    """Markdown lines: all arms and, with several seeds, their differences to the first arm.

    The differences are paired by seed, so noise that the arms of a seed share cancels.
    """
    lines = markdown_lines('arm', table, sign='')
    first, *others = table
    # While a study runs, the other arms may have one seed less than the first one: not strict.
    paired = {
        arm: {
            name: [value - base for value, base in zip(values, table[first][name], strict=False)]
            for name, values in table[arm].items()
        }
        for arm in others
    }
    if paired and any(len(values) > 1 for values in table[first].values()):
        lines += ['', *markdown_lines(f'less {first}, by seed', paired, sign='+')]
    return lines


def markdown_lines(head: str, table: Table, *, sign: str) -> list[str]:
    """Markdown lines of a table: means over seeds, with [min, max] if there are several.

    Args:
        head: heading of the first column.
        sign: format flag of the numbers; '+' prints the sign of positive ones too.
    """
    names = next(iter(table.values()))
    lines = [f'| {head} | {" | ".join(names)} |', '|---' * (1 + len(names)) + '|']
    for arm, columns in table.items():
        cells = []
        for values in columns.values():
            mean, *ends = (f'{v:{sign}.1f}' for v in (np.mean(values), min(values), max(values)))
            cells.append(f'{mean} [{", ".join(ends)}]' if len(values) > 1 else mean)
        lines.append(f'| {arm} | {" | ".join(cells)} |')
    return lines


def write_comparison(runs: Runs, comparison: Comparison, workdir: pathlib.Path) -> None:
    """Writes study.json, study.md and study.png, and prints the table."""
    table = table_of(runs, comparison)
    lines = table_lines(table)
    finished = {arm: list(seeds.values()) for arm, seeds in runs.items() if seeds}
    panels = {
        panel.title: {
            arm: [panel_points(panel, summaries) for summaries in of_arm]
            for arm, of_arm in finished.items()
        }
        for panel in comparison.panels
    }
    labels = {panel.title: (panel.x_label, panel.y_label) for panel in comparison.panels}
    results = {'arms': table, 'panels': panels, 'summaries': runs}
    write_json(workdir / 'study.json', results)
    write_text(workdir / 'study.md', '\n'.join(lines) + '\n')
    plots.save_png(lambda: plots.study_panels(panels, labels), workdir / 'study.png')
    print('\n'.join(lines))
