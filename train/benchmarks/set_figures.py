"""What scripts.evaluate and scripts.judge do with sets: measure each, print, write files."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from elenchus.data.files import atomic
from elenchus.data.text import markdown as markdown_text
from elenchus.train import distributed
from elenchus.train.run.directory import RunDirectory, StageFolder, write_json

RESULTS, TABLE = 'results.json', 'table.md'


def measure_sets(
    directory: RunDirectory,
    sets: Sequence[Any],
    *,
    title: Callable[[Any], str],
    measure: Callable[[Any, StageFolder], Mapping[str, Any]],
    text: Callable[[str, dict], str],
) -> dict[str, dict]:
    """Returns the figures of each set by its name; one that is complete is not measured again.

    Args:
        directory: the folder of results, which has a stage for each set.
        sets: each has a name.
        title: set -> the line that announces it.
        measure: (set, its folder) -> its figures.
        text: (name, figures) -> what is printed of them.
    """
    results = {}
    for chosen in sets:
        stage = directory.stage(chosen.name)
        print(f'== {chosen.name}: {title(chosen)}', flush=True)
        summary = stage.read_summary()
        if summary is None:
            with stage.recorded() as summary:
                summary |= measure(chosen, stage)
        results[chosen.name] = summary
        print(text(chosen.name, summary), flush=True)
    return results


def write_results(
    path: os.PathLike,
    results: Mapping[str, dict],
    text: str,
    *,
    further: Callable[[], object] | None = None,
) -> None:
    """Writes the figures and the table of all sets into a folder, on the first process.

    `further` writes one more file and returns its path.
    """

    def write() -> None:
        write_json(path / RESULTS, dict(results))
        atomic.write_text(path / TABLE, f'{text}\n')
        paths = [path / RESULTS, path / TABLE, *([further()] if further else [])]
        print(f'written: {", ".join(map(str, paths))}')

    distributed.run_on_first(write)


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
