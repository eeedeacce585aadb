"""A study: runs that differ in some settings, each for several seeds, side by side.

python -m scripts.study --config configs/studies/critics.py --workdir runs/critics

Arms run in the order of the config, after all of them have been opened. The stages named `shared`
are run once a seed. A study that was stopped continues with the same command. What is compared the
config says in `table` and `panels`; written are study.json, study.md and study.png.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import flags

from elenchus.data.files.atomic import write_text
from elenchus.data.grading import verify
from elenchus.scripts import run as whole
from elenchus.train import distributed
from elenchus.train.config import build, cli
from elenchus.train.metrics import writers
from elenchus.train.report import plots
from elenchus.train.run.directory import link_tree, read_json, write_json
from elenchus.train.run.workspace import Workspace

Key = str | int | tuple[str, ...]
Path = tuple[Key, ...]
"""Where a figure stands in a run's summaries: the stage, or 'last' for the run's last one, then
keys and indices. Several keys in a tuple mean the mean of what stands under them."""

Summaries = dict[str, dict[str, Any]]
"""Stage -> its summary."""
Figures = dict[str, dict[str, Summaries]]
"""Arm -> seed -> summaries."""
Table = dict[str, dict[str, list[float]]]
"""Arm -> column -> its figure of each seed."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A column of the table: scale * (figure - minus), or scale * figure where minus is ()."""

    name: str
    path: Path
    minus: Path
    scale: float


@dataclasses.dataclass(frozen=True)
class Panel:
    """A plot of y against x, a colour an arm; () is the place in the list, counted from 1.

    With `over`, the path of a list, x and y are paths in its items, a point for each; an arm
    without the stage that `over` begins with has no points.
    """

    title: str
    over: Path
    x: Path
    x_label: str
    y: Path
    y_label: str
    scale: float  # of y


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a study shows of its runs."""

    table: tuple[Row, ...]
    panels: tuple[Panel, ...]


def study(config: ml_collections.ConfigDict, workdir: pathlib.Path, verifier: verify.Verifier):
    """Runs every arm of every seed and writes the comparison after each."""
    shown = build.build(Comparison, config.comparison, 'config.comparison')
    arms = arms_of(config)
    check_arms(config, arms, workdir, verifier)
    check_panels(shown, [arm_config(config, 0, changes).stages for changes in arms.values()])
    figures: Figures = {arm: {} for arm in arms}
    for seed in config.seeds:
        shared = arm_config(config, seed, {'stages': config.shared})
        home = arm_folder(workdir, seed, 'shared')
        with Workspace(shared, home, verifier=verifier) as workspace:
            whole.run(workspace)
        for arm, changes in arms.items():
            print(f'=== seed {seed}, {arm}')
            folder = arm_folder(workdir, seed, arm)
            arm_of_seed = arm_config(config, seed, changes)
            with Workspace(arm_of_seed, folder, verifier=verifier) as workspace:
                for stage in config.shared:
                    place = workspace.stage_folder(stage)
                    link_tree(home / 'stages' / place.name, place)
                whole.run(workspace)
            figures[arm][str(seed)] = distributed.run_on_first(lambda path=folder: told_by(path))
            compare(figures, shown, workdir)


def told_by(workdir: pathlib.Path) -> Summaries:
    """A run's summaries; a stage that wrote metrics has them as `rows`."""
    found = {}
    for name, summary in read_json(workdir / 'summary.json')['stages'].items():
        written = workdir / 'stages' / name / writers.METRICS
        rows = {'rows': writers.read_rows(written)} if written.exists() else {}
        found[name.partition('-')[2]] = summary | rows
    return found


def arms_of(config) -> dict[str, Mapping]:
    """Changes by arm, in the config's order. Raises ValueError on a name that stands twice."""
    names = [arm['name'] for arm in config.arms]
    folders = [arm_folder(pathlib.Path(), 0, name).name for name in ('shared', *names)]
    for i, folder in enumerate(folders):
        if folder in folders[:i]:
            raise ValueError(f'config.arms: two folders would be named {folder!r}; rename one')
    return {arm['name']: arm['changes'] for arm in config.arms}


def arm_folder(workdir: pathlib.Path, seed: int, arm: str) -> pathlib.Path:
    return workdir / f'seed{seed}' / arm.replace(' ', '_')


def check_arms(config, arms: dict[str, Mapping], workdir: pathlib.Path, verifier) -> None:
    """Opens every arm of the first seed without writing. Raises ValueError that names the arm."""
    seed = config.seeds[0]
    for arm, changes in arms.items():
        try:
            made, folder = arm_config(config, seed, changes), arm_folder(workdir, seed, arm)
            Workspace(made, folder, verifier=verifier)
        except ValueError as error:
            raise ValueError(f'config.arms: {arm!r}: {error}') from error


