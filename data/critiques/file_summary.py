"""Summary of a file of critique records: counts and shares that describe it."""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence

import rich.emoji
import rich.table
import rich.text

from elenchus.data.critiques import grammars, record_files
from elenchus.data.critiques.grammars import Critique
from elenchus.data.critiques.record_files import CritiqueRecord
from elenchus.data.grading import answers as answer_lib
from elenchus.data.grading import verify
from elenchus.data.lab import task
from elenchus.data.problems import loading
from elenchus.data.text.printable import printable

_NO_STEP = re.compile(r':\s*$|^\s*(?:####|the answer is\b)', re.IGNORECASE)
"""Matches lines of a response that announce steps or only state the answer."""


def compare_files(paths: Sequence[str], *, problem_paths: Sequence[str]) -> rich.table.Table:
    """Summaries of several files, one column per file.

    Args:
        problem_paths: JSONL files of problems with the reference answers.
    """
    answers = reference_answers(problem_paths)
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        cards = [
            summarise(record_files.read(path), answers=answers, verifier=verifier) for path in paths
        ]
    columns = [rich.table.Column(_cell(path), overflow='fold') for path in paths]
    table = rich.table.Table('', *columns)
    for name in cards[0]:
        table.add_row(name, *(_cell(card[name]) for card in cards))
    return table


def _cell(text: str) -> str | rich.text.Text:
    """Returns untrusted text as a cell, without effect as rich's markup or on the terminal."""
    plain = printable(text)
    is_plain = '[' not in plain and rich.emoji.Emoji.replace(plain) == plain
    return plain if is_plain else rich.text.Text(plain)


def reference_answers(paths: Sequence[str]) -> dict[str, str]:
    """Reference answers by question, from files of problems; those of GSM8K are accepted too."""
    return {
        _normalise(problem.question): problem.answer
        for path in paths
        for problem in loading.read_problems(path)
    }


def summarise(
    records: Sequence[CritiqueRecord], *, answers: Mapping[str, str], verifier: verify.Verifier
) -> dict[str, str]:
    """Figures that describe the records, as text by name; '' where nothing could be counted."""
    critiques = [grammars.grammar_of(r.critique).parse(r.critique) for r in records]
    field_counts = {
        name: _counts(getattr(record, name) for record in records)
        for name in ('construction', 'kind', 'level')
    }
    sampled = [r for r in records if r.refinements is not None]
    return {
        'records': str(len(records)),
        'different questions': str(len({_normalise(r.question) for r in records})),
        **_critique_figures(records, critiques),
        **field_counts,
        'location known': _share(sum(r.location is not None for r in records), len(records)),
        'attempt correct, as recorded': _counts(r.correct for r in records),
        'sampled refinements right': _share(
            sum(r.refinement_successes or 0 for r in sampled), sum(r.refinements for r in sampled)
        ),
        **_truth_figures(records, critiques, answers=answers, verifier=verifier),
    }


def _critique_figures(
    records: Sequence[CritiqueRecord], critiques: Sequence[Critique]
) -> dict[str, str]:
    """Readability of the critiques, their verdicts, and their forms."""
    steps = [step.correct for critique in critiques for step in critique.steps]
    finals = [critique.final_correct for critique in critiques]
    readable = [
        critique.final_correct is not None and all(s.correct is not None for s in critique.steps)
        for critique in critiques
    ]
    return {
        'final verdict readable': _share(len(finals) - finals.count(None), len(critiques)),
        'every verdict readable': _share(sum(readable), len(critiques)),
        'unreadable in records': ', '.join(
            str(number) for number, is_readable in enumerate(readable, start=1) if not is_readable
        ),
        'final verdicts': _counts(map(_verdict, finals)),
        'step verdicts': _counts(map(_verdict, steps)),
        'form': _counts(map(_form, records, critiques)),
    }


def _form(record: CritiqueRecord, critique: Critique) -> str:
    """Form of a critique: full pass, or stopped at the first error."""
    first = grammars.first_error(critique)
    lines = [line for line in record.steps if line.strip() and not _NO_STEP.search(line)]
    if grammars.is_full_pass(critique, len(lines)):
        return 'full pass'
    if first is None:
        return 'no error, not every step'
    # A critique that ends at a wrong last step was recognised as a full pass above.
    return 'stops at first error' if first == len(critique.steps) - 1 else 'full pass'


def _truth_figures(
    records: Sequence[CritiqueRecord],
    critiques: Sequence[Critique],
    *,
    answers: Mapping[str, str],
    verifier: verify.Verifier,
) -> dict[str, str]:
    """Outcomes of attempts and refinements, for the records with a known reference answer."""
    known = [
        (record, critique, answer)
        for record, critique in zip(records, critiques, strict=True)
        if (answer := _reference_answer(record, answers))
    ]
    attempts = verifier.check([(record.response, answer) for record, _, answer in known])
    refined = verifier.check([(r.refinement, answer) for r, _, answer in known if r.refinement])
    verdict_is_true = [
        critique.final_correct is (outcome == verify.Outcome.RIGHT)
        for (_, critique, _), outcome in zip(known, attempts, strict=True)
    ]
    return {
        'reference answer known': _share(len(known), len(records)),
        'attempts, by reference': _counts(attempts),
        'refinements, by reference': _counts(refined),
        'final verdict is true': _share(sum(verdict_is_true), len(known)),
    }


def _reference_answer(record: CritiqueRecord, answers: Mapping[str, str]) -> str | None:
    is_of_lab = (record.problem_id or '').startswith('lab/')  # these can be solved here
    if is_of_lab and task.is_solvable(record.question):
        return answer_lib.extract_answer(task.solve(record.question))
    return answers.get(_normalise(record.question))


def _verdict(correct: bool | None) -> str:
    return {True: 'correct', False: 'wrong', None: 'unreadable'}[correct]


def _counts(values: Iterable) -> str:
    """One line per value with its count and share, most frequent first."""
    counts = collections.Counter('unknown' if value is None else str(value) for value in values)
    total = counts.total()
    return '\n'.join(f'{v}: {n} ({100 * n / total:.1f} %)' for v, n in counts.most_common())


def _share(part: int, total: int) -> str:
    return f'{part} of {total} ({100 * part / total:.1f} %)' if total else ''


def _normalise(text: str) -> str:
    """The text with single spaces, since files differ in line breaks."""
    return ' '.join(text.split())
