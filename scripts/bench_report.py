"""What scripts/bench.py found: a markdown table, and a plot of speeds beside their bounds."""

import pathlib
from collections.abc import Sequence
from typing import Any

from matplotlib import figure as figures

from data import json_files
from scripts import plots

COLUMNS = (
    'case',
    'contender',
    'tokens/s',
    'times ours',
    'of the bound',
    'first run, s',
    'compiling, s',
    'compiled later',
    'peak, MB',
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A markdown table, a line a case and contender."""
    lines = ['| ' + ' | '.join(COLUMNS) + ' |', '|---|---' + '|---:' * (len(COLUMNS) - 2) + '|']
    for row in rows:
        cells = (
            row['case'],
            row['contender'],
            f'{row["tokens_per_s"]:.0f}',
            f'{row["times_ours"]:.2f}',
            f'{100 * row["of_bound"]:.0f} %',
            f'{row["first_s"]:.1f}',
            '' if row['compile_s'] is None else f'{row["compile_s"]:.1f}',
            '' if row['recompilations'] is None else str(row['recompilations']),
            f'{row["peak_bytes"] / 1e6:.0f}',
        )
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def write(folder: pathlib.Path, found: dict[str, Any]) -> None:
    """bench.md and bench.png of what bench.json holds."""
    told = ', '.join(f'{name}: {value}' for name, value in found['about'].items())
    machine = found['rows'][-1]['machine']
    text = (
        f'# Benchmark\n\nMedians of {found["rounds"]} interleaved rounds; {told}.\n'
        f'Matrix multiplication {machine["flops"] / 1e9:.0f} GFLOP/s, reads '
        f'{machine["bandwidth"] / 1e9:.0f} GB/s in the last case.\n\n{table(found["rows"])}\n'
    )
    json_files.write_text(folder / 'bench.md', text)
    plots.save_png(lambda: speeds(found['rows']), folder / 'bench.png')


def speeds(rows: Sequence[dict[str, Any]]) -> figures.Figure:
    """Tokens a second: a panel a kind of work and size, a bar a contender, a tick at the bound."""
    groups = list(dict.fromkeys((row['size'], row['work']) for row in rows))
    contenders = list(dict.fromkeys(row['contender'] for row in rows))
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    figure = figures.Figure((3.4 * columns, 2.4 * lines + 0.4), layout='constrained')
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(groups) :]:
        axes.remove()
    for axes, (size, work) in zip(panels, groups, strict=False):
        shown = [row for row in rows if (row['size'], row['work']) == (size, work)]
        shape_of = lambda row: ' '.join(row['case'].split()[2:])  # noqa: E731
        names = list(dict.fromkeys(map(shape_of, shown)))
        for row in shown:
            at = names.index(shape_of(row))
            at += 0.8 * (contenders.index(row['contender']) + 0.5) / len(contenders) - 0.4
            colour = plots.COLOURS[contenders.index(row['contender'])]
            speed = row['tokens_per_s']
            axes.bar(at, speed, 0.8 / len(contenders), color=colour)
            axes.plot(at, speed / row['of_bound'], marker='_', color=plots.INK, markersize=12)
        axes.set_xticks(range(len(names)), names)
        axes.set(title=f'{work}, {size}', ylabel='tokens/s', yscale='log')
    for i, name in enumerate(contenders):
        panels[0].plot([], [], color=plots.COLOURS[i], lw=5, label=name)
    panels[0].plot([], [], marker='_', color=plots.INK, ls='none', label='bound')
    figure.legend(loc='outside lower center', ncols=4, frameon=False)
    return figure
