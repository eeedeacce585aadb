"""Draws the figures of reports and studies; `drawing.py` turns them into SVG and PNG."""

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import figure as figures

from elenchus.sampling.metrics.cost_curves import ORACLE
from elenchus.train.report.run_files import Stages

COLOURS = ('#8a94a6', '#3f86d4', '#e08a2e', '#8c6bd1', '#2f9e77', '#d1587f', '#a08f1c', '#4aa7bd')
MARKERS = 'osD^vPX*'
LINES = {'': '-', 'min': '-', 'product': '--', 'last': ':', 'all': '-', 'upper bound': '-.'}
"""Variant of an arm (in brackets after its name) -> line style."""
MAX_POINTS = 400  # of a plotted training curve; more would only make the page large

Curves = dict[str, list[dict[str, Any]]]
"""Arm -> its points, as in `curves` of the summary of `evaluate`."""
StudyPanels = dict[str, dict[str, list[list[tuple[float, float]]]]]
"""Title -> arm -> (x, y) of the points of each of its runs."""


def levels_bars(evaluations: Stages) -> figures.Figure:
    """Bars of accuracy by level, with intervals, for every arm of every evaluation.

    Of the arms with several sample sizes (`majority@8`) only the largest size is drawn.
    """
    bars = {}
    for i, (name, stage) in enumerate(evaluations.items()):
        sizes = {arm: _size(arm) for arm in stage['accuracy']}
        drawn = [arm for arm, size in sizes.items() if size in (0, max(sizes.values()))]
        # pass@k needs the reference answer, so it is not a way to answer.
        for arm in (arm for arm in drawn if not arm.startswith('pass')):
            bars[f'{name}: {arm}' if i else arm] = stage['accuracy'][arm]
    figure, (axes,) = make_panels(1, columns=1, size=(9.2, 3.6))
    names, width = levels_of(bars), 0.84 / len(bars)
    for i, (arm, levels) in enumerate(bars.items()):
        middle, low, high = np.array([bounds(levels.get(n)) for n in names], float).T * 100
        at = np.arange(len(names)) + (i - (len(bars) - 1) / 2) * width
        axes.bar(at, middle, width * 0.92, color=colour_of(i), label=arm)
        errors = np.maximum([middle - low, high - middle], 0)
        axes.errorbar(at, middle, errors, fmt='none', ecolor=_ink(), elinewidth=0.7)
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel='level', ylabel='right, %', ylim=(0, 100))
    figure.legend(loc='outside lower center', ncols=4, frameon=False)
    return figure


def condition_bars(accuracy: dict[str, dict]) -> figures.Figure:
    """Bars of overall accuracy with intervals, one for each condition of uptake."""
    figure, (axes,) = make_panels(1, columns=1, size=(7.6, 2.8))
    middle, low, high = np.array([bounds(levels['all']) for levels in accuracy.values()]).T * 100
    colours = [colour_of(i) for i in range(len(accuracy))]
    axes.bar(range(len(accuracy)), middle, 0.7, color=colours)
    errors = np.maximum([middle - low, high - middle], 0)
    axes.errorbar(range(len(accuracy)), middle, errors, fmt='none', ecolor=_ink(), elinewidth=0.9)
    names = [name.replace('_', ' ') for name in accuracy]
    axes.set_xticks(range(len(names)), names, rotation=20, ha='right')
    axes.set(ylabel='right, %', ylim=(0, 100))
    return figure


def tokens_points(evaluations: Stages) -> figures.Figure:
    """Accuracy against tokens: one point per arm (colour) and evaluation (marker)."""
    arms = keys_of(evaluations, 'tokens_per_answer')
    figure, (axes,) = make_panels(1, columns=1, size=(7.6, 3.4))
    for marker, (name, stage) in zip(itertools.cycle(MARKERS), evaluations.items(), strict=False):
        for i, arm in enumerate(arms):
            tokens = stage['tokens_per_answer'].get(arm)
            point = stage['accuracy'].get(arm, {}).get('all')
            if tokens is None or point is None:
                continue
            middle, low, high = np.array(bounds(point)) * 100
            errors = [[max(middle - low, 0)], [max(high - middle, 0)]]
            axes.errorbar(
                tokens, middle, errors, color=colour_of(i), marker=marker, capsize=2, ls='none'
            )
        axes.plot([], [], color=_ink(), marker=marker, ls='none', label=name)
    for i, arm in enumerate(arms):
        axes.plot([], [], color=colour_of(i), lw=5, label=arm)
    axes.set(xlabel='generated tokens an answer', ylabel='right, %')
    axes.margins(x=0.1)
    figure.legend(loc='outside right upper', frameon=False)
    return figure


