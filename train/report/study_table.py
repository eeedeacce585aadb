"""Compares the runs of a study: tables in Markdown and a figure, from the runs' summaries.

A config selects the values to compare by their paths in the summaries (`Comparison`).
`write_comparison` writes study.json, study.md and study.png.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from elenchus.data.files.atomic import write_text
from elenchus.data.text import markdown
from elenchus.train.config import build
from elenchus.train.report import drawing, plots, study_contrasts
from elenchus.train.report.study_contrasts import Contrast, ContrastResult, FigurePath
from elenchus.train.run.directory import write_json

Summaries = dict[str, dict[str, Any]]
"""Stage -> its summary."""
Runs = dict[str, dict[str, Summaries]]
"""Arm -> seed -> summaries."""
TRAINING, TOKENS = 'training', 'tokens_sampled'
"""Key, and its only figure, of what an arm sampled to learn from."""
BY_QUESTION = 'by_question'
"""Key of a stage's questions.json among its figures."""
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
    """Columns of a study's table, panels of its figure, and the contrasts that are tested."""

    table: tuple[Column, ...]
    panels: tuple[Panel, ...]
    contrasts: tuple[Contrast, ...]  # at most study_contrasts.MAX_CONTRASTS

    def __post_init__(self):
        names = [column.name for column in self.table]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'comparison.table has two columns {name!r}: rename one')


def check_stages(comparison: Comparison, stages: Mapping[str, Sequence[str]]) -> None:
    """Raises ValueError if a column, or a panel of runs, reads what some arm will not have.

    Before a run only its stages are known, and of `training` its figures.

    Args:
        stages: Arm -> its stages.
    """
    for what, path in _paths(comparison):
        for arm, names in stages.items():
            known = ('last', TRAINING, *names)
            for key in path[0] if isinstance(path[0], tuple) else path[:1]:
                if key not in known:
                    raise ValueError(
                        f'config.comparison: {what} reads the stage {key!r}, which arm {arm!r} '
                        f'does not run; nearest: {build.nearest(str(key), known)!r}'
                    )
        if path[0] == TRAINING:
            figure_at({TRAINING: {TOKENS: 0}}, path)


def check_figures(comparison: Comparison, summaries: Summaries) -> None:
    """Raises ValueError if a column, or a panel of runs, reads a figure that a stage here lacks.

    Args:
        summaries: Those of the stages that all arms share.
    """
    for _, path in _paths(comparison):
        if path[0] in summaries and path[0] != TRAINING:
            number_at(summaries, path)


def _paths(comparison: Comparison) -> Iterator[tuple[str, FigurePath]]:
    """Yields every path that is read in the summaries of every run, and what reads it."""
    for column in comparison.table:
        if not column.path:
            raise ValueError(f'config.comparison: column {column.name!r} has no path')
        yield from ((f'column {column.name!r}', p) for p in (column.path, column.minus) if p)
    for panel in comparison.panels:
        if not panel.over:
            yield from ((f'panel {panel.title!r}', p) for p in (panel.x, panel.y) if p)


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


def figure_at(value: Any, path: FigurePath, *, where: str = 'config.comparison') -> Any:
    """Returns the figure at a path in nested summaries; NaN if it is None (undefined).

    `where` begins the message of an error.

    Example:
        >>> summaries = {'evaluate': {'accuracy': {'1': 0.25, '2': 0.75}}}
        >>> figure_at(summaries, ('last', 'accuracy', ('1', '2')))
        0.5

    Raises ValueError, naming the nearest key, if the path does not exist.
    """
    for i, key in enumerate(path):
        if isinstance(key, tuple):
            rest = path[i + 1 :]
            return float(np.mean([number_at(value, (name, *rest), where=where) for name in key]))
        if value is None:
            return float('nan')
        if key == 'last' and i == 0:
            key = list(value)[-1]
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            names = list(value) if isinstance(value, Mapping) else []
            raise ValueError(
                f'{where}: no figure at {path[: i + 1]}; nearest: {build.nearest(key, names)!r}'
            ) from error
    return float('nan') if value is None else value


def number_at(value: Any, path: FigurePath, *, where: str = 'config.comparison') -> float:
    """Returns `figure_at` of a path. Raises ValueError, naming a path further in, for no number."""
    figure = figure_at(value, path, where=where)
    if not isinstance(figure, (int, float)):
        inner = next(iter(figure), 0) if isinstance(figure, Mapping) else 0
        raise ValueError(f'{where}: no number at {path}; nearest: {(*path, inner)}')
    return figure


def column_value(column: Column, summaries: Summaries) -> float:
    """Value of a column for one run."""
    subtracted = number_at(summaries, column.minus) if column.minus else 0.0
    return column.scale * (number_at(summaries, column.path) - subtracted)


