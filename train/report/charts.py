"""Every chart of a run's report: how it is drawn, its caption, and the numbers in it as a table.

The page and the files of `scripts.plots` are made of the same charts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from matplotlib import figure as figures

from elenchus.data.text.printable import printable
from elenchus.sampling.metrics.cost_curves import ORACLE
from elenchus.train.metrics import writers
from elenchus.train.report import plots, run_files
from elenchus.train.report.run_files import Stages

Row = Sequence[Any]


class Chart(NamedTuple):
    """A chart and its data."""

    name: str  # of files, once made plain
    caption: str
    draw: Callable[[], figures.Figure]
    columns: tuple[str, ...]
    rows: list[Row]  # shares in [0, 1]; None: unknown


def charts_of(workdir: epath.Path) -> Iterator[Chart]:
    """Yields the charts of a run in the order of its report."""
    stages = run_files.load_stages(workdir)
    evaluations = {name: s for name, s in stages.items() if s.get('accuracy')}
    if evaluations:
        yield accuracy_by_level(evaluations)
    if costed := costed_of(evaluations):
        yield accuracy_by_tokens(costed)
    for name, stage in costed.items():
        if stage.get('curves'):
            yield cost_curves(name, stage['curves'])
    for name, stage in evaluations.items():
        if stage.get('frontier'):
            yield frontier(name, stage)
    for name, stage in evaluations.items():
        if 'measures' in stage:
            yield reliability(name, stage['measures']['calibration']['all'])
    for name, stage in evaluations.items():
        if 'accuracy' in (stage.get('uptake') or {}):
            yield uptake(name, stage['uptake'])
    for name in stages:
        yield from training(workdir, name)


def costed_of(evaluations: Stages) -> Stages:
    """Returns the evaluations that counted their tokens."""
    return {name: s for name, s in evaluations.items() if s.get('tokens_per_answer')}


def accuracy_by_level(evaluations: Stages) -> Chart:
    """Bars of accuracy by level of every arm."""
    rows = [
        (name, arm, level, *_interval(value))
        for name, stage in evaluations.items()
        for arm, levels in stage['accuracy'].items()
        for level, value in levels.items()
    ]
    return Chart(
        'accuracy by level',
        'Share of questions right by level; bars show the intervals.',
        lambda: plots.levels_bars(evaluations),
        ('evaluation', 'arm', 'level', 'right', 'low', 'high'),
        rows,
    )


def accuracy_by_tokens(costed: Stages) -> Chart:
    """Points of accuracy against generated tokens of every arm."""
    rows = [
        (name, arm, tokens, *_interval(stage['accuracy'].get(arm, {}).get('all')))
        for name, stage in costed.items()
        for arm, tokens in stage['tokens_per_answer'].items()
    ]
    return Chart(
        'accuracy against tokens',
        'Share of questions right against generated tokens an answer.',
        lambda: plots.tokens_points(costed),
        ('evaluation', 'arm', 'tokens', 'right', 'low', 'high'),
        rows,
    )


def cost_curves(name: str, curves: plots.Curves) -> Chart:
    """Lines of accuracy against tokens of every way to answer."""
    rows = [
        (arm, level, tokens, *_interval(point['accuracy'].get(level)))
        for arm, points in curves.items()
        for point in points
        for level, tokens in point['tokens'].items()
    ]
    return Chart(
        f'cost {name}',
        f'{name}: each way to answer, at 1, 2, 4, ... attempts (rounds: 1, 2, 3, ...).',
        lambda: plots.cost_curves(curves),
        ('arm', 'level', 'tokens', 'right', 'low', 'high'),
        rows,
    )


def frontier(name: str, stage: Mapping[str, Any]) -> Chart:
    """Points of all ways to answer, and the best for a budget."""
    curves, best = stage['curves'], stage['frontier']
    rows: list[Row] = [
        (arm, level, None, processed, *_interval(point['accuracy'].get(level)))
        for arm, points in curves.items()
        if arm != ORACLE
        for point in points
        for level, processed in point['processed'].items()
    ]
    for row in best['rows']:
        fits = {'one choice': ('all', row['all']), 'by level': ('all', row['by_level'])}
        fits |= {f'level {level}': (level, fit) for level, fit in row['levels'].items()}
        rows += [
            (f'best: {kind}', level, row['budget'], fit['processed'], *_interval(fit['accuracy']))
            for kind, (level, fit) in fits.items()
            if fit
        ]
    return Chart(
        f'frontier {name}',
        f'{name}: every way to answer (faint), and the best for a budget (line), chosen on one '
        'half of the questions and measured on the other.',
        lambda: plots.frontier_panels(curves, best),
        ('arm', 'level', 'budget', 'processed', 'right', 'low', 'high'),
        rows,
    )


def reliability(name: str, calibration: Mapping[str, Any]) -> Chart:
    """Reliability diagram of the critic's scores, and its calibration error by step."""
    kinds = ('final', 'steps', 'judged')
    errors = {key: calibration.get(key, {}).get('ece') for key in kinds}
    listed = ', '.join(f'{k} {100 * v:.1f} %' for k, v in errors.items() if v is not None)
    rows: list[Row] = [
        (kind, None, b['score'], b['right'], b['count'], None)
        for kind in kinds
        for b in calibration.get(kind, {}).get('curve', [])
    ]
    positions = calibration.get('positions', {})
    rows += [
        ('by step', step, None, None, p.get('count'), p['ece']) for step, p in positions.items()
    ]
    return Chart(
        f'calibration {name}',
        f"The critic's scores as probabilities; expected calibration error: {listed or 'none'}. "
        'judged: only the steps with a verdict; all other steps have reward 0.',
        lambda: plots.reliability(calibration),
        ('kind', 'step', 'score', 'right', 'count', 'ece'),
        rows,
    )


def uptake(name: str, figures_of: Mapping[str, Any]) -> Chart:
    """Bars of accuracy under every condition of uptake."""
    accuracy = figures_of['accuracy']
    return Chart(
        f'uptake {name}',
        f'Right answers, {figures_of["questions"]} questions, {figures_of["due"]} refined '
        f'attempts, {figures_of["num_samples"]} samples each; bars show the intervals.',
        lambda: plots.condition_bars(accuracy),
        ('condition', 'right', 'low', 'high'),
        [(condition, *_interval(levels['all'])) for condition, levels in accuracy.items()],
    )


def training(workdir: epath.Path, stage: str) -> Iterator[Chart]:
    """Yields the training curves of a stage, one chart for each of its fits."""
    for path in run_files.metrics_files(workdir / 'stages' / stage):
        if curves := load_curves(path):
            rows = [(name, *point) for name, points in curves.items() for point in points.tolist()]
            title = printable(path.parent.relative_to(workdir / 'stages'))
            yield Chart(
                f'training {title}',
                'By step.',
                lambda curves=curves: plots.training_curves(curves),
                ('metric', 'step', 'value'),
                rows,
            )


def load_curves(path: epath.Path) -> dict[str, np.ndarray]:
    """(step, value) [points, 2] of every metric under loss/ and reward/, sorted by name."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in writers.read_rows(path):
        for name, value in row.items():
            if name.split('/')[0] in ('loss', 'reward'):
                curves.setdefault(printable(name), []).append((row['step'], value))
    return {name: np.array(points, float) for name, points in sorted(curves.items())}


def _interval(value: Any) -> list[float | None]:
    """(mean, low, high) of a figure; None where it is not known."""
    return [None if np.isnan(bound) else float(bound) for bound in plots.bounds(value)]
