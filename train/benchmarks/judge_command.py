"""The command scripts.judge: benchmarks of critics, with a table, figures and episodes."""

import functools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import ml_collections
from etils import epath

from elenchus.data.critiques import labelled_solutions
from elenchus.data.critiques.labelled_solutions import LabelledSolution
from elenchus.data.text import markdown as markdown_text
from elenchus.train.benchmarks import judge_figures, judge_sets, opening, set_figures
from elenchus.train.config import build
from elenchus.train.run.directory import StageFolder

NAMES = ('processbench', 'bigbench_mistake', 'mr_gsm8k')
ENDINGS = ('.json', '.jsonl', '.parquet')


class SolutionSet(NamedTuple):
    """A named file of labelled solutions."""

    name: str
    path: pathlib.Path
    solutions: Sequence[LabelledSolution]


def judge(
    models: opening.Models,
    config: ml_collections.ConfigDict,
    entries: Sequence[str],
    *,
    out: str | os.PathLike,
    num_rows: int,
    num_votes: int,
) -> dict[str, dict]:
    """Lets a critic judge labelled solutions; returns figures of each file, and writes them."""
    sets = read_sets(entries, data_dir=config.data.data_dir, num_rows=num_rows)
    solutions = [solution for chosen in sets for solution in chosen.solutions]
    places = {s.name: f'{s.path}, {len(s.solutions)} rows, {num_votes} votes' for s in sets}
    lengths = functools.partial(judge_sets.prompt_lengths, solutions)
    with (
        opening.opened(models, config, [], prompt_lengths=lengths) as bench,
        bench.directory(out, places, rows={s.name: s.solutions for s in sets}) as directory,
    ):

        def measure(chosen: SolutionSet, stage: StageFolder) -> dict:
            """Judges one set."""
            greedy, voted, num_tokens = judge_sets.judge(
                bench, chosen.solutions, stage, num_votes=num_votes
            )
            summary = judge_figures.summarise(bench.settings.evaluate, greedy, voted)
            return summary | {'tokens_sampled': num_tokens}

        results = set_figures.measure_sets(
            directory,
            sets,
            title=lambda chosen: f'{len(chosen.solutions)} solutions, {chosen.path}',
            measure=measure,
            text=lambda name, summary: f'{table({name: summary})}\n{notes(summary)}',
        )
        parts = [table(results)]
        parts += [
            f'## {markdown_text.text(name)}\n\n{text}'
            for name, s in results.items()
            if (text := notes(s))
        ]
        set_figures.write_results(directory.path, results, '\n\n'.join(parts))
    return results


def read_sets(entries: Sequence[str], *, data_dir: str, num_rows: int) -> list[SolutionSet]:
    """Reads `NAME`, `NAME=PATH` and paths; a folder has one set for each of its files.

    Raises ValueError, naming the entry, if there is none.
    """
    sets: dict[str, SolutionSet] = {}
    for entry in entries:
        name, equals, path = entry.partition('=')
        if not equals and name not in NAMES:
            name, path = '', entry
        if name and name not in NAMES:
            near = build.nearest(name, NAMES)
            raise ValueError(f'--data={entry}: unknown benchmark {name!r}; nearest: {near!r}')
        for file in files_of(entry, epath.Path(path or pathlib.Path(data_dir, name))):
            full_name = re.sub(r'[^\w.-]', '_', f'{name}-{file.stem}'.strip('-'))
            rows = labelled_solutions.read_solutions(file)
            if full_name in sets:
                raise ValueError(f'--data={entry}: the set {full_name!r} is named twice')
            sets[full_name] = SolutionSet(full_name, file, rows[: num_rows or len(rows)])
    if not sets:
        raise ValueError(f'--data is empty; use some of {", ".join(NAMES)}, or a file')
    return list(sets.values())


def files_of(entry: str, path: pathlib.Path) -> list[pathlib.Path]:
    """Returns a file, or those of a folder that have labelled rows."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(
            f'--data={entry}: no file or folder {path}; use NAME=PATH, or set --config.data.'
            f'data_dir to the folder of {", ".join(NAMES)}'
        )
    usable, reasons = [], []
    for file in sorted(p for p in path.iterdir() if p.suffix in ENDINGS):
        try:
            labelled_solutions.read_solutions(file)
        except ValueError as error:
            reasons.append(str(error))
        else:
            usable.append(file)
    for reason in reasons if usable else ():
        print(f'left out: {reason}')
    if not usable:
        raise ValueError(f'--data={entry}: no labelled solutions in {path}; {"; ".join(reasons)}')
    return usable


def table(results: Mapping[str, dict]) -> str:
    """Returns a Markdown table: a row for each critic, in per cent with intervals."""
    rows = [('set', 'critic', 'F1', 'found', 'passed', 'accuracy', 'readable', 'tokens')]
    for name, summary in results.items():
        for critic, values in summary['critics'].items():
            measured = [_cell(values[key]) for key in ('f1', 'found', 'passed', 'accuracy')]
            readable = f'{100 * values["readable"]:.0f}' if 'readable' in values else ''
            tokens = f'{values["tokens"]:.0f}' if 'tokens' in values else ''
            labels = map(markdown_text.text, (name, critic))
            rows.append((*labels, *measured, readable, tokens))
    return set_figures.markdown(rows)


def _cell(value: Sequence[float | None] | None) -> str:
    if value is None:
        return '-'
    mean, interval = set_figures.percent(value)
    return f'{mean} [{interval.replace(" to ", ", ")}]' if interval else mean


def notes(summary: Mapping) -> str:
    """Returns the errors that outcomes hide, and the calibration, in lines of text."""
    hidden, calibration = summary['hidden_errors'], summary['calibration']
    lines = []
    if hidden['solutions']:
        shares = (100 * hidden[name] for name in ('flagged', 'located'))
        lines.append(
            f'answer right, a step wrong: {hidden["solutions"]} solutions, '
            '{:.1f} % flagged, {:.1f} % at the true step'.format(*shares)
        )
    score = summary['critics'].get('greedy', {}).get('mr_score')
    if score is not None:
        lines.append(
            f'MR-Score between {100 * score["low"]:.1f} and {100 * score["high"]:.1f}: reasons are '
            'not judged'
        )
    steps = calibration.get('steps', {'count': 0})
    if steps['count']:
        lines.append(f'step rewards: {steps["count"]}, ECE {steps["ece"]:.3f}, Brier '
                     f'{steps["brier"]:.3f}')  # fmt: skip
        rows = [('score', 'steps', 'mean score', 'right')]
        rows += [
            (f'{b["low"]:.1f} to {b["high"]:.1f}', str(b['count']), f'{b["score"]:.3f}',
             f'{b["right"]:.3f}')
            for b in steps['curve']
        ]  # fmt: skip
        lines.append(set_figures.markdown(rows))
    return '\n'.join(lines)
