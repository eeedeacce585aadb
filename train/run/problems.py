"""The problems of a run: loaded, checked for what its stages need of them, and counted."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from elenchus.data.lab import task
from elenchus.data.problems import blending, downloads, loading
from elenchus.data.problems.loading import PlacedProblem
from elenchus.data.records import Problem
from elenchus.model.ranges import show
from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.train.config.data_settings import REWRITES, DataSettings
from elenchus.train.config.run_settings import REINFORCED, RunSettings
from elenchus.train.run import paths

READ_SOLUTIONS = ('rationale_driven', 'state_reset')
"""Explorers that show the actor the reference solution, or a part of it."""
NUM_NAMED = 5
"""Problems that a message names, at most."""


class SolutionReader(NamedTuple):
    """A part of a run that needs the reference solutions of its first problems."""

    description: str
    num_problems: int
    num_needed: int  # of these, so many must have a solution


@dataclasses.dataclass(frozen=True)
class ProblemCounts:
    """Counts of the problems of a split; what is not read as it stands is counted apart."""

    problems: int  # that the run uses
    too_long: int  # left out, with data.too_long='drop'
    without_solution: int
    marked_answers: int  # read from a text, by the marker that names the answer there
    too_long_ids: tuple[str, ...] = ()  # of those left out, the longest first


def load_rows(settings: RunSettings, split: str) -> list[PlacedProblem]:
    """Loads the training problems, or those of evaluation, with their places.

    `split` is 'train' or 'test'; `data.test_split` names the source's split of the latter. Raises
    ValueError if the source has no such split or fewer problems than configured.
    """
    data = settings.data
    count = {'train': data.num_train, 'test': data.num_test}[split]
    source, path = data.source, data.path
    if split == 'test' and data.test_source:
        source, path = data.test_source, data.test_path
    if split == 'test' or not data.blend:
        rows = _rows_of(settings, source, path, split=split, count=count)
    else:
        rows = _blended(settings)
    return rows if data.rewrite == 'none' else [_rewritten(row, data.rewrite) for row in rows]


def _blended(settings: RunSettings) -> list[PlacedProblem]:
    """Training problems of several sets, by weight; ids of further sets begin with their number."""
    data = settings.data
    pools = []
    for i, (source, path, number) in enumerate(_shares(data)):
        pool = _rows_of(settings, source, path, split='train', count=number) if number else []
        pools.append([_with_prefix(row, f'{i}/') for row in pool] if i else pool)
    return blending.interleave(pools)


def _shares(data: DataSettings) -> list[tuple[str, str, int]]:
    """Returns source, path and number of training problems of each set."""
    sets = [(data.source, data.path, 1.0), *data.blend]
    numbers = blending.counts([weight for *_, weight in sets], data.num_train)
    return [(source, path, n) for (source, path, _), n in zip(sets, numbers, strict=True)]


def _with_prefix(row: PlacedProblem, prefix: str) -> PlacedProblem:
    problem = dataclasses.replace(row.problem, id=f'{prefix}{row.problem.id}')
    return row._replace(problem=problem)


def _rewritten(row: PlacedProblem, reference: str) -> PlacedProblem:
    """Returns a row rewritten by the function of `data.rewrite`; ValueError if it returns none."""
    new = REWRITES[reference](row.problem)
    is_problem = isinstance(new, Problem) and new.id == row.problem.id
    if not is_problem or not all(isinstance(x, str) and x for x in (new.question, new.answer)):
        raise ValueError(
            f'{row.place}: data.rewrite={reference!r} returned {show(new)}: it must return the '
            'problem with another question, answer or solution, and the same id'
        )
    if new.source == 'lab' and not task.is_solvable(new.question):
        raise ValueError(
            f'{row.place}: data.rewrite={reference!r} returned the question {new.question!r}, '
            'which the lab cannot solve: a fact must come after those that it refers to'
        )
    return row._replace(problem=new)


def _rows_of(
    settings: RunSettings, source: str, path: str, *, split: str, count: int
) -> list[PlacedProblem]:
    """Returns `count` problems of one set; of a file for both splits, tests follow the training."""
    data = settings.data
    chosen = data.test_split if split == 'test' else split
    try:
        rows = _load(settings, source, path=path and str(paths.resolve(path)), split=chosen)
    except ValueError as error:
        remedy = "; or set data.test_split='test'" if chosen == 'validation' else ''
        raise ValueError(f'config.data: {error}{remedy}') from error
    # One file for both splits has the training problems first: none of them is evaluated.
    first = _num_trained(data, path) if split == 'test' and source == 'jsonl' else 0
    if first and chosen == 'validation':
        raise ValueError(
            f'config.data: path={path!r} is one file, so its validation problems would be those of '
            "the test: use a folder with validation.jsonl; or set data.test_split='test'"
        )
    if len(rows) - first < count:
        where = f' after the first {first}, which are trained on' if first else ''
        subject = f'data.num_{split}={count}'
        if split == 'train' and data.blend:
            subject = f'data.num_train={data.num_train} takes {count} by data.blend'
        raise ValueError(
            f'{subject}, but {source} has only {max(0, len(rows) - first)} {chosen} problems{where}'
        )
    rows = rows[first : first + count]
    # Records are read from disk whenever they are indexed, so each is read once.
    return list(rows) if source == 'jsonl' else [PlacedProblem(p, p.id) for p in rows]


def _num_trained(data: DataSettings, path: str) -> int:
    """Returns how many problems at the start of a user's file are for training; 0 for a folder."""
    file = paths.resolve(path)
    if not file.is_file():
        return 0
    # The rest of `num_train` behind those of `path` stays unused: a blend moves no test problem.
    sets = [(data.source, data.path, data.num_train), *_shares(data)[1:]]
    numbers = [
        number
        for source, other, number in sets
        if source == 'jsonl' and paths.resolve(other).resolve() == file.resolve()
    ]
    return max(numbers, default=0)


