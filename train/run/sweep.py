"""A sweep: runs that differ in some fields of a config, each for several seeds, and their ranking.

    WORKDIR/sweep_config.json       the config that all points change
    WORKDIR/seed0/rows=8-1a2b3c/    the run of a point; seed0/shared: the stages that all share
    WORKDIR/logs/                   what each run printed
    WORKDIR/sweep.json, .csv, .md   the ranking, after every start

A study (`study_runner.py`) has arms that are named before it runs, and tests them; a sweep looks
for the best of many points. The best mean of many is too good: run its point again with new seeds.
"""

import dataclasses
import functools
import json
import pathlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from etils import epath

from elenchus.data.files import atomic, jsonl
from elenchus.train.config import build, checks, stage_fields
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.report import sweep_table
from elenchus.train.run import study_runner, sweep_points, sweep_runner
from elenchus.train.run.directory import SUMMARY
from elenchus.train.run.sweep_points import Point
from elenchus.train.run.sweep_runner import Task

CONFIG = 'sweep_config.json'
SHARED = 'shared'
MAX_LAUNCH_NAME = 40  # characters of the name of a slice, job or workload


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a command line asks for."""

    config: ml_collections.ConfigDict  # of a run, with the overrides of the command line
    flags: tuple[str, ...]  # that make this config
    workdir: epath.Path
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    shared: tuple[str, ...]  # stages that all points of a seed share
    launcher: tuple[str, ...] = ()  # words before the run's arguments; (): this machine

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages of every point."""
        return tuple(self.config.stages)

    def folder(self, seed: int, name: str) -> epath.Path:
        """Work directory of a run."""
        return epath.Path(study_runner.arm_folder(self.workdir, seed, name))


def check(sweep: Sweep) -> None:
    """Builds the settings of every point. Raises ValueError that names the point and the field.

    Also if a point changes what a shared stage reads, and if the folder has another sweep's config.
    """
    sweep_points.check_fields(sweep.config, sweep.points)
    if not sweep.seeds or len(set(sweep.seeds)) < len(sweep.seeds):
        raise ValueError(f'--seeds={list(sweep.seeds)} must be different numbers, such as 0,1,2')
    if sweep.shared != sweep.stages[: len(sweep.shared)]:
        raise ValueError(f'--shared={",".join(sweep.shared)} must be the first of '
                         f'config.stages={sweep.stages}')  # fmt: skip
    for point in sweep.points:
        try:
            config = point_config(sweep, sweep.seeds[0], point)
            settings = build.build(RunSettings, config)
            checks.check_settings(settings)
            for field, value in point.changes.items():
                sweep_points.override(field, value)
                if stage := study_runner.shared_reader(settings, sweep.shared, field):
                    raise ValueError(f'--shared: stage {stage!r} reads field {field!r}')
            if settings.stages[: len(sweep.shared)] != sweep.shared:
                raise ValueError(f'config.stages={settings.stages} does not begin with --shared')
        except ValueError as error:
            raise ValueError(f'point {point.name}: {error}') from error
    check_same_config(sweep)


def check_same_config(sweep: Sweep) -> None:
    """Raises ValueError if the folder has runs of another config."""
    path = sweep.workdir / CONFIG
    if not path.exists():
        return
    before = build.from_json(json.dumps(jsonl.read_object(path)))
    changed = build.explain_diff(
        before,
        build.from_json(build.to_json(sweep.config)),
        only=lambda field: field not in (*stage_fields.MAY_CHANGE, *sweep_points.SEEDS),
        earlier=stage_fields.EARLIER,
        new_sections=stage_fields.NEW_SECTIONS,
    )
    if changed:
        raise ValueError(
            f'{sweep.workdir} has a sweep of another config: {changed}; use the old value, or '
            'another --workdir'
        )


def point_config(sweep: Sweep, seed: int, point: Point) -> ml_collections.ConfigDict:
    """Returns the config of a run."""
    changes = sweep_points.nested(point.changes)
    return study_runner.changed_config(sweep.config, seed, changes)


def tasks_of(sweep: Sweep) -> list[Task]:
    """Returns the runs of a sweep, seed after seed, so that a table of one seed comes early."""
    tasks = []
    for seed in sweep.seeds:
        after = ''
        if sweep.shared:
            task = _task(sweep, seed, SHARED, changes={}, stages=sweep.shared)
            after = task.name
            tasks.append(task)
        tasks += [
            _task(sweep, seed, point.name, changes=point.changes, after=after)
            for point in sweep.points
        ]
    return tasks


