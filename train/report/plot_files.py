"""Writes every chart of a run's report, and the panels of studies, as files for papers.

    OUT/accuracy-by-level.svg  .png  .csv     the chart, and the numbers in it

All are in one style (`drawing.save_for_paper`); the same run gives the same bytes.
"""

import os
import re
from collections.abc import Iterator

from etils import epath

from elenchus.data.files import atomic, jsonl
from elenchus.train.report import charts, drawing, episode_charts, plots, run_files
from elenchus.train.report.charts import Chart
from elenchus.train.report.csv_tables import write_csv

FOLDER = 'plots'  # of a run's charts, in its own folder
ENDINGS = ('.svg', '.png', '.csv')
MAX_NAME = 80  # characters of a file's name


def write_plots(workdir: epath.Path, out: epath.Path) -> list[str]:
    """Writes the files of all charts into a folder; returns their names without endings.

    workdir: of a run, or of a study.

    Raises ValueError if it does not exist or has no chart, and if `out` is a file.
    """
    run_files.check_workdir(workdir)
    if out.is_file():
        raise ValueError(f'--out={out} is a file; use a folder')
    names: list[str] = []
    for chart in [
        *charts.charts_of(workdir),
        *episode_charts.charts_of(workdir),
        *studies_of(workdir),
    ]:
        name = _unused(plain_name(chart.name), names)
        names.append(name)
        path = os.fspath(out / name)
        drawing.save_for_paper(chart.draw, path)
        write_csv(epath.Path(f'{path}.csv'), chart.columns, chart.rows)
    if not names:
        raise ValueError(
            f'{workdir} has no chart yet: no stage has metrics or a summary with accuracies; '
            'nearest: a folder of scripts.run or scripts.study, such as runs/lab'
        )
    if out == workdir / FOLDER and not atomic.is_remote(out):
        _delete_others(out, names)  # in another folder they may be of another run, or the user's
    return names


def studies_of(workdir: epath.Path) -> Iterator[Chart]:
    """Yields the panels of the studies whose results are in a folder."""
    for path in sorted(workdir.glob('*.json')):
        try:
            results = jsonl.read_object(path)
        except ValueError:  # a JSON file of somebody else
            continue
        panels, labels = results.get('panels'), results.get('labels')
        if isinstance(panels, dict) and isinstance(labels, dict) and panels.keys() == labels.keys():
            yield study_chart(path.stem, panels, labels)


def study_chart(name: str, panels: plots.StudyPanels, labels: dict[str, tuple[str, str]]) -> Chart:
    """Chart of a study: a panel's arms, with the points of each run."""
    rows = [
        (title, arm, number, *point)
        for title, arms in panels.items()
        for arm, runs in arms.items()
        for number, run in enumerate(runs)
        for point in run
    ]
    return Chart(
        f'study {name}',
        'Means over seeds (lines), and the points of every seed.',
        lambda: plots.study_panels(panels, labels),
        ('panel', 'arm', 'run', 'x', 'y'),
        rows,
    )


def plain_name(name: str) -> str:
    """Returns a name as one of a file on any system: ASCII letters, digits, dots and dashes."""
    return re.sub(r'[^A-Za-z0-9_.]+', '-', name).strip('-.')[:MAX_NAME] or 'chart'


def _unused(name: str, names: list[str]) -> str:
    """Returns the name, with a number if it is taken, whatever the case of its letters."""
    taken = {other.lower() for other in names}
    numbers = (f'{name}-{i}' for i in range(2, len(names) + 3))
    return name if name.lower() not in taken else next(n for n in numbers if n.lower() not in taken)


def _delete_others(out: epath.Path, names: list[str]) -> None:
    """Deletes charts of an earlier call that are no more; other files stay."""
    for path in out.glob('*.csv'):
        rest = [path.with_suffix(ending) for ending in ENDINGS]
        if path.stem not in names and all(other.exists() for other in rest):
            for other in rest:
                other.unlink()
