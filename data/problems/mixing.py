"""Mixes published problem sets, with a train and a test split of the mixture.

Sets such as ASDiv and SVAMP publish test problems only. Their problems are divided by a seed. Test
problems are drawn first, so they do not depend on the number of training problems.
"""

import json
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from elenchus.data.critiques.calculator import chains
from elenchus.data.grading import answers
from elenchus.data.problems import downloads, loading, public_datasets
from elenchus.data.records import Problem


class Limits(NamedTuple):
    """Which problems are taken."""

    question: int  # longest question in characters
    solution: int  # longest solution in characters
    computable: bool  # only where the solution's last true equation has the answer as its result


class Mixture(NamedTuple):
    """Problems by split, and how many there were to choose from, by set and split."""

    train: Sequence[Problem]
    test: Sequence[Problem]
    available: Mapping[str, int]


def mix(
    train: Mapping[str, int],
    test: Mapping[str, int],
    *,
    folders: Mapping[str, str],
    data_dir: str,
    limits: Limits,
    seed: int,
) -> Mixture:
    """Draws problems of sets, by name -> number, and shuffles them.

    Args:
        train: Sets for training. A set without a training split gives those that `test` leaves.
        test: Sets that are evaluated.
        folders: Set -> folder with its files; without one it is downloaded.
        data_dir: Folder of prepared data sets.
        limits: Which problems are taken.
        seed: Of the choice and the order.

    No question of a test problem is in training. Raises ValueError if a set has too few problems.
    """
    chosen: dict[str, list[Problem]] = {'train': [], 'test': []}
    available, sets = {}, {}
    for name in dict.fromkeys((*train, *test)):
        sets[name] = _pools(name, folders.get(name, ''), data_dir, limits=limits, seed=seed)
        available |= {f'{name} {split}': len(pool) for split, pool in sets[name].items()}
        chosen['test'] += _first(sets[name]['test'], test.get(name, 0), name=f'--test={name}')
    tested = set(map(_words, chosen['test']))  # ASDiv has a question twice
    for name, number in train.items():
        pools = sets[name]
        rest = [p for p in pools.get('train', pools['test']) if _words(p) not in tested]
        chosen['train'] += _first(rest, number, name=f'--train={name}')
    for split, problems in chosen.items():
        random.Random(f'{seed}/{split}').shuffle(problems)
    return Mixture(chosen['train'], chosen['test'], available)


def to_jsonl(problems: Sequence[Problem]) -> str:
    """Returns problems as rows that `loading.read_problems` reads."""
    names = ('id', 'question', 'answer', 'solution', 'level')
    rows = ({name: getattr(problem, name) for name in names} for problem in problems)
    return ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)


def is_computable(problem: Problem) -> bool:
    """Returns whether the last equation of the solution is true and has the answer as its result.

    `25/7=3 r4`, ratios and comparisons are not.
    """
    chain = chains.read(problem.solution.split('\n')[:-1])
    if not chain or chain[-1].equation.holds is not True:
        return False
    return chain[-1].equation.result == answers.parse_number(problem.answer)


def _pools(
    name: str, folder: str, data_dir: str, *, limits: Limits, seed: int
) -> dict[str, list[Problem]]:
    """Returns the problems of each published split within the limits, in a random order."""
    pools = {}
    for split in public_datasets.SETS[name].PUBLIC:
        options = loading.load_options(data_dir=data_dir, path=folder)
        with downloads.without_network(f'--sets=FOLDER, as FOLDER/{name},'):
            problems = loading.load(name, split=split, **options)
        pool = [problems[i] for i in range(len(problems))]
        pool = [problem for problem in pool if _is_within(problem, limits)]
        random.Random(f'{seed}/{name}/{split}').shuffle(pool)
        pools[split] = pool
    return pools


def _is_within(problem: Problem, limits: Limits) -> bool:
    return (
        len(problem.question) <= limits.question
        and len(problem.solution) <= limits.solution
        and (not limits.computable or is_computable(problem))
    )


def _words(problem: Problem) -> str:
    return ' '.join(problem.question.split()).casefold()


def _first(pool: Sequence[Problem], number: int, *, name: str) -> list[Problem]:
    if number > len(pool):
        raise ValueError(f'{name}:{number}, but only {len(pool)} problems are left within limits')
    return list(pool[:number])