def _load(settings: RunSettings, source: str, *, path: str, split: str) -> Sequence[Any]:
    data = settings.data
    if source == 'jsonl':
        if not path:
            raise ValueError("source='jsonl' needs path")
        return loading.load_placed_problems(path, split)
    options = loading.load_options(data_dir=data.data_dir, path=path)
    if source == 'lab':
        sizes = {'train': data.num_train, 'test': data.num_test}
        # A data set of its own, so that a run on validation problems leaves the other one as it is.
        sizes = sizes if split in sizes else {split: data.num_test}
        options = {
            'data_dir': data.data_dir,
            'seed': data.seed,
            'num_problems': sizes,
            'form': data.form,
        }
    with downloads.without_network('data.path'):
        return loading.load(source, split=split, **options)


# Solutions


def solution_readers(s: RunSettings) -> Iterator[SolutionReader]:
    """Yields what a run needs reference solutions for; the lab's problems always have them."""
    if 'base' in s.stages and s.base.fit.num_steps:
        count = s.base.num_documents
        yield SolutionReader("stage 'base' trains on it", count, count)
    if 'actor' in s.stages:
        count = s.actor.num_problems
        yield SolutionReader("stage 'actor' trains on it", count, count)
    explorers = [stage for stage in s.stages if stage in EXPLORERS]
    for stage in (stage for stage in explorers if stage in READ_SOLUTIONS):
        count = s.improve.num_problems
        yield SolutionReader(f'stage {stage!r} shows it to the actor', count, count)
    if explorers and s.improve.responses == 'references':
        needed = s.improve.num_references
        text = f"improve.responses='references' trains on {needed} of them"
        yield SolutionReader(text, s.improve.num_problems, needed)
    if s.reinforce.turns.hint_share and any('actor' in REINFORCED.get(t, ()) for t in s.stages):
        count = s.data.num_train
        yield SolutionReader('reinforce.turns.hint_share gives a part of it', count, count)
    annotates = 'critique' in s.stages or (explorers and s.improve.retrain_critic)
    if annotates and s.critique.annotator in ('oracle', 'calculator'):
        text = f'critique.annotator={s.critique.annotator!r} needs it, and leaves out problems '
        text += 'without one'
        yield SolutionReader(text, s.critique.num_problems, 1)


def check_solutions(settings: RunSettings, rows: Sequence[PlacedProblem]) -> None:
    """Raises ValueError with the place of the first training problem that lacks its solution."""
    if settings.data.source == 'lab':
        return
    for reader in solution_readers(settings):
        used = rows[: reader.num_problems]
        missing = [row for row in used if not row.problem.solution]
        if len(used) - len(missing) < min(reader.num_needed, len(used)):
            raise ValueError(
                f"{missing[0].place}: missing field 'solution', but {reader.description} "
                f'({len(missing)} of {len(used)} rows lack it): add it, or change config.stages'
            )


# Counts and names


def count(rows: Sequence[PlacedProblem]) -> ProblemCounts:
    """Counts the problems of a split before any is left out."""
    return ProblemCounts(
        problems=len(rows),
        too_long=0,
        without_solution=sum(not row.problem.solution for row in rows),
        marked_answers=sum(row.answer_was_marked for row in rows),
    )


def describe(counts: Mapping[str, ProblemCounts]) -> str:
    """Returns a line about what is not read as it stands; '' if there is nothing to say."""
    notes = []
    for split, n in counts.items():
        if n.marked_answers:
            notes.append(
                f'{n.marked_answers} {split} answers are read from whole texts, by their markers'
            )
        if n.without_solution and split == 'train':  # no stage reads those of test problems
            notes.append(f'{n.without_solution} {split} problems have no solution')
        if n.too_long:
            ids = ', '.join(map(repr, n.too_long_ids[:NUM_NAMED]))
            more = f' and {n.too_long - NUM_NAMED} more' if n.too_long > NUM_NAMED else ''
            notes.append(
                f'{n.too_long} {split} problems are left out, their questions are too long: '
                f'{ids}{more}'
            )
    return '; '.join(notes)
