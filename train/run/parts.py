"""Parts: a stage samples its items in parts, each stored in its own file, so that it resumes."""

import bisect
import collections
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from etils import epath

from elenchus.data.files import atomic, episode_files
from elenchus.data.records import Episode
from elenchus.train import distributed, preemption
from elenchus.train.metrics import progress, tracking

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Part(Generic[T]):
    """A contiguous slice of the items of `Parts`, and the file for the episodes sampled there."""

    items: Sequence[T]
    first: int  # index of items[0] among all items
    path: epath.Path
    guard: epath.Path  # file of the work directory that must still exist
    verdicts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    """Right and wrong answers of the parts that this process has sampled."""

    def write(self, episodes: Sequence[Episode], num_tokens: int) -> None:
        """Writes the part's episodes and the number of tokens that were sampled for them.

        Raises RuntimeError if processes sampled different episodes, and FileNotFoundError if the
        work directory has been deleted meanwhile.
        """
        content = b''.join(map(episode_files.to_json, episodes))
        label = f'{self.path.parent.parent.name}/{self.path.name}'
        distributed.check_same(f'the episodes of {label}', content)

        def write() -> None:
            atomic.check_exists(self.guard)
            # The count first: the episodes' file marks the part as complete.
            atomic.write_text(_count_file(self.path), str(num_tokens))
            episode_files.write_episodes(self.path, episodes)

        distributed.run_on_first(write)
        self._show(episodes)

    def _show(self, episodes: Sequence[Episode]) -> None:
        """Shows the share of right answers, where they are judged, and some of the episodes."""
        self.verdicts.update(filter(lambda right: right is not None, map(is_right, episodes)))
        if total := self.verdicts.total():
            progress.show(right=self.verdicts[True] / total)
        tracking.show_episodes(self.path.parent.parent, self.first, episodes)


@dataclasses.dataclass(frozen=True)
class Parts(Generic[T]):
    """Items that are sampled from part by part, so that a stopped stage resumes between two parts.

    parts = stage.parts('attempts', problems)
    for part in parts.missing():
        part.write(*sample(part.items, first_id=part.first))
    episodes, num_tokens = parts.read()
    """

    path: epath.Path
    items: Sequence[T]
    size: int  # of a part; that with which the stage started
    guard: epath.Path
    description: str

    def missing(self) -> Iterator[Part[T]]:
        """Parts that are not on disk yet; shows progress.

        A part whose file or count is empty, as after a power cut, is sampled again: it depends on
        its items and their indices alone. Raises Preempted before a part if the process has been
        asked to stop.
        """
        verdicts = collections.Counter()
        parts = [
            Part(
                self.items[i : i + self.size],
                i,
                self._file(i // self.size),
                self.guard,
                verdicts,
            )
            for i in range(0, len(self.items), self.size)
        ]
        complete = distributed.run_on_first(lambda: [_is_whole(part.path) for part in parts])
        total = len(self.items)
        with progress.progress(total, unit='problems', description=self.description) as bar:
            for number, part in enumerate(parts):
                if complete[number]:
                    bar.skip(len(part.items))
                else:
                    if preemption.requests.is_requested():
                        raise preemption.Preempted(f'{number} of {len(parts)} parts are sampled')
                    yield part
                    bar.advance(len(part.items))

    def read(self) -> tuple['StoredEpisodes', int]:
        """Returns the episodes of all parts, and the tokens that were sampled for them.

        The episodes stay in their files until they are used.
        """
        tokens = sum(map(_read_count, sorted(self._folder.glob('*.tokens'))))
        return StoredEpisodes(self._folder), tokens

    @property
    def _folder(self) -> epath.Path:
        return self.path / 'episodes'

    def _file(self, number: int) -> epath.Path:
        return self._folder / f'part-{number:05d}.array_record'


class StoredEpisodes(Sequence[Episode]):
    """The episodes in the files of a folder, in order; those of one file are in memory at a time.

    All of them can be more than a host has: some 70 bytes a token. Raises ValueError that names a
    damaged file.
    """

    def __init__(self, folder: epath.Path):
        self._paths = episode_files.list_files(folder)
        counts = map(episode_files.count_episodes, self._paths)
        self._starts = list(itertools.accumulate(counts, initial=0))
        self._read = functools.lru_cache(maxsize=1)(episode_files.read_episode_file)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        number = bisect.bisect_right(self._starts, position) - 1
        return self._read(self._paths[number])[position - self._starts[number]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None


def is_right(episode: Episode) -> bool | None:
    """Returns whether the last answer of an episode is right; None if nobody has judged one."""
    facts = [turn.facts.correct for turn in episode.turns]
    return next((right for right in reversed(facts) if right is not None), None)


def _count_file(path: epath.Path) -> epath.Path:
    return path.with_suffix('.tokens')


def _is_whole(path: epath.Path) -> bool:
    """Returns whether a part's file and its count are there and not empty."""
    count = _count_file(path)
    return (
        path.exists()
        and epath.Path(path).stat().length > 0
        and count.exists()
        and count.read_text().strip().isdecimal()
    )


def _read_count(path: epath.Path) -> int:
    text = path.read_text()
    if not text.strip().isdecimal():
        raise ValueError(f'{path} is damaged (no number: {text[:20]!r}): {episode_files.REMEDY}')
    return int(text)
