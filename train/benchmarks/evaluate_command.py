"""The command scripts.evaluate: samples, prints a table and writes figures, episodes and report."""

import os
from collections.abc import Mapping, Sequence

import ml_collections

from elenchus.data.text import markdown as markdown_text
from elenchus.train.benchmarks import evaluate_sets, opening, problem_sets, set_figures
from elenchus.train.report.html_page import write_report


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
    with (
        opening.opened(models, config, problems) as bench,
        bench.directory(out, places, rows={s.name: s.problems for s in sets}) as directory,
    ):
        results = set_figures.measure_sets(
            directory,
            sets,
            title=lambda chosen: f'{len(chosen.problems)} problems, {chosen.place}',
            measure=lambda chosen, stage: evaluate_sets.evaluate_set(
                bench, chosen, stage, greedy_only=greedy_only
            ),
            text=lambda name, summary: table({name: summary}),
        )
        set_figures.write_results(
            directory.path,
            results,
            table(results),
            further=lambda: write_report(directory.path),
        )
    return results


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
                *set_figures.percent(value),
                f'{tokens[arm]:.0f}' if arm in tokens else '',
            )
            for arm, value in values.items()
        ]
        rows += [
            (
                name,
                markdown_text.text(f'difference {pair}'),
                *set_figures.percent(value, sign='+'),
                '',
            )
            for pair, value in contrasts(summary).items()
        ]
    return set_figures.markdown(rows)


def contrasts(summary: Mapping) -> dict[str, list]:
    """Returns paired differences: refined against not, and against a majority of equal cost."""
    pairs = {pair: levels['all'] for pair, levels in summary.get('difference', {}).items()}
    if 'greedy_difference' in summary:
        pairs['greedy refined-greedy'] = summary['greedy_difference']['all']
    return pairs