def panel_points(panel: Panel, summaries: Summaries) -> list[tuple[float, float]]:
    """(x, y) of one run's points in a panel."""
    if panel.over and panel.over[0] not in ('last', *summaries):
        return []
    items = figure_at(summaries, panel.over) if panel.over else [summaries]
    return [
        (number_at(item, panel.x) if panel.x else place, panel.scale * number_at(item, panel.y))
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
    lines = [markdown.row(map(markdown.text, (head, *names))), '|---' * (1 + len(names)) + '|']
    for arm, columns in table.items():
        cells = []
        for values in columns.values():
            mean, *ends = (f'{v:{sign}.1f}' for v in (np.mean(values), min(values), max(values)))
            cells.append(f'{mean} [{", ".join(ends)}]' if len(values) > 1 else mean)
        lines.append(markdown.row([markdown.text(arm), *cells]))
    return lines


def contrast_results(runs: Runs, comparison: Comparison) -> dict[Contrast, ContrastResult]:
    """Returns the results of the contrasts, with p-values adjusted together.

    A contrast whose arms have no seed in common is left out: the study still runs.
    """
    columns = {column.name: column for column in comparison.table}
    results = {}
    for contrast in comparison.contrasts:
        arm, baseline = runs[contrast.arm], runs[contrast.baseline]
        seeds = [seed for seed in arm if seed in baseline]
        if not seeds:
            continue
        column = columns[contrast.column]
        sides = [[side[seed] for seed in seeds] for side in (arm, baseline)]
        first, second = ([column_value(column, s) for s in side] for side in sides)
        values = [[question_values(column, s) for s in side] for side in sides]
        known = all(v is not None for side in values for v in side)
        questions = [[questions_of(s, column) for s in side] for side in sides]
        results[contrast] = study_contrasts.compare(
            np.subtract(first, second).tolist(),
            *(values if known else ([], [])),
            design=study_contrasts.design_of(*questions) if known else None,
        )
    return dict(zip(results, study_contrasts.adjust(list(results.values())), strict=True))


def questions_of(summaries: Summaries, column: Column) -> study_contrasts.Questions:
    """Returns {stage: questions.json} for the stages in a column's paths; 'last' stays 'last'."""
    stages = {path[0] for path in (column.path, column.minus) if path}
    named = {stage: list(summaries)[-1] if stage == 'last' else stage for stage in stages}
    return {
        stage: summaries[name][BY_QUESTION]
        for stage, name in named.items()
        if BY_QUESTION in summaries.get(name, {})
    }


def question_values(column: Column, summaries: Summaries) -> np.ndarray | None:
    """Returns a column's value at each question of one run, [Q]; None if it has none."""
    questions = questions_of(summaries, column)
    values = study_contrasts.values_at(questions, column.path)
    if values is None or not column.minus:
        return None if values is None else column.scale * values
    subtracted = study_contrasts.values_at(questions, column.minus)
    if subtracted is None or len(subtracted) != len(values):
        return None
    return column.scale * (values - subtracted)


def write_comparison(
    runs: Runs, comparison: Comparison, workdir: pathlib.Path, *, name: str = 'study'
) -> None:
    """Writes NAME.json, NAME.md and NAME.png, and prints the tables."""
    table = table_of(runs, comparison)
    lines = table_lines(table)
    contrasts = contrast_results(runs, comparison)
    if contrasts:
        lines += ['', *study_contrasts.table_lines(list(contrasts), list(contrasts.values()))]
    finished = {arm: list(seeds.values()) for arm, seeds in runs.items() if seeds}
    panels = {
        panel.title: {
            arm: [panel_points(panel, summaries) for summaries in of_arm]
            for arm, of_arm in finished.items()
        }
        for panel in comparison.panels
    }
    labels = {panel.title: (panel.x_label, panel.y_label) for panel in comparison.panels}
    results = {
        'arms': table,
        'contrasts': [
            dataclasses.asdict(contrast) | result._asdict()
            for contrast, result in contrasts.items()
        ],
        'panels': panels,
        'labels': labels,
        'summaries': without_questions(runs),
    }
    write_json(workdir / f'{name}.json', results)
    write_text(workdir / f'{name}.md', '\n'.join(lines) + '\n')
    if panels:
        drawing.save_png(lambda: plots.study_panels(panels, labels), workdir / f'{name}.png')
    print('\n'.join(lines))


def without_questions(runs: Runs) -> Runs:
    """Returns summaries without the values at each question, which the runs' folders keep."""
    return {
        arm: {
            seed: {
                stage: {name: value for name, value in summary.items() if name != BY_QUESTION}
                for stage, summary in summaries.items()
            }
            for seed, summaries in seeds.items()
        }
        for arm, seeds in runs.items()
    }