def check_panels(shown: Comparison, stages: Sequence[Sequence[str]]) -> None:
    """Raises ValueError where a panel is over a stage that no arm has."""
    known = {'last'}.union(*stages)
    for panel in shown.panels:
        if panel.over and panel.over[0] not in known:
            raise ValueError(
                f'config.comparison: panel {panel.title!r} is over {panel.over[0]!r}; '
                f'nearest: {build.nearest(panel.over[0], sorted(known))!r}'
            )


def arm_config(config, seed: int, changes) -> ml_collections.ConfigDict:
    """The run's config with an arm's changes. Raises ValueError where a change names no field."""
    made = config.run.copy_and_resolve_references().lock()
    try:
        made.update(changes)
    except (KeyError, AttributeError) as error:
        raise ValueError(error.args[0]) from error
    made.seed = seed
    return made


def figure(value: Any, path: Sequence[Key]) -> Any:
    """What stands at a path in nested summaries; nan where that is None, a figure of nothing.

    Raises ValueError, naming the nearest key, where nothing does.
    """
    for i, key in enumerate(path):
        if isinstance(key, tuple):
            return float(np.mean([figure(value, (name, *path[i + 1 :])) for name in key]))
        if value is None:
            return float('nan')
        if key == 'last' and i == 0:
            key = list(value)[-1]
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            names = list(value) if isinstance(value, Mapping) else []
            raise ValueError(
                f'config.comparison: nothing at {path[: i + 1]}; '
                f'nearest: {build.nearest(key, names)!r}'
            ) from error
    return float('nan') if value is None else value


def cell(row: Row, summaries: Summaries) -> float:
    """A row's figure of one run."""
    less = figure(summaries, row.minus) if row.minus else 0.0
    return row.scale * (figure(summaries, row.path) - less)


def points(panel: Panel, summaries: Summaries) -> list[tuple[float, float]]:
    """The points of one run in a panel."""
    if panel.over and panel.over[0] not in ('last', *summaries):
        return []
    items = figure(summaries, panel.over) if panel.over else [summaries]
    return [
        (figure(item, panel.x) if panel.x else place, panel.scale * figure(item, panel.y))
        for place, item in enumerate(items, 1)
    ]


def table_of(figures: Figures, shown: Comparison) -> Table:
    return {
        arm: {
            row.name: [cell(row, summaries) for summaries in seeds.values()] for row in shown.table
        }
        for arm, seeds in figures.items()
        if seeds
    }


def table_lines(table: Table) -> list[str]:
    """Markdown: the arms and, where there are several seeds, each less the first by seed."""
    lines = markdown('arm', table, sign='')
    first, *others = table
    paired = {
        arm: {
            name: [value - base for value, base in zip(values, table[first][name], strict=False)]
            for name, values in table[arm].items()
        }
        for arm in others
    }
    if paired and any(len(values) > 1 for values in table[first].values()):
        lines += ['', *markdown(f'less {first}, by seed', paired, sign='+')]
    return lines


def compare(figures: Figures, shown: Comparison, workdir: pathlib.Path) -> None:
    """Writes the arms side by side."""
    table = table_of(figures, shown)
    lines = table_lines(table)
    done = {arm: list(seeds.values()) for arm, seeds in figures.items() if seeds}
    panels = {
        panel.title: {arm: [points(panel, s) for s in runs] for arm, runs in done.items()}
        for panel in shown.panels
    }
    labels = {panel.title: (panel.x_label, panel.y_label) for panel in shown.panels}
    told = {'arms': table, 'panels': panels, 'summaries': figures}
    write_json(workdir / 'study.json', told)
    write_text(workdir / 'study.md', '\n'.join(lines) + '\n')
    plots.save_png(lambda: plots.study_panels(panels, labels), workdir / 'study.png')
    print('\n'.join(lines))


def markdown(head: str, table: Table, *, sign: str) -> list[str]:
    """Lines of a table of arms: means over seeds, with the range where there are several."""
    names = next(iter(table.values()))
    lines = [f'| {head} | {" | ".join(names)} |', '|---' * (1 + len(names)) + '|']
    for arm, columns in table.items():
        cells = []
        for values in columns.values():
            mean, *ends = (f'{v:{sign}.1f}' for v in (np.mean(values), min(values), max(values)))
            cells.append(f'{mean} [{", ".join(ends)}]' if len(values) > 1 else mean)
        lines.append(f'| {arm} | {" | ".join(cells)} |')
    return lines


if __name__ == '__main__':
    cli.define_flags(stages=None)

    def main(argv):
        values = flags.FLAGS
        cli.join_processes()
        with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
            study(values.config, pathlib.Path(values.workdir), verifier)

    cli.run_main(main)
