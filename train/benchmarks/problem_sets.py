"""Problem sets by name or path for evaluation outside a run."""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from etils import epath

from elenchus.data.files import row_files
from elenchus.data.problems import downloads, loading, public_datasets
from elenchus.data.problems.loading import PlacedProblem
from elenchus.data.records import Problem
from elenchus.train.config import build

NAMES = (*loading.SOURCES[:-1], 'math500')
"""Names of --data; math500 has the form of math and is read from a folder only."""

LAB_SEED = 0


class ProblemSet(NamedTuple):
    """A named set of problems, and the source that tells how answers are judged."""

    name: str
    source: str  # of problems.loading.SOURCES
    place: str  # file, folder, or where the prepared set is
    problems: Sequence[Problem]


def read_sets(
    entries: Sequence[str], *, data_dir: str, num_problems: int, form: str = 'tail'
) -> list[ProblemSet]:
    """Reads `NAME`, `NAME=PATH` and paths of the user's own files.

    A name is looked up in the folder DATA_DIR/NAME; without one, in the prepared sets there, which
    are downloaded if they are missing. `num_problems` is the first problems that count; 0: all.
    Raises ValueError, naming the entry, if there is no such set.
    """
    sets: list[ProblemSet] = []
    for entry in entries:
        chosen = read_set(entry, data_dir=data_dir, num_problems=num_problems, form=form)
        names = {other.name for other in sets}
        if chosen.name in names:
            raise ValueError(f'--data names the set {chosen.name!r} twice; leave one out')
        sets.append(chosen)
    if not sets:
        raise ValueError(f'--data is empty; use some of {", ".join(NAMES)}, or a .jsonl file')
    return sets


def read_set(entry: str, *, data_dir: str, num_problems: int, form: str) -> ProblemSet:
    """Reads one entry of --data; see `read_sets`."""
    name, equals, path = entry.partition('=')
    if not equals and name not in NAMES:
        return _own_file(entry, num_problems)
    if name not in NAMES:
        raise ValueError(f'--data={entry}: unknown set {name!r}; nearest: {_nearest(name)}')
    if name == 'lab':
        options = {'num_problems': num_problems or 100, 'seed': LAB_SEED, 'form': form}
        problems = loading.generate_lab('test', **options)
        return ProblemSet(name, 'lab', f'{form}, seed {LAB_SEED}', problems)
    source = 'math' if name == 'math500' else name
    folder = epath.Path(path) if equals else epath.Path(data_dir) / name
    has_files = folder.is_dir() and any(folder.glob('test*.*'))
    if equals and folder.is_file():
        problems = _rows_of_file(folder, source)
    elif equals or has_files or name == 'math500':
        if not folder.is_dir():
            raise ValueError(
                f'--data={entry}: no folder {folder} with test.jsonl; use {name}=PATH or --data_dir'
            )
        # The folder of the files is DATA_DIR/NAME, where this user may not be allowed to write.
        problems = loading.read_unprepared(source, split='test', path=folder)
    else:
        options = loading.load_options(data_dir=data_dir, path='')
        with downloads.without_network(f'--data={name}=FOLDER'):
            problems = loading.load(source, split='test', **options)
    return ProblemSet(name, source, str(folder), _first(problems, num_problems))


def _own_file(entry: str, num_problems: int) -> ProblemSet:
    path = epath.Path(entry)
    if not path.exists():
        raise ValueError(
            f'--data={entry}: neither a file nor a known set ({", ".join(NAMES)}); '
            f'nearest: {_nearest(entry)}'
        )
    rows: list[PlacedProblem] = loading.load_placed_problems(path, 'test')
    name = re.sub(r'[^\w.-]', '_', path.stem or path.name).strip('.') or 'own'
    problems = [row.problem for row in rows]
    return ProblemSet(name, 'jsonl', str(path), _first(problems, num_problems))


def _rows_of_file(path: pathlib.Path, source: str) -> list[Problem]:
    """Reads a file in the form of a published set."""
    builder = public_datasets.SETS[source]
    return [
        public_datasets.parse_row(builder, row.value, place=row.place, id=f'{path.stem}/{i}')
        for i, row in enumerate(row_files.read_rows(path))
    ]


def _first(problems: Sequence[Problem], count: int) -> list[Problem]:
    return [problems[i] for i in range(min(count or len(problems), len(problems)))]


def _nearest(name: str) -> str:
    return build.nearest(pathlib.Path(name).stem, NAMES)
