"""Writes a run of many episodes by repeating those of a real one, to measure the browser.

python -m tests.support.repeated_run WORKDIR STAGE/PLACE COUNT OUT
"""

import itertools
import shutil
import sys
from collections.abc import Iterator

from etils import epath

from elenchus.data.files import episode_files
from elenchus.data.records import Episode


def repeated(episodes: list[Episode], count: int) -> Iterator[Episode]:
    """Yields `count` episodes; those of a further pass have ids of their own."""
    for number, episode in enumerate(itertools.islice(itertools.cycle(episodes), count)):
        turn = number // len(episodes)
        yield episode.__class__(
            f'{episode.problem_id}/{turn}', episode.level, episode.turns, episode.facts
        )


def main(workdir: str, place: str, count: str, out: str) -> None:
    """Writes OUT with the config and the tokenizer of WORKDIR."""
    source, target = epath.Path(workdir), epath.Path(out)
    episodes = list(episode_files.read_episodes(source / 'stages' / place / 'episodes'))
    folder = target / 'stages' / place / 'episodes'
    episode_files.write_episodes(folder / 'part.array_record', repeated(episodes, int(count)))
    for name in ('config.json', 'tokenizer.model', 'tokenizer.json', 'summary.json'):
        if (source / name).exists():
            shutil.copy(source / name, target / name)


if __name__ == '__main__':
    main(*sys.argv[1:])
