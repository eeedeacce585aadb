"""A study: runs that differ in some settings, each for several seeds, side by side.

python -m scripts.study --config configs/critics.py --workdir runs/critics

The stages named `shared` are run once a seed. A study that was stopped continues with the same
command. What is compared the config says in `table` and `panels`; written are study.json, study.md
and study.png.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import flags

from data import verify
from data.json_files import write_text
from scripts import command, plots
from scripts import run as whole
from scripts.workspace import Workspace, link_tree, write_json
from train import settings

Key = str | int | tuple[str, ...]
Path = tuple[Key, ...]
"""Where a figure stands in a run's summaries: the stage, or 'last' for the run's last one, then
keys and indices. Several keys in a tuple mean the mean of what stands under them."""

Summaries = dict[str, dict[str, Any]]
"""Stage -> its summary."""
Figures = dict[str, dict[str, Summaries]]
"""Arm -> seed -> summaries."""


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

    With `over`, the path of a list, x and y are paths in its items, a point for each.
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
    shown = settings.build(Comparison, config.comparison, 'config.comparison')
    figures: Figures = {arm: {} for arm in config.arms}
    for seed in config.seeds:
        home = workdir / f'seed{seed}'
        shared = arm_config(config, seed, {'stages': config.shared})
        whole.run(Workspace(shared, home / 'shared', verifier=verifier))
        for arm, changes in config.arms.items():
            print(f'=== seed {seed}, {arm}')
            folder = home / arm.replace(' ', '_')
            workspace = Workspace(arm_config(config, seed, changes), folder, verifier=verifier)
            for stage in config.shared:
                place = workspace.stage_folder(stage)
                link_tree(home / 'shared' / 'stages' / place.name, place)
            whole.run(workspace)
            told = json.loads((folder / 'summary.json').read_text())['stages']
            figures[arm][str(seed)] = {name.partition('-')[2]: s for name, s in told.items()}
            compare(figures, shown, workdir)


def arm_config(config, seed: int, changes) -> ml_collections.ConfigDict:
    """The run's config with an arm's changes. Raises ValueError where a change names no field."""
    made = config.run.copy_and_resolve_references().lock()
    try:
        made.update(changes)
    except (KeyError, AttributeError) as error:
        raise ValueError(f'config.arms: {error.args[0]}') from error
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
                f'nearest: {settings.nearest(key, names)!r}'
            ) from error
    return float('nan') if value is None else value


def cell(row: Row, summaries: Summaries) -> float:
    """A row's figure of one run."""
    less = figure(summaries, row.minus) if row.minus else 0.0
    return row.scale * (figure(summaries, row.path) - less)


def points(panel: Panel, summaries: Summaries) -> list[tuple[float, float]]:
    """The points of one run in a panel."""
    items = figure(summaries, panel.over) if panel.over else [summaries]
    return [
        (figure(item, panel.x) if panel.x else place, panel.scale * figure(item, panel.y))
        for place, item in enumerate(items, 1)
    ]


def compare(figures: Figures, shown: Comparison, workdir: pathlib.Path) -> None:
    """Writes the arms side by side: the mean over seeds, and their range in brackets."""
    done = {arm: list(seeds.values()) for arm, seeds in figures.items() if seeds}
    table = {
        arm: {row.name: [cell(row, s) for s in runs] for row in shown.table}
        for arm, runs in done.items()
    }
    names = [row.name for row in shown.table]
    lines = [f'| arm | {" | ".join(names)} |', '|---' * (1 + len(names)) + '|']
    for arm, columns in table.items():
        cells = (
            f'{np.mean(v):.1f} [{min(v):.1f}, {max(v):.1f}]' if len(v) > 1 else f'{v[0]:.1f}'
            for v in columns.values()
        )
        lines.append(f'| {arm} | {" | ".join(cells)} |')
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


if __name__ == '__main__':
    command.define_flags(stages=None)

    def main(argv):
        values = flags.FLAGS
        with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
            study(values.config, pathlib.Path(values.workdir), verifier)

    settings.run_main(main)
