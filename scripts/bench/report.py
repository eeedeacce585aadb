"""Report of a benchmark: a Markdown table, and a plot of the speeds."""

import pathlib
from collections.abc import Sequence
from typing import Any

from matplotlib import figure as figures

from elenchus.data.files import atomic
from elenchus.train.report import drawing, plots

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
    """Markdown table with one line per case and contender."""
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


def write(folder: pathlib.Path, results: dict[str, Any]) -> None:
    """Writes bench.md and bench.png from the content of bench.json."""
    facts = ', '.join(f'{name}: {value}' for name, value in results['about'].items())
    machine = results['rows'][-1]['machine']
    text = (
        f'# Benchmark\n\nMedians of {results["rounds"]} interleaved rounds; {facts}.\n'
        f'Matrix multiplication {machine["flops"] / 1e9:.0f} GFLOP/s, reads '
        f'{machine["bandwidth"] / 1e9:.0f} GB/s in the last case.\n\n{table(results["rows"])}\n'
    )
    atomic.write_text(folder / 'bench.md', text)
    drawing.save_png(lambda: speeds(results['rows']), folder / 'bench.png')


def speeds(rows: Sequence[dict[str, Any]]) -> figures.Figure:
    """Tokens per second: one panel per case, one bar per contender, labelled with `of_bound`."""
    cases = list(dict.fromkeys(row['case'] for row in rows))
    contenders = list(dict.fromkeys(row['contender'] for row in rows))
    columns = min(5, len(cases))
    lines = -(-len(cases) // columns)
    figure = figures.Figure((2.1 * columns, 2.2 * lines + 0.5), layout='constrained')
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(cases) :]:
        axes.remove()
    for axes, case in zip(panels, cases, strict=False):
        rows_of_case = [row for row in rows if row['case'] == case]
        bars = axes.bar(
            range(len(rows_of_case)),
            [row['tokens_per_s'] for row in rows_of_case],
            color=[plots.COLOURS[contenders.index(row['contender'])] for row in rows_of_case],
        )
        axes.bar_label(bars, [f'{row["of_bound"]:.0%}' for row in rows_of_case], fontsize=8)
        axes.set_title(case, fontsize=9)
        axes.set_xticks([])
        axes.tick_params('y', labelsize=8)
        axes.margins(y=0.15)
    for i, name in enumerate(contenders):
        panels[0].bar(0, 0, color=plots.COLOURS[i], label=name)
    figure.supylabel('tokens/s', fontsize=9)
    figure.legend(loc='outside lower center', ncols=4, frameon=False)
    return figure