def training_curves(curves: dict[str, np.ndarray]) -> figures.Figure:
    """Training curves: one panel per metric, with its points and their running mean."""
    figure, panels = make_panels(len(curves), columns=3, size=(3.1, 2.1), fixed=True)
    for axes, (name, points) in zip(panels, curves.items(), strict=True):
        steps, values = points[:: max(1, len(points) // MAX_POINTS)].T
        window = max(1, len(values) // 20)
        colour = COLOURS[1] if name.startswith('loss') else COLOURS[2]
        axes.plot(steps, values, color=colour, alpha=0.35 if window > 1 else 1, lw=1)
        if window > 1:
            means = np.convolve(values, np.full(window, 1 / window), mode='valid')
            axes.plot(steps[window // 2 :][: len(means)], means, color=colour, lw=1.6)
        axes.set(title=name, xlabel='step')
    return figure


def cost_curves(curves: Curves) -> figures.Figure:
    """Accuracy against generated tokens per question: one panel per level, one line per arm."""
    levels = levels_of({arm: points[0]['accuracy'] for arm, points in curves.items()})
    levels = [*levels[-1:], *levels[:-1]]  # 'all' first
    families = list(dict.fromkeys(arm.partition(' (')[0] for arm in curves))
    figure, panels = make_panels(len(levels), columns=3, size=(3.6, 2.8))
    for axes, level in zip(panels, levels, strict=True):
        for arm, points in curves.items():
            family, _, variant = arm.rstrip(')').partition(' (')
            known = [p for p in points if level in p['accuracy']]
            values = np.array([p['accuracy'][level] for p in known], float).reshape(-1, 3) * 100
            middle, low, high = values.T
            axes.errorbar(
                [p['tokens'][level] for p in known],
                middle,
                np.maximum([middle - low, high - middle], 0),
                color=colour_of(families.index(family)),
                ls=LINES.get(variant, '-'),
                marker=MARKERS[families.index(family) % len(MARKERS)],
                markersize=3.5,
                lw=1.2,
                elinewidth=0.5,
                label=arm,
            )
        axes.set(title=level if level == 'all' else f'level {level}')
        axes.set_xscale('log', base=2)
        axes.xaxis.set_major_formatter('{x:.0f}')
        axes.set(xlabel='generated tokens a question', ylabel='right, %')
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=3, frameon=False)
    return figure


def frontier_panels(curves: Curves, frontier: dict[str, Any]) -> figures.Figure:
    """Accuracy against processed tokens: faint points of all arms, and the frontier over them.

    One panel for all levels and one for each level. A choice is named where it differs from that of
    the budget before. The oracle is not a candidate and not drawn.

    Args:
        frontier: that of the summary of `evaluate`.
    """
    curves = {arm: points for arm, points in curves.items() if arm != ORACLE}
    rows = frontier['rows']
    panels = {'all': [row['all'] for row in rows]}
    panels |= {n: [row['levels'][n] for row in rows] for n in rows[-1]['levels']}
    families = list(dict.fromkeys(arm.partition(' (')[0] for arm in curves))
    figure, grid = make_panels(len(panels), columns=2, size=(5.2, 3.4))
    for axes, (level, best) in zip(grid, panels.items(), strict=True):
        for arm, points in curves.items():
            index = families.index(arm.partition(' (')[0])
            known = [p for p in points if p['processed'].get(level) is not None]
            axes.plot(
                [p['processed'][level] for p in known],
                [100 * p['accuracy'][level][0] for p in known],
                MARKERS[index % len(MARKERS)],
                color=colour_of(index),
                alpha=0.4,
                ms=4,
            )
        _draw_frontier(axes, [fit for fit in best if fit], label='one choice', line='-')
        if level == 'all':
            shared = [row['by_level'] for row in rows if row['by_level']]
            _draw_frontier(axes, shared, label='a choice for each level', line='--')
        axes.set(title=level if level == 'all' else f'level {level}')
        axes.set_xscale('log', base=2)
        axes.xaxis.set_major_formatter('{x:.0f}')
        axes.margins(x=0.15, y=0.15)
        axes.set(xlabel='processed tokens a question', ylabel='right, %')
    for index, family in enumerate(families):
        marker = MARKERS[index % len(MARKERS)]
        grid[0].plot([], [], marker, color=colour_of(index), ms=4, label=family)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside lower center', ncols=4, frameon=False, handlelength=3.5
    )
    return figure


def _draw_frontier(axes: Any, fits: Sequence[dict], *, label: str, line: str) -> None:
    """Draws the best choice of each budget; writes its name where it is a single candidate."""
    if not fits:
        return
    middle, low, high = np.array([bounds(fit['accuracy']) for fit in fits], float).T * 100
    places = [fit['processed'] for fit in fits]
    errors = np.maximum([middle - low, high - middle], 0)
    style = {'color': _ink(), 'ls': line, 'marker': 'o', 'ms': 3, 'lw': 2, 'elinewidth': 0.6}
    axes.errorbar(places, middle, errors, label=label, **style)
    before = None
    for fit, *at in zip(fits, places, middle, strict=True):
        name = fit['choice']
        if isinstance(name, str) and name != before:
            # Slanted, so that the names of near points do not run into each other.
            style = {'textcoords': 'offset points', 'rotation': -38, 'rotation_mode': 'anchor'}
            axes.annotate(name, at, (3, -8), fontsize=6.5, **style)
        before = name


def reliability(calibration: dict[str, Any]) -> figures.Figure:
    """Reliability diagram of the critic's scores, and its calibration error by step position."""
    positions = calibration.get('positions', {})
    figure, panels = make_panels(1 + bool(positions), columns=2, size=(3.8, 3.2))
    panels[0].plot([0, 1], [0, 1], color=_ink(), lw=0.8, ls=':', label='calibrated')
    for i, name in enumerate(('final', 'steps', 'judged')):
        curve = calibration.get(name, {}).get('curve', [])
        if curve:
            scores, right, counts = (
                np.array([b[k] for b in curve], float) for k in ('score', 'right', 'count')
            )
            colour = colour_of(i + 1)
            panels[0].plot(scores, right, color=colour, lw=1.2, label=name)
            panels[0].scatter(scores, right, 8 + 60 * counts / counts.max(), color=colour)
    panels[0].set(title='reliability', xlabel="the critic's score", ylabel='share right')
    panels[0].legend(frameon=False)
    if positions:
        panels[1].bar(list(positions), [p['ece'] for p in positions.values()], color=colour_of(2))
        panels[1].set(title='by step', xlabel='step', ylabel='expected calibration error')
    return figure


def study_panels(panels: StudyPanels, labels: dict[str, tuple[str, str]]) -> figures.Figure:
    """Figure of a study: the mean of each arm over seeds, and the points of every seed.

    A mean ends where the shortest run ends; runs of one point are drawn as points.

    Args:
        labels: title -> labels of x and y.
    """
    figure, grid = make_panels(len(panels), columns=2, size=(5.6, 3.6))
    for axes, (title, arms) in zip(grid, panels.items(), strict=True):
        for i, (arm, runs) in enumerate(arms.items()):
            colour, marker = colour_of(i), MARKERS[i // len(COLOURS) % len(MARKERS)]
            shortest = min(map(len, runs))
            if not shortest:
                continue
            for run in runs:
                x, y = np.array(run, float).T
                axes.plot(x, y, marker, color=colour, ms=3, alpha=0.35)
            means = np.mean([run[:shortest] for run in runs], axis=0)
            line = 'none' if shortest == 1 else '-'
            axes.plot(*means.T, color=colour, marker=marker, ls=line, lw=1.4, ms=5, label=arm)
        x_label, y_label = labels[title]
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        places = [x for runs in arms.values() for run in runs for x, _ in run]
        axes.xaxis.get_major_locator().set_params(
            integer=all(float(x).is_integer() for x in places)
        )
    # An arm may have points in one panel only; its colour is the same in all.
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in grid]
    shown = {name: handle for pair in pairs for handle, name in pair}
    names = [arm for arm in next(iter(panels.values())) if arm in shown]
    handles = [shown[name] for name in names]
    figure.legend(handles, names, loc='outside right upper', frameon=False)
    return figure


def make_panels(count: int, *, columns: int, size: tuple[float, float], fixed: bool = False):
    """Returns (figure, axes of `count` panels), each panel of `size` inches.

    `fixed` margins, in place of a computed layout, draw many panels in a third of the time.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    width, height = size[0] * columns, size[1] * rows + 0.3
    figure = figures.Figure((width, height), layout=None if fixed else 'constrained')
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    if fixed:  # in inches: room for numbers at the left, a label below, a title above
        figure.subplots_adjust(0.75 / width, 0.45 / height, 1 - 0.1 / width, 1 - 0.25 / height)
        figure.subplots_adjust(wspace=0.85 / (size[0] - 0.85), hspace=0.7 / (size[1] - 0.7))
    for axes in grid[count:]:
        axes.remove()
    for axes in grid[:count]:
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(axis='y', alpha=0.25, lw=0.6)
        axes.set_axisbelow(True)
    return figure, list(grid[:count])


def keys_of(stages: Stages, field: str) -> list[str]:
    """Keys of a field of all summaries, in order of appearance."""
    return list(dict.fromkeys(key for stage in stages.values() for key in stage.get(field, {})))


def levels_of(accuracy: dict[str, dict]) -> list[str]:
    """Levels of all arms: numbers in order, then other names, then 'all'."""
    names = {level for arm in accuracy.values() for level in arm}
    return sorted(names, key=lambda n: (n == 'all', not n.isdigit(), n.zfill(3)))


def bounds(value: Any) -> Sequence[float]:
    """(mean, low, high) of a figure; equal for a bare number, NaN (not drawn) for None.

    A mean without an interval, of too few questions, has the bounds None and gets no error bar.
    """
    values = value if isinstance(value, Sequence) else (value,) * 3
    return [np.nan if bound is None else bound for bound in values]


def _size(arm: str) -> int:
    """Number of samples in the name of an arm, such as `majority@8`; 0 if it has none."""
    size = arm.partition('@')[2]
    return int(size) if size.isascii() and size.isdigit() else 0


def _ink() -> str:
    """Returns the text colour of the current matplotlib style."""
    return matplotlib.rcParams['text.color']


def colour_of(index: int) -> str:
    """Returns the colour of the arm with this number."""
    return COLOURS[index % len(COLOURS)]
