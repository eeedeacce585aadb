"""The folder of a run: stage folders, summaries, sampled parts, and the lock.

    WORKDIR/config.json                    the config of the last start
    WORKDIR/stages/03-critic/config.json   the config that this stage started with
    WORKDIR/stages/03-critic/summary.json  written last: a stage that has it is complete
    WORKDIR/stages/03-critic/failure.txt   why the stage ended with an error, until it goes on
    WORKDIR/stages/03-critic/...           checkpoints, metrics, episodes, the stage's model

A stage continues only if all fields that it reads (config/stage_fields.py) have their old values.
If it ended with an error, it starts again when they differ, so that a wrong value can be mended.

Every file is written under another name and then renamed, so a killed run leaves no partial file.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
from etils import epath

from elenchus.data.files import atomic, episode_files, failures, jsonl
from elenchus.data.records import Episode
from elenchus.train import distributed, preemption
from elenchus.train.checkpoints import saved_models, training_state
from elenchus.train.config import build
from elenchus.train.config.stage_fields import EARLIER, MAY_CHANGE, NEW_SECTIONS
from elenchus.train.metrics import writers
from elenchus.train.run import lock
from elenchus.train.run.parts import Parts

T = TypeVar('T')

CONFIG = 'config.json'
SUMMARY = 'summary.json'
FAILURE = 'failure.txt'
MISTAKES = (ValueError, FloatingPointError)
"""Errors of a stage that another config may avoid."""
QUESTIONS = 'questions.json'
MODEL = saved_models.DESCRIPTION  # written last: a folder with it is a whole model
PLACES_OF_MODELS = ('model', 'actor/model', 'critic/model')
REMEDY = 'delete it, or its folder, and run the same command again'
"""The advice that ends error messages about damaged files of a stage."""


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The work directory of one run.

    Opening it reads and checks only. `locked` writes the config and keeps other runs out.
    """

    path: epath.Path
    config: str  # the whole config as JSON
    stages: tuple[str, ...]  # in the order in which they run
    part_size: int  # items in one file of sampled episodes
    reads: Callable[[str, str], bool] = lambda stage, field: field not in MAY_CHANGE
    """(stage, field of the config) -> whether the stage's result depends on the field."""

    def check_stages(self) -> None:
        """Raises ValueError if a stage on disk read a field that has another value now.

        Also if `stages` of the config puts it at another place, so that it would run again.
        """
        for number, name in enumerate(self.stages):
            for other in (self.path / 'stages').glob(f'??-{name}'):
                if other.name != f'{number:02d}-{name}' and (other / SUMMARY).exists():
                    raise ValueError(
                        f'config.stages={self.stages} puts {name!r} at place {number}, but '
                        f'{other} is complete: append new stages at the end, or use a new --workdir'
                    )
            folder = self.stage(name)
            if not folder.has_failed():
                folder.check_config()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out of the directory, and writes the config into it."""
        with contextlib.ExitStack() as stack:

            def start() -> None:
                stack.enter_context(lock.locked(self.path))
                atomic.write_text(self.path / CONFIG, self.config)

            distributed.run_on_first(start)
            yield

    def stage(self, name: str) -> 'StageFolder':
        """The folder of a stage of this run."""
        if name not in self.stages:
            raise ValueError(
                f'config.stages={self.stages} does not contain {name!r}; '
                f'did you mean {build.nearest(name, self.stages)!r}?'
            )
        folder = f'{self.stages.index(name):02d}-{name}'
        return StageFolder(self.path / 'stages' / folder, self)

    def model_folder(self, stage: str) -> epath.Path:
        """The model that a stage ended with. Raises ValueError if the stage has not run."""
        folder = self.stage(stage).path / 'model'
        if not folder.exists():
            raise ValueError(f'stage {stage!r} has left no model in {self.path}; run it first')
        return folder


@dataclasses.dataclass(frozen=True)
class StageFolder:
    """The folder of a stage, or of a part of a stage such as a round of self-improvement."""

    path: epath.Path
    directory: RunDirectory

    @classmethod
    def temporary(cls) -> 'StageFolder':
        """A folder for a stage that is called from Python; it is deleted with this object.

        Only for runs of one process: every process would get a folder of its own.
        """
        path = tempfile.mkdtemp(prefix='elenchus-')
        directory = RunDirectory(epath.Path(path), '{}', ('stage',), part_size=100)
        # Parts check before they write that this file, and so the folder, still exists.
        atomic.write_text(directory.path / CONFIG, directory.config)
        stage = directory.stage('stage')
        weakref.finalize(stage, shutil.rmtree, path, ignore_errors=True)
        return stage

    @property
    def name(self) -> str:
        """Path below `stages`, such as '05-vanilla/round-1'."""
        return os.fspath(self.path.relative_to(self.directory.path / 'stages'))

    def child(self, name: str) -> 'StageFolder':
        """A part of this stage that has a config and a summary of its own."""
        return dataclasses.replace(self, path=self.path / name)

    def changed_fields(self) -> str:
        """Returns, as `explain_diff`, the fields that the stage read with another value."""
        path = self.path / CONFIG
        if not path.exists():
            return ''
        stage = self.name.partition('/')[0].partition('-')[2]
        before = build.from_json(json.dumps(read_json(path)))
        now = build.from_json(self.directory.config)
        return build.explain_diff(
            before,
            now,
            only=lambda field: self.directory.reads(stage, field),
            earlier=EARLIER,
            new_sections=NEW_SECTIONS,
        )

    def check_config(self) -> None:
        """Raises ValueError if the stage read a field that has another value now."""
        changed = self.changed_fields()
        if changed:
            raise ValueError(
                f'stage {self.name!r} was started with another config: {changed}; use the old '
                f'value or a new --workdir, or delete {self.path} to run the stage again'
            )

    def has_failed(self) -> bool:
        """True if the stage ended with an error that another config may avoid."""
        return (self.path / FAILURE).exists() and not (self.path / SUMMARY).exists()

    def discard_failure(self) -> None:
        """Deletes what is in the folder of a stage that failed under other values than now."""
        if not distributed.run_on_first(lambda: self.has_failed() and self.changed_fields() != ''):
            return

        def discard() -> None:
            print(f'   {self.name} starts again: {self.changed_fields()}')
            atomic.delete_tree(self.path)

        distributed.run_on_first(discard)

    def read_summary(self) -> dict | None:
        """The summary of a complete stage; None if it has to run (again).

        Raises ValueError if the stage was started with other values of fields that it reads.
        """
        self.discard_failure()
        self.check_config()
        if not distributed.run_on_first((self.path / SUMMARY).exists):
            return None
        summary = distributed.run_on_first(lambda: read_json(self.path / SUMMARY))
        self.delete_checkpoints()
        return summary

    def delete_checkpoints(self) -> None:
        """Deletes checkpoints of a complete stage, or round, whose models are saved beside them."""
        train = json.loads(self.directory.config).get('train', {})
        keep = train.get('keep_finished_checkpoints', 0)

        def delete() -> None:
            for folder in (self.path, self.path / 'critic'):
                if any((folder / place / MODEL).exists() for place in PLACES_OF_MODELS):
                    training_state.delete_oldest(folder / 'checkpoints', keep=keep)

        distributed.run_on_first(delete)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[dict]:
        """Runs the body of a stage; what it puts into the dict becomes the stage's summary.

        Adds `seconds` of the process that completed the stage. If the body raises, no summary is
        written, and of a mistake why. Raises Preempted if the process has been asked to stop.
        """
        if preemption.requests.is_requested():
            raise preemption.Preempted(f'stage {self.name!r} has not started')
        distributed.run_on_first(self._write_config)
        distributed.run_on_first(lambda: (self.path / FAILURE).unlink(missing_ok=True))
        counts = ('tokens_sampled', 'tokens_trained', 'tokens_padding')
        start, summary = time.perf_counter(), dict.fromkeys(counts, 0)
        try:
            yield summary
        except preemption.Interrupted:
            raise preemption.Preempted(f'{self.name}: what was being sampled is left out') from None
        except MISTAKES as error:
            # Not by `run_on_first`: an error need not reach all processes.
            if jax.process_index() == 0 and self.path.exists():
                self.write_text(FAILURE, f'{error}\n')
            raise
        summary['seconds'] = round(time.perf_counter() - start, 1)
        distributed.run_on_first(lambda: atomic.check_exists(self.path / CONFIG))
        distributed.run_on_first(lambda: self.write_json(SUMMARY, summary))
        self.delete_checkpoints()

    def _write_config(self) -> None:
        """Writes the config that the stage starts with, unless it continues."""
        if not (self.path / CONFIG).exists():
            self.write_text(CONFIG, self.directory.config)

    @contextlib.contextmanager
    def metrics(self) -> Iterator[writers.Writer]:
        """Writer of this stage's metrics: rows in the folder, scalars for TensorBoard."""
        board = self.directory.path / 'tensorboard' / self.name
        with writers.Writer(self.path, tensorboard=board, stage=self.name) as writer:
            yield writer

    def parts(self, name: str, items: Sequence[T], *, description: str = '') -> Parts[T]:
        """Items to sample from, part by part; `name` is a subfolder, '' for the stage itself."""
        path = self.path / name if name else self.path
        guard = self.directory.path / CONFIG
        return Parts(path, items, self._part_size(), guard, description or name)

    def _part_size(self) -> int:
        """Items of a part: as when the stage started, whatever the config says now."""

        def read() -> int:
            started = read_json(self.path / CONFIG) if (self.path / CONFIG).exists() else {}
            return started.get('sampling', {}).get('part_size', self.directory.part_size)

        return distributed.run_on_first(read)

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file into this folder, whole or not at all."""
        write_json(self.path / name, value)

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file into this folder, whole or not at all."""
        atomic.write_text(self.path / name, text)

    def write_questions(self, values: Mapping[str, Any]) -> None:
        """Writes questions.json: accuracies at each question, too many for a summary."""
        self.write_text(QUESTIONS, json.dumps(values) + '\n')

    def write_episodes(self, episodes: Sequence[Episode]) -> None:
        """Writes `episodes/part-00000.array_record`."""
        episode_files.write_episodes(self.path / 'episodes' / 'part-00000.array_record', episodes)


def link_tree(source: os.PathLike, folder: epath.Path) -> None:
    """Hard-links the files of a folder into a new folder, all or none.

    The first process makes the links; the others wait for it.
    """
    distributed.run_on_first(lambda: atomic.link_tree(source, folder))


def write_json(path: epath.Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    atomic.write_text(path, json.dumps(value, indent=1) + '\n')


def read_json(path: epath.Path) -> Any:
    """Reads a JSON file. Raises ValueError, naming the file, if it holds no JSON object."""
    with failures.named_errors(path):
        content = path.read_bytes()
    return jsonl.at_place(str(path), lambda _: _parse(content), content)


def _parse(content: bytes) -> Any:
    try:
        return jsonl.parse_object(content.decode())
    except ValueError as error:  # also of a character that is not UTF-8
        text = str(error) if content.strip() else 'the file is empty'
        raise ValueError(f'{text}: {REMEDY}') from None
