"""Reads the current state of a run from its files: stages, progress, figures, warnings, owner.

The files are those that every run writes (status.json, timing.jsonl, config.json, summaries,
metrics and lock), so this works for a run of another process or host, a killed run, and one in a
bucket.
"""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from etils import epath

from elenchus.data.files import jsonl
from elenchus.data.files.failures import named_errors
from elenchus.data.text import run_status, run_times
from elenchus.data.text.printable import printable, printable_json
from elenchus.train.metrics import growing_files, progress
from elenchus.train.metrics.activity import STATUS, TIMING
from elenchus.train.report import run_files
from elenchus.train.report.run_files import Stages
from elenchus.train.run import lock

CONFIG, SUMMARY, FAILURE = 'config.json', 'summary.json', 'failure.txt'
"""As in `train/run/directory.py`, whose import takes seconds (it reads Orbax)."""
StageState = Literal['done', 'running', 'begun', 'failed', 'waiting']
ENDS = ('done', 'failed', 'preempted', 'killed')
"""States of a run that has ended."""
MAX_ARMS = 3  # accuracies of a stage that are listed


@dataclasses.dataclass(frozen=True)
class StageView:
    """One stage of a run."""

    name: str
    state: StageState
    seconds: float | None = None  # of a complete one
    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RunView:
    """A run at one moment. What is not known is None or empty."""

    workdir: str
    state: str  # 'not begun', 'opening', 'running', 'stopping', 'silent', 'unknown' or of `ENDS`
    stages: tuple[StageView, ...] = ()
    progress: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """description, step, steps, unit, rate, eta_s, figures: as in status.json."""
    age: float | None = None  # seconds since the last sign of life
    idle: float | None = None  # seconds since the last progress, as of the last sign of life
    where: str = ''
    owner: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """host, process, user, since."""
    hosts: tuple[str, ...] = ()  # processes that are silent or behind
    times: str = ''
    warnings: tuple[str, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come from this start of the run."""
        return self.state in ENDS


def read_view(workdir: epath.Path, *, now: float) -> RunView:
    """Reads a run; `now` is in seconds since 1970. Files that are damaged become warnings.

    Raises OSError, naming the file, if the disk or bucket cannot be read.
    """
    notes: list[str] = []
    with named_errors(workdir):
        status = _read(workdir / STATUS, notes)
        config = _read(workdir / CONFIG, notes)
        owner = _read(workdir / lock.LOCK, notes)
        summaries = _read_stages(workdir, notes)
        locked = lock.is_locked(workdir)
        names = _stage_names(config, summaries)
        state = state_of(status, locked=locked, complete=_all_complete(names, summaries), now=now)
        if state == 'unknown' and not config and not names:
            state = 'not begun'
        views = tuple(_view_stages(workdir, names, summaries, status=status, state=state))
        current = next((v for v in views if v.state in ('running', 'begun')), None)
        notes += _failures(workdir, views)
        figures = _last_figures(workdir / 'stages' / current.name, notes) if current else {}
        shown = _progress(status, figures) if state not in ENDS else {'figures': figures}
        beat, times = _number(status.get('heartbeat')), _times(workdir, status)
    return RunView(
        workdir=printable(os.fspath(workdir)),
        state=state,
        stages=views,
        progress=shown,
        age=None if beat is None else max(0.0, now - beat),
        idle=_number(status.get('idle_s')),
        where=str(status.get('where') or ''),
        owner=_owner(status, owner),
        hosts=tuple(_hosts(status)),
        times=times,
        warnings=(*map(str, _list(status.get('warnings'))), *notes),
    )


def state_of(status: Mapping[str, Any], *, locked: bool | None, complete: bool, now: float) -> str:
    """Returns the state of a run.

    Args:
        status: status.json, {} if there is none.
        locked: Whether its lock is held; None where that cannot be known.
        complete: Whether all stages of the config have a summary.
    """
    said, beat = status.get('state'), _number(status.get('heartbeat'))
    if said is None:
        return 'opening' if locked else 'done' if complete else 'unknown'
    is_old = beat is None or now - beat > run_status.DEAD_S
    if said not in run_status.GOES_ON:
        return 'opening' if locked and is_old else str(said)  # it has been started again
    if locked is False:
        return 'killed'
    return 'silent' if is_old else str(said)


def runs_below(workdir: epath.Path) -> list[epath.Path]:
    """Returns the runs in a folder of runs, such as that of a study or a sweep."""
    with named_errors(workdir):
        folders = {
            path.parent
            for depth in ('*', '*/*')
            for name in (STATUS, CONFIG)
            for path in workdir.glob(f'{depth}/{name}')
        }
    return sorted(path for path in folders if path.parent.name != 'stages')


def figures_of_summary(summary: Mapping[str, Any]) -> dict[str, float]:
    """Returns what is shown of a complete stage: shares of right answers, or the last loss."""
    figures: dict[str, float] = {}
    accuracy = summary.get('accuracy')
    for arm, levels in list(accuracy.items())[:MAX_ARMS] if isinstance(accuracy, Mapping) else ():
        value = levels.get('all') if isinstance(levels, Mapping) else None
        value = value[0] if isinstance(value, list) and value else value
        if _number(value) is not None:
            figures[arm] = value
    loss = _number(summary.get('final_loss'))
    return figures if loss is None else figures | {'loss': loss}


def _read_stages(workdir: epath.Path, notes: list[str]) -> Stages:
    """Summaries by stage, as `run_files.load_stages`, but of those files that can be read."""
    try:
        return run_files.load_stages(workdir)
    except ValueError as error:
        notes.append(f'warning: {printable(error)}')
    stages = {printable(path.name): {} for path in sorted(workdir.glob('stages/*'))}
    for name in stages:
        stages[name] = _read(workdir / 'stages' / name / SUMMARY, [])
    return stages


def _stage_names(config: Mapping[str, Any], summaries: Stages) -> list[str]:
    listed = [f'{i:02d}-{printable(name)}' for i, name in enumerate(_list(config.get('stages')))]
    return sorted({*listed, *summaries})


def _all_complete(names: list[str], summaries: Stages) -> bool:
    return bool(names) and all(summaries.get(name) for name in names)


def _view_stages(
    workdir: epath.Path,
    names: list[str],
    summaries: Stages,
    *,
    status: Mapping[str, Any],
    state: str,
) -> Iterator[StageView]:
    for name in names:
        summary, folder = summaries.get(name, {}), workdir / 'stages' / name
        if summary:
            figures = figures_of_summary(summary)
            yield StageView(name, 'done', _number(summary.get('seconds')), figures)
        elif name not in summaries:
            yield StageView(name, 'waiting')
        elif (folder / FAILURE).exists():
            yield StageView(name, 'failed')
        else:
            is_now = name.partition('-')[2] == status.get('stage') and state not in ENDS
            yield StageView(name, 'running' if is_now else 'begun')


def _failures(workdir: epath.Path, views: tuple[StageView, ...]) -> Iterator[str]:
    for view in views:
        if view.state == 'failed':
            with contextlib.suppress(OSError, UnicodeDecodeError):  # it went on meanwhile
                text = (workdir / 'stages' / view.name / FAILURE).read_text()
                yield f'error: {view.name}: {printable(" ".join(text.split())[:500])}'


def _last_figures(stage: epath.Path, notes: list[str]) -> dict[str, float]:
    """Figures of the last row of metrics of a stage, with its step."""
    files = run_files.metrics_files(stage)
    line = growing_files.read_last_line(files[-1]) if files else ''
    if not line.strip():
        return {}
    try:
        row = jsonl.at_place(f'{files[-1]}, last line', jsonl.parse_object, line)
    except ValueError as error:
        notes.append(f'warning: {printable(error)}')
        return {}
    known = {n: v for n, v in row.items() if _number(v) is not None}
    return progress.figures_of(known) | {n: v for n, v in known.items() if n == 'step'}


def _progress(status: Mapping[str, Any], figures: Mapping[str, float]) -> dict[str, Any]:
    """What the run shows of its progress; figures of its newest row where it shows none."""
    own = status.get('figures')
    newest = {n: v for n, v in figures.items() if n != 'step'}
    shown = newest | (own if isinstance(own, dict) else {})
    texts = {n: v for n in ('description', 'unit') if isinstance(v := status.get(n), str)}
    names = ('step', 'steps', 'rate', 'eta_s')
    numbers = {n: v for n in names if (v := _number(status.get(n))) is not None}
    return texts | numbers | {'figures': shown}


def _owner(status: Mapping[str, Any], owner: Mapping[str, Any]) -> dict[str, Any]:
    names = ('host', 'process', 'user', 'since')
    return {n: v for n in names if (v := owner.get(n) or status.get(n)) not in (None, '')}


def _hosts(status: Mapping[str, Any]) -> list[str]:
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        return list(map(printable, run_status.describe_hosts(dict(status))))
    return []


def _times(workdir: epath.Path, status: Mapping[str, Any]) -> str:
    """The line of shares of wall time, '' if its rows cannot be read."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        path = workdir / TIMING
        lines = growing_files.read_lines(path) if path.exists() else []
        rows = run_times.read_rows('\n'.join(lines))
        if status and not status.get('kept'):
            rows.append(run_times.check_row(dict(status)))
        return printable(run_times.describe_times(rows)) if rows else ''
    return ''


def _read(path: epath.Path, notes: list[str]) -> dict[str, Any]:
    """Returns a JSON object with printable texts; {} if there is none or it is damaged."""
    try:
        return printable_json(jsonl.read_object(path))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        notes.append(f'warning: {printable(error)}')
        return {}


def _number(value: Any) -> float | None:
    """Returns the value if it is a finite number, not a bool; otherwise None."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and abs(value) <= sys.float_info.max else None


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
