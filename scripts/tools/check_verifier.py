r"""Checks the verifier on a problem set: every reference against itself and against the next one.

    python -m scripts.tools.check_verifier --source=math --path=shared/data/math
    python -m scripts.tools.check_verifier --source=jsonl --path=mine.jsonl

A table counts the outcomes. Below it stand the pairs that deserve a look: references that are not
equal to themselves, in another spelling where one is easily made, and neighbours found equal or not
decided, though their texts differ.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import rich.console
import rich.table
from absl import flags

from elenchus.data.grading import verify
from elenchus.data.grading.verify import Outcome
from elenchus.data.problems import loading
from elenchus.train.config import cli

SPELLINGS = ((r'\frac', r'\dfrac'), ('(', r'\left('), (')', r'\right)'), (',', ', '))
"""What a writer of the same answer may put instead."""


class Pass(NamedTuple):
    """The outcomes of some (answer, reference) pairs, and what they took."""

    name: str
    pairs: Sequence[tuple[str, str]]
    outcomes: Sequence[Outcome]
    seconds: float


def respelt(answer: str) -> str:
    r"""The same answer as another writer puts it: `(3, \frac12)` as `\left(3, \dfrac12\right)`."""
    if any(mark in answer for mark in (r'\left', '{,}', r',\!', r'\,')):
        return answer
    grouped = answer.replace(',', '').isdigit()  # 1,234 has no list's commas
    for old, new in SPELLINGS[: 3 if grouped else 4]:
        answer = answer.replace(old, new)
    return answer


def passes(references: Sequence[str], verifier: verify.Verifier) -> list[Pass]:
    """Every reference against itself, against itself respelt, and against the next."""
    others = {
        'itself': references,
        'itself, respelt': [respelt(reference) for reference in references],
        'the next': [*references[1:], *references[:1]],
    }
    made = []
    for name, given in others.items():
        pairs = list(zip(given, references, strict=True))
        began = time.perf_counter()
        outcomes = verifier.check((rf'\boxed{{{a}}}', reference) for a, reference in pairs)
        made.append(Pass(name, pairs, outcomes, time.perf_counter() - began))
    return made


def surprises(told: Pass) -> list[tuple[str, str, str]]:
    """(outcome, answer, reference) of a pass's pairs that deserve a look, each once."""
    usual = Outcome.WRONG if told.name == 'the next' else Outcome.RIGHT
    found = {
        (str(outcome), answer, reference): None
        for (answer, reference), outcome in zip(told.pairs, told.outcomes, strict=True)
        if outcome != usual and (told.name != 'the next' or answer != reference)
    }
    return list(found)


def table(made: Sequence[Pass]) -> rich.table.Table:
    shown = rich.table.Table('against', 'pairs', *map(str, Outcome), 'seconds per thousand')
    for told in made:
        counts = [sum(outcome == kind for outcome in told.outcomes) for kind in Outcome]
        rate = 1000 * told.seconds / len(told.pairs)
        shown.add_row(told.name, *map(str, (len(told.pairs), *counts)), f'{rate:.2f}')
    return shown


def main(_) -> None:
    values = flags.FLAGS
    options = loading.load_options(values.source, data_dir=values.data_dir, path=values.path)
    found = loading.load(values.source, split=values.split, **options)
    references = [problem.answer for problem in found][: values.limit]
    with verify.Verifier(num_workers=values.num_workers, timeout_s=values.timeout_s) as verifier:
        made = passes(references, verifier)
    rich.console.Console().print(table(made))
    for told in made:
        for outcome, answer, reference in surprises(told):
            print(f'{told.name}: {outcome}: {answer!r}, reference {reference!r}')


if __name__ == '__main__':
    sources = [source for source in loading.SOURCES if source != 'lab']
    flags.DEFINE_enum('source', None, sources, 'Which problem set.', required=True)
    flags.DEFINE_string('path', '', 'Its folder or file; without it the set is downloaded.')
    flags.DEFINE_string('data_dir', '.cache/data', 'Where prepared data sets are kept.')
    flags.DEFINE_string('split', 'test', 'Which split.')
    flags.DEFINE_integer('num_workers', 1, 'Processes for algebra.', lower_bound=1)
    flags.DEFINE_float('timeout_s', 5.0, 'Seconds of processor time that one pair may take.')
    flags.DEFINE_integer('limit', None, 'Only so many problems, the first.', lower_bound=1)
    cli.run_main(main)
