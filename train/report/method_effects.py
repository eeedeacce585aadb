"""Collects what the methods gain on the lab, from study results, in docs/methods/effects.json.

The studies are those of configs/studies/methods.py; each of its contrasts is a row.
"""

import importlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from elenchus.train.report.study_contrasts import CONFIDENCE
from elenchus.train.run import provenance
from elenchus.train.run.directory import read_json, write_json
from elenchus.train.run.study_runner import arm_folder

ROOT = pathlib.Path(__file__).parents[2]
EFFECTS = ROOT / 'docs/methods/effects.json'
STUDIES = 'elenchus.configs.studies.methods'
METHOD_TABLES = 'elenchus.configs.studies.method_tables'
COMMAND = 'python -m scripts.study --config configs/studies/methods.py:{} --workdir runs/methods'
LEAST_SEEDS = 3
"""With which an interval is in the table: that of two says nothing (t with one degree)."""

Row = Mapping[str, Any]


def tables() -> Mapping[str, Sequence[Any]]:
    """Returns the contrasts of every study of methods, by the name of its table."""
    return importlib.import_module(METHOD_TABLES).TABLES


def write_effects(workdirs: Sequence[pathlib.Path], path: pathlib.Path) -> list[str]:
    """Adds the results in these folders to the file of effects; returns the tables it has then.

    A table that is in none of the folders stays as it is. Raises ValueError where no folder has
    any, or where a result is of contrasts that the config no longer has.
    """
    results = {
        table: folder
        for table in tables()
        for folder in map(pathlib.Path, workdirs)
        if (folder / f'{table}.json').exists()
    }
    if not results:
        folders = ', '.join(map(str, workdirs))
        raise ValueError(f'--studies={folders}: no results of {sorted(tables())} there')
    rows = [row for row in read_effects(path) if row['table'] not in results]
    for table, folder in results.items():
        rows += table_rows(table, folder)
    order = list(tables())
    rows.sort(key=lambda row: order.index(row['table']))
    write_json(path, {'confidence': CONFIDENCE, 'effects': rows})
    return sorted({row['table'] for row in rows}, key=order.index)


def read_effects(path: pathlib.Path) -> list[Row]:
    """Returns the rows of the file; none where there is no file yet."""
    return read_json(path)['effects'] if path.exists() else []


def table_rows(table: str, folder: pathlib.Path) -> list[Row]:
    """Returns one row for each contrast of a study that has a seed in both arms."""
    results, study = read_json(folder / f'{table}.json'), importlib.import_module(STUDIES)
    has_own_run, rows = table in importlib.import_module(METHOD_TABLES).RUNS, []
    for effect, contrast in zip(tables()[table], results['contrasts'], strict=False):
        names = (contrast['arm'], contrast['baseline'], contrast['column'])
        if names != tuple(effect):
            raise ValueError(
                f'{folder / table}.json: the contrast {names} is {tuple(effect)} in the config: '
                'run the study again'
            )
        ran = [list(results['summaries'][arm]) for arm in names[:2]]
        seeds = [seed for seed in ran[0] if seed in ran[1]]
        starts = [_start(folder, seed, arm) for arm in names[:2] for seed in seeds]
        rows.append(
            {
                'method': effect.method,
                'control': effect.control,
                'column': effect.column,
                'table': table,
                'omitted': study.omitted_fields(effect, table=table),
                **_figures(contrast),
                'seeds': list(map(int, seeds)),
                'command': COMMAND.format(table) + f'/{table}' * has_own_run,
                'commits': sorted({start['commit'] or start['code'] for start in starts}),
                'date': max(start['time'] for start in starts)[:10],
            }
        )
    return rows


def _figures(contrast: Row) -> dict[str, Any]:
    """Estimates of a contrast; None for what is not defined, as an interval of one seed."""
    known = [value for value in contrast['differences'] if value == value]
    complete = len(known) == len(contrast['differences'])
    mean, *interval = contrast['over_seeds']
    resampled = (contrast['over_questions'] or (None, None, None))[1:]
    return {
        'mean': mean if complete else None,
        'interval': interval if complete and None not in interval else None,
        'resampled': list(resampled) if None not in resampled else None,
        'design': contrast['design'],
        'p': contrast['p'],
        'adjusted': contrast['adjusted'],
        'differences': [value if value == value else None for value in contrast['differences']],
    }


def _start(folder: pathlib.Path, seed: str, arm: str) -> Row:
    """Code and time of the last start of an arm's last stage."""
    stages = arm_folder(folder, int(seed), arm) / 'stages'
    paths = sorted(stages.glob(f'*/{provenance.PROVENANCE}'))
    if not paths:
        raise ValueError(f'{stages}: no {provenance.PROVENANCE} there: the runs of the study moved')
    return read_json(paths[-1])['starts'][-1]


def describe(rows: Sequence[Row], method: str) -> str:
    """Returns what the table of systems says of a method's effects, or why there are none."""
    said = [_described(row) for row in rows if row['method'] == method]
    reason = importlib.import_module(METHOD_TABLES).NOT_MEASURED.get(method)
    return '; '.join(said) or ('not measured' if reason is None else f'not measured: {reason}')


def _described(row: Row) -> str:
    count = len(row['seeds'])
    seeds = 'one seed' if count == 1 else f'{count} seeds'
    mean = 'undefined' if row['mean'] is None else f'{row["mean"]:+.1f}'
    interval = ''
    if row['interval'] is not None and count >= LEAST_SEEDS:
        interval = ' [{:+.1f}, {:+.1f}]'.format(*row['interval'])
    return f'{row["column"]}: {mean}{interval} against {row["control"]} ({seeds})'
