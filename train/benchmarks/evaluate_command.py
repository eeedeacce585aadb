"""The command scripts.evaluate: samples, prints a table and writes figures, episodes and report."""

import json
import os
from collections.abc import Mapping, Sequence

import ml_collections

from elenchus.data.files import atomic
from elenchus.data.text import markdown as markdown_text
from elenchus.train import distributed
from elenchus.train.benchmarks import evaluate_sets, opening, problem_sets
from elenchus.train.report.html_page import write_report
from elenchus.train.run.directory import write_json

RESULTS, TABLE = 'results.json', 'table.md'
CONTRASTS = ('refined-attempt', 'greedy refined-greedy')


def evaluate(
    models: opening.Models,
    config: ml_collections.ConfigDict,
    entries: Sequence[str],
    *,
    out: str | os.PathLike,
    num_problems: int,
    greedy_only: bool = False,
) -> dict[str, dict]:
    """Evaluates models on problem sets; returns the summary of each, and writes all into `out`."""
    sets = problem_sets.read_sets(
        entries, data_dir=config.data.data_dir, num_problems=num_problems, form=config.data.form
    )
    problems = [problem for chosen in sets for problem in chosen.problems]
    places = {s.name: f'{s.place}, {len(s.problems)} problems' for s in sets}
    results = {}
    with (
        opening.opened(models, config, problems) as bench,
        bench.directory(out, places) as directory,
    ):
        for chosen in sets:
            stage = directory.stage(chosen.name)
            print(f'== {chosen.name}: {len(chosen.problems)} problems, {chosen.place}', flush=True)
            summary = stage.read_summary()
            if summary is None:
                with stage.recorded() as summary:
                    summary |= evaluate_sets.evaluate_set(
                        bench, chosen, stage, greedy_only=greedy_only
                    )
            results[chosen.name] = summary
            print(table({chosen.name: summary}), flush=True)
        write_results(directory.path, results)
    return results


def write_results(path: os.PathLike, results: Mapping[str, dict]) -> None:
    """Writes the figures of all sets, their table and the report into a folder."""

    def write() -> None:
        write_json(path / RESULTS, dict(results))
        atomic.write_text(path / TABLE, table(results) + '\n')
        print(f'written: {path / RESULTS}, {path / TABLE}, {write_report(path)}')

    distributed.run_on_first(write)


def table(results: Mapping[str, dict]) -> str:
    """Returns a Markdown table: a row for each way to answer, in per cent with its interval."""
    rows = [('set', 'answer', 'right, %', 'interval', 'tokens')]
    for name, summary in results.items():
        tokens = summary.get('tokens_per_answer', {})
        values = {arm: levels['all'] for arm, levels in summary['accuracy'].items()}
        values |= {
            f'greedy, {kind} of lm-eval': value
            for kind, value in summary.get('harness', {}).items()
        }
        name = markdown_text.text(name)
        rows += [
            (
                name,
                markdown_text.text(arm),
                *percent(value),
                f'{tokens[arm]:.0f}' if arm in tokens else '',
            )
            for arm, value in values.items()
        ]
        rows += [
            (name, markdown_text.text(f'difference {pair}'), *percent(value, sign='+'), '')
            for pair, value in contrasts(summary).items()
        ]
    return markdown(rows)


def contrasts(summary: Mapping) -> dict[str, list]:
    """Returns paired differences: refined against not, and against a majority of equal cost."""
    pairs = {pair: levels['all'] for pair, levels in summary.get('difference', {}).items()}
    if 'greedy_difference' in summary:
        pairs['greedy refined-greedy'] = summary['greedy_difference']['all']
    return pairs


def percent(value: Sequence[float | None], *, sign: str = '') -> tuple[str, str]:
    """Returns a mean in per cent, and its interval; '' where none is known."""
    mean, low, high = value
    interval = '' if low is None else f'{100 * low:.1f} to {100 * high:.1f}'
    return f'{100 * mean:{sign}.1f}', interval


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with aligned columns, of cells in Markdown; rows[0] is its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        markdown_text.row(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
    return '\n'.join([lines[0], rule, *lines[1:]])


def to_json(results: Mapping[str, dict]) -> str:
    """Returns results as JSON text."""
    return json.dumps(results, indent=1)
