"""The trackers of the current run of this process, and what they show of episodes.

`Run.started` opens them. Metrics writers and samplers ask for them by the name of a stage, and get
none outside a run. A resumed run shows repeated steps again, with the same values.
"""

import collections
import contextlib
import dataclasses
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from elenchus.data.files import atomic, jsonl
from elenchus.data.records import Episode
from elenchus.data.text.printable import printable
from elenchus.model.ranges import checked
from elenchus.train.metrics import event_files
from elenchus.train.metrics.trackers import Library, Tracker, TrackerProcess

IDS = 'trackers.json'
"""File of a work directory with the id under which trackers know the run."""
TEXTS, MAX_TEXTS = 2, 40  # episodes shown of each part or iteration, and of each stage
MAX_TEXT = 8000  # characters of one


@dataclasses.dataclass(frozen=True)
@checked('tracking')
class TrackingSettings:
    """Trackers beside TensorBoard."""

    libraries: tuple[Library, ...]  # each needs the extra of its name
    project: str  # there

    def __post_init__(self):
        if not self.project.strip():
            raise ValueError("tracking.project='' has no name; nearest: 'elenchus'")
        if len(set(self.libraries)) < len(self.libraries):
            raise ValueError(f'tracking.libraries={self.libraries} names one twice; nearest: '
                             f'{tuple(dict.fromkeys(self.libraries))}')  # fmt: skip


class RunTrackers:
    """The trackers of a run, by stage."""

    def __init__(
        self,
        workdir: epath.Path,
        processes: Sequence[TrackerProcess],
        decode: Callable[[Sequence[int]], str],
    ):
        self._workdir, self._processes, self.decode = workdir, processes, decode
        self._episodes: dict[str, list[Tracker]] = {}
        self.num_texts: collections.Counter = collections.Counter()

    def of_stage(self, stage: str) -> list[Tracker]:
        """Returns the trackers of a stage beside TensorBoard."""
        return [process.stage(stage) for process in self._processes]

    def of_episodes(self, stage: str) -> list[Tracker]:
        """Returns the trackers of a stage's episodes, TensorBoard among them.

        TensorBoard gets a folder apart from the metrics', as it follows only a folder's newest
        file.
        """
        if stage not in self._episodes:
            folder = self._workdir / 'tensorboard' / stage / 'episodes'
            self._episodes[stage] = [event_files.EventFile(folder), *self.of_stage(stage)]
        return self._episodes[stage]

    def close(self, *, failed: bool) -> None:
        """Closes all of them; each has `CLOSE_S` seconds."""
        for trackers in self._episodes.values():
            trackers[0].close()
        for process in self._processes:
            process.close(failed=failed)


_active: list[RunTrackers] = []


@contextlib.contextmanager
def tracked(
    settings: TrackingSettings,
    workdir: epath.Path,
    *,
    config: Mapping[str, Any],
    decode: Callable[[Sequence[int]], str],
) -> Iterator[None]:
    """Opens the trackers of a run, on the process that writes, for the body."""
    if not atomic.may_write():
        yield
        return
    run = RunTrackers(workdir, _start(settings, workdir, config), decode)
    _active.append(run)
    failed = True
    try:
        yield
        failed = False
    finally:
        _active.remove(run)
        run.close(failed=failed)


def of_stage(stage: str) -> list[Tracker]:
    """Returns the trackers of a stage of the run that goes on, beside TensorBoard."""
    return _active[-1].of_stage(stage) if _active and stage else []


def stage_of(folder: os.PathLike) -> str:
    """Returns the path of a folder below `stages` of its work directory, '' outside of one."""
    return os.fspath(folder).rpartition('/stages/')[2] if '/stages/' in os.fspath(folder) else ''


def show_episodes(
    folder: os.PathLike,
    step: int,
    episodes: Sequence[Episode],
    *,
    values: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Shows lengths of turns, further values and some texts of the episodes of a stage's folder.

    Args:
        step: Iteration, or number of the first problem.
        values: Name -> values whose distribution is shown, such as rewards.
    """
    stage = stage_of(folder)
    if not _active or not stage:
        return
    run = _active[-1]
    lengths = collections.defaultdict(list)
    for episode in episodes:
        for turn in episode.turns:
            if turn.logprobs:
                lengths[f'tokens/{turn.role}'].append(len(turn.tokens))
    texts = [
        transcript(e, run.decode) for e in episodes[:TEXTS] if run.num_texts[stage] < MAX_TEXTS
    ]
    run.num_texts[stage] += len(texts)
    for tracker in run.of_episodes(stage):
        for name, numbers in (lengths | dict(values or {})).items():
            tracker.histogram(step, name, numbers)
        for i, text in enumerate(texts):
            tracker.text(step, f'episode/{i}', text)


def transcript(episode: Episode, decode: Callable[[Sequence[int]], str]) -> str:
    """Returns the turns of an episode as text, with what is known of their answers."""
    parts = [f'{episode.problem_id}, level {episode.level}']
    for turn in episode.turns:
        right = {True: ', right', False: ', wrong', None: ''}[turn.facts.correct]
        parts.append(f'[{turn.role}{right}]\n{decode(turn.tokens)}')
    return printable('\n'.join(parts))[:MAX_TEXT]


def _start(
    settings: TrackingSettings, workdir: epath.Path, config: Mapping[str, Any]
) -> list[TrackerProcess]:
    if not settings.libraries:
        return []
    path = workdir / IDS
    if not path.exists():
        atomic.write_text(path, f'{{"id": "{secrets.token_hex(8)}"}}\n')
    first = {
        'id': jsonl.read_object(path).get('id') or secrets.token_hex(8),
        'name': printable(workdir.name),
        'project': settings.project,
        'config': dict(config),
        'folder': '' if atomic.is_remote(workdir) else os.fspath(atomic.absolute(workdir)),
    }
    return [TrackerProcess({'library': name, **first}) for name in settings.libraries]
