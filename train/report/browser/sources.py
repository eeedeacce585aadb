"""Where a run keeps episodes: the folders of its stages, with stage, round and part of each."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from elenchus.data.files import episode_files, jsonl
from elenchus.train.rl.stored_rollouts import VALUES

MAIN = 'main'
"""Part of the episodes that lie in the folder of a stage, or of a round, itself."""
_DEPTHS = ('', '*/', '*/*/', '*/*/*/')
_NUMBERED = re.compile(r'(round|step)-(\d+)')


class Source(NamedTuple):
    """A folder of episodes."""

    folder: epath.Path
    stage: str  # name of the stage's folder, such as '05-vanilla'
    round: int | None  # of self-improvement, or iteration of reinforcement learning
    part: str  # what remains of the path, such as 'explored' or 'uptake/own'; MAIN if nothing does


def find_sources(workdir: epath.Path) -> list[Source]:
    """Returns the folders with episodes, in order of stage, round and part."""
    folders = [
        folder
        for depth in _DEPTHS
        for folder in workdir.glob(f'stages/*/{depth}episodes')
        if count(folder)
    ]
    sources = [_source(workdir, folder) for folder in folders]
    return sorted(sources, key=lambda s: (s.stage, s.round or 0, s.part != MAIN, s.part))


def count(folder: epath.Path) -> int:
    """Returns the number of episodes in the files of a folder."""
    return sum(map(episode_files.count_episodes, folder.glob('*.array_record')))


def read_values(source: Source) -> list[Mapping[str, Any]] | None:
    """Returns what reinforcement learning computed of the episodes; None if nothing is stored.

    Raises ValueError if the lines are not as many as the episodes.
    """
    path = source.folder.parent / VALUES
    if not path.exists():
        return None
    values = [line.value for line in jsonl.read_objects(path)]
    if len(values) != count(source.folder):
        raise ValueError(
            f'{path} has {len(values)} lines for {count(source.folder)} episodes; delete it'
        )
    return values


def _source(workdir: epath.Path, folder: epath.Path) -> Source:
    stage, *parts = os.fspath(folder.parent.relative_to(workdir / 'stages')).split('/')
    numbers = [match for part in parts if (match := _NUMBERED.fullmatch(part))]
    rest = '/'.join(part for part in parts if not _NUMBERED.fullmatch(part))
    return Source(folder, stage, int(numbers[-1][2]) if numbers else None, rest or MAIN)