def run_local(sweep: Sweep, *, jobs: int) -> dict[str, str]:
    """Runs the points here, `jobs` at a time; returns the failures by name of the run."""
    logs = pathlib.Path('sweep_logs' if atomic.is_remote(sweep.workdir) else sweep.workdir / 'logs')
    atomic.write_text(sweep.workdir / CONFIG, build.to_json(sweep.config))
    return sweep_runner.run_all(tasks_of(sweep), jobs=jobs, logs=logs)


def commands(sweep: Sweep) -> list[str]:
    """Returns the command of every run that is not complete, as a shell reads it."""
    return [shlex.join(task.command) for task in tasks_of(sweep) if not task.is_complete()]


def table(
    sweep: Sweep, path: Sequence[str], failures: dict[str, str], *, is_ascending: bool
) -> list[str]:
    """Writes the ranking of what is complete; returns the lines of its table.

    Raises ValueError if a complete run has no such figure.
    """
    values: dict[str, dict[str, float]] = {}
    by_point: dict[str, dict[str, str]] = {}
    for point in sweep.points:
        for seed in sweep.seeds:
            folder = sweep.folder(seed, point.name)
            if is_complete(folder, stages_of(sweep, point.changes)):
                summaries = study_runner.read_summaries(folder)
                figure = sweep_table.figure_of(summaries, path)
                values.setdefault(point.name, {})[str(seed)] = figure
            elif reason := failures.get(f'seed{seed}/{point.name}'):
                by_point.setdefault(point.name, {})[str(seed)] = reason
    points = [(point.name, point.changes) for point in sweep.points]
    ranked = sweep_table.rank(points, values, by_point, is_ascending=is_ascending)
    return sweep_table.write_table(ranked, sweep.workdir, path=path, seeds=sweep.seeds)


def stages_of(sweep: Sweep, changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the stages of a point, which may be among what it changes."""
    stages = changes.get('stages', sweep.stages)
    return (stages,) if isinstance(stages, str) else tuple(stages)


def is_complete(folder: epath.Path, stages: Sequence[str]) -> bool:
    """Returns whether all stages of a run have a summary, and the run wrote its own."""
    names = [f'{number:02d}-{stage}' for number, stage in enumerate(stages)]
    paths = [folder / 'stages' / name / SUMMARY for name in names]
    return (folder / SUMMARY).exists() and all(path.exists() for path in paths)


def launch_name(workdir: epath.Path, seed: int, name: str) -> str:
    """Returns a name that clouds accept: lower-case letters, digits and dashes."""
    tail = f'-{name.rpartition("-")[2]}-s{seed}'
    plain = re.sub('[^a-z0-9]+', '-', workdir.name.lower()).strip('-') or 'sweep'
    plain = plain if plain[0].isalpha() else f's{plain}'
    return plain[: MAX_LAUNCH_NAME - len(tail)].rstrip('-') + tail


def _task(
    sweep: Sweep,
    seed: int,
    name: str,
    *,
    changes: dict[str, Any],
    stages: Sequence[str] = (),
    after: str = '',
) -> Task:
    folder = sweep.folder(seed, name)
    overrides = {'seed': seed, 'data.seed': seed} | changes
    overrides |= {'stages': tuple(stages)} if stages else {}
    arguments = [*sweep.flags, f'--workdir={folder}']
    arguments += [sweep_points.override(field, value) for field, value in overrides.items()]
    if sweep.launcher:
        own = launch_name(sweep.workdir, seed, name)
        words = [word.replace('{name}', own) for word in sweep.launcher]
        if words == list(sweep.launcher):
            words.append(f'--{"job" if "slurm" in " ".join(words) else "name"}={own}')
        command = (*words, '--', *arguments)
    else:
        command = (sys.executable, '-m', 'elenchus.scripts.run', *arguments)
    shared = functools.partial(
        study_runner.link_stages,
        sweep.folder(seed, SHARED),
        folder,
        shared=sweep.shared,
    )
    complete = functools.partial(is_complete, folder, stages or stages_of(sweep, changes))
    prepare = shared if after else (lambda: None)
    return Task(f'seed{seed}/{name}', folder, tuple(command), complete, prepare, after)
