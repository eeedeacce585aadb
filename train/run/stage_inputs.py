"""Fingerprints of a stage's inputs besides its config: problems, tokenizer, models, functions.

They are written into the stage's folder when it starts, and compared when the run is opened again:
with equal settings a file of problems, or a model of another run, may still have changed.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from elenchus.data.files import atomic
from elenchus.data.records import Problem
from elenchus.sampling import slots
from elenchus.train import distributed
from elenchus.train.checkpoints import saved_models
from elenchus.train.config import functions, players, stage_fields
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.run import content_ids
from elenchus.train.run.directory import CONFIG, SUMMARY, RunDirectory, StageFolder, read_json
from elenchus.train.run.inputs import RunInputs

INPUTS = 'inputs.json'


class StageReader(NamedTuple):
    """What determines the inputs of the stages of a run."""

    settings: RunSettings
    directory: RunDirectory
    inputs: RunInputs


def problems_hash(problems: Sequence[Problem]) -> str:
    """Returns sixteen hexadecimal digits that change with any problem, or their order."""
    rows = [(p.id, p.question, p.answer, p.solution) for p in problems]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def inputs_of(run: StageReader, stage: str) -> dict[str, Any]:
    """Returns the fingerprints of what a stage reads; a model that is not there has none."""
    sections = stage_fields.SECTIONS[stage]
    values = {'tokenizer': run.inputs.tokenizer.fingerprint}
    values['training problems'] = problems_hash(run.inputs.train_problems)
    if 'evaluate' in sections:
        values['test problems'] = problems_hash(run.inputs.test_problems)
    for name in players.stages_read(run.settings, stage):
        if name in run.settings.stages:
            values[f'model of stage {name!r}'] = _fingerprints(run.directory.stage(name).path)
    for named in functions.functions_of(run.settings):
        if stage_fields.reads(run.settings, stage, named.field):
            name = f'function {slots.without_folder(named.reference)!r} of {named.field}'
            values[name] = slots.load(named.reference).source_hash
    return values | {
        field: content_ids.content_id(_value(run.settings, field))
        for field in _contents(run, stage)
    }


def write(run: StageReader, stage: str) -> None:
    """Writes the fingerprints of a stage that starts, unless it continues."""
    folder = run.directory.stage(stage)

    def write_once() -> None:
        if not (folder.path / INPUTS).exists():
            folder.write_json(INPUTS, inputs_of(run, stage))

    distributed.run_on_first(write_once)


def check(run: StageReader) -> None:
    """Raises ValueError if a stage read other problems, functions or files than it would now.

    A complete stage is also refused if a model has changed since, or if the order of stages or a
    `start` now makes it read other stages' models. A stage that failed may start again.
    """

    def check_all() -> None:
        for name in run.settings.stages:
            if not run.directory.stage(name).has_failed():
                _check_stage(run, name)

    distributed.run_on_first(check_all)


def discard_failure(run: StageReader, stage: str) -> None:
    """Deletes the folder of a failed stage whose inputs have changed since, so that it restarts."""
    folder = run.directory.stage(stage)

    def discard() -> None:
        if folder.has_failed() and (fault := _changed_input(run, stage)):
            print(f'   {folder.name} starts again: it {fault}')
            atomic.delete_tree(folder.path)

    distributed.run_on_first(discard)


def _check_stage(run: StageReader, stage: str) -> None:
    folder = run.directory.stage(stage)
    path = folder.path / INPUTS
    if fault := _changed_input(run, stage):
        raise ValueError(
            f'stage {folder.name!r} {fault}: use a new --workdir, or delete {folder.path} to run '
            'it again'
        )
    if not (folder.path / SUMMARY).exists() or not path.exists():
        return
    before, now = read_json(path), inputs_of(run, stage)
    # One that started with earlier code has no ids of contents.
    for name in (before.keys() ^ now.keys()).difference(stage_fields.CONTENTS):
        verb = 'did not read' if name in now else 'read'
        other = 'would' if name in now else 'would not'
        raise ValueError(
            f'stage {folder.name!r} {verb} the {name}, which it {other} with '
            f'config.stages={run.settings.stages}: use the old order or a new --workdir'
        )


def _changed_input(run: StageReader, stage: str) -> str:
    """Returns a message about the first input that has changed; '' if none has, or is known to."""
    folder = run.directory.stage(stage)
    path = folder.path / INPUTS
    if not (folder.path / CONFIG).exists():
        return ''
    before, now = _contents_before(run, folder, stage), inputs_of(run, stage)
    before |= read_json(path) if path.exists() else {}
    is_complete = (folder.path / SUMMARY).exists()
    for name in before.keys() & now.keys():
        is_model = name.startswith('model of stage')
        known = None not in (before[name], now[name]) and (is_complete or not is_model)
        if known and before[name] != now[name]:
            texts = [value or 'none' for value in (before[name], now[name])]
            return f'was run with another {name} ({texts[0]}, now {texts[1]})'
    return ''


def _contents(run: StageReader, stage: str) -> list[str]:
    """Returns the fields with the path of a model, or of critiques, that a stage reads."""
    reads = stage_fields.reads_itself
    return [field for field in stage_fields.CONTENTS if reads(run.settings, stage, field)]


def _value(settings: RunSettings, field: str) -> str:
    section, name = field.split('.')
    return getattr(getattr(settings, section), name)


def _contents_before(run: StageReader, folder: StageFolder, stage: str) -> dict[str, str | None]:
    """Returns content ids for the paths of a stage that earlier code started without storing them.

    They are ids of what is there now; where nothing is left, the path itself, unless the config
    still has the same one.
    """
    values = {}
    for field in _contents(run, stage):
        section, name = field.split('.')
        path = read_json(folder.path / CONFIG).get(section, {}).get(name, '')
        values[field] = content_ids.content_id(path)
        if values[field] is None and path != _value(run.settings, field):
            values[field] = f'{path!r}, where nothing is any more'
    return values


def _fingerprints(folder: epath.Path) -> dict[str, int] | None:
    """Fingerprints of the models that a stage ended with; None if there are none."""
    result = {}
    for name in ('', 'actor', 'critic'):
        path = (folder / name if name else folder) / 'model' / saved_models.DESCRIPTION
        if path.exists():
            result[name or 'model'] = read_json(path).get('fingerprint')
    return result or None
