r"""Looks into files of critique records, and converts them from one form to another.

    python -m scripts.tools.critique_records inspect gsm8k.json mine.jsonl --problems train.jsonl
    python -m scripts.tools.critique_records convert gsm8k.json gsm8k.jsonl
    python -m scripts.tools.critique_records convert gsm8k.jsonl prepared

A record is a question, an attempt at it, a critique of the attempt and, where known, a refinement
and how the attempt was made. Three forms are read and written, and told apart by themselves:

    .jsonl    one object a line: question, response, critique and, where known, steps,
              construction, location, kind, refinement, refinement_successes, refinements,
              problem_id, level, correct
    .json     the released form: an array of {instruction, input, output}
    a folder  a prepared TFDS dataset (array_record)

`inspect` prints a data card, one column a file. A verdict is unreadable where it is not clearly
"correct" or "wrong". A critique's form is a full pass, or it stops at the first error. Attempts and
refinements are checked against the reference answer, which is known for generated problems and for
questions that --problems has; GSM8K's own files will do.

`convert` reads IN and writes OUT in the form that OUT's ending names, or --to does.
"""

import collections
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import rich.console
import rich.table
from absl import flags

from elenchus.data.critiques import grammars, record_files
from elenchus.data.critiques.grammars import Critique
from elenchus.data.critiques.record_files import CritiqueRecord
from elenchus.data.grading import answers as answer_lib
from elenchus.data.grading import verify
from elenchus.data.lab import task
from elenchus.data.problems import loading
from elenchus.train.config import build, cli

_NO_STEP = re.compile(r':\s*$|^\s*(?:####|the answer is\b)', re.IGNORECASE)
"""A line that announces steps or only gives the answer."""

FORMS = {'.jsonl': 'jsonl', '.json': 'released', '': 'dataset'}


def inspect(paths: Sequence[str], *, problem_paths: Sequence[str]) -> rich.table.Table:
    """The data cards of some files, side by side."""
    answers = reference_answers(problem_paths)
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        cards = [
            card(record_files.read(path), answers=answers, verifier=verifier) for path in paths
        ]
    columns = [rich.table.Column(path, overflow='fold') for path in paths]
    table = rich.table.Table('', *columns)
    for name in cards[0]:
        table.add_row(name, *(told[name] for told in cards))
    return table


def convert(source: str, target: str, *, form: str | None) -> str:
    """Writes the records of one file in another form; says what was done.

    Raises ValueError where the form is not known by the target's ending.
    """
    ending = pathlib.Path(target).suffix
    if form is None and ending not in FORMS:
        near = build.nearest(ending, FORMS)
        raise ValueError(f'{target}: give an ending of .jsonl, .json or none; nearest: {near!r}')
    if pathlib.Path(source).resolve() == pathlib.Path(target).resolve():
        raise ValueError(f'{source} cannot be converted into itself')
    form = form or FORMS[ending]
    if form == 'dataset':
        if pathlib.Path(source).is_dir():
            raise ValueError(f'{source} is a dataset already')
        target = record_files.prepare(source, data_dir=target)
        return f'{len(record_files.read_dataset(target))} records: {source} -> {target}'
    write = record_files.write_jsonl if form == 'jsonl' else record_files.write_released
    records = record_files.read(source)
    write(target, records)
    return f'{len(records)} records: {source} -> {target}'


def reference_answers(paths: Sequence[str]) -> dict[str, str]:
    """Reference answers by question, of JSONL files of problems.

    Where an answer is a whole solution, as in GSM8K's own files, it is what its last line marks.
    """
    return {
        _words(problem.question): answer_lib.extract_answer(problem.answer) or problem.answer
        for path in paths
        for problem in loading.read_problems(path)
    }


def card(
    records: Sequence[CritiqueRecord], *, answers: Mapping[str, str], verifier: verify.Verifier
) -> dict[str, str]:
    """What is in some records, as named figures in words."""
    read = [grammars.grammar_of(r.critique).parse(r.critique) for r in records]
    made = {
        name: _counts(getattr(record, name) for record in records)
        for name in ('construction', 'kind', 'level')
    }
    sampled = [r for r in records if r.refinements is not None]
    return {
        'records': str(len(records)),
        'different questions': str(len({_words(r.question) for r in records})),
        **_critique_figures(records, read),
        **made,
        'location known': _share(sum(r.location is not None for r in records), len(records)),
        'attempt correct, as recorded': _counts(r.correct for r in records),
        'sampled refinements right': _share(
            sum(r.refinement_successes or 0 for r in sampled), sum(r.refinements for r in sampled)
        ),
        **_truth_figures(records, read, answers=answers, verifier=verifier),
    }


def _critique_figures(
    records: Sequence[CritiqueRecord], read: Sequence[Critique]
) -> dict[str, str]:
    """How critiques parse, what their verdicts are, and which of the two forms they have."""
    steps = [step.correct for critique in read for step in critique.steps]
    finals = [critique.final_correct for critique in read]
    whole = [
        critique.final_correct is not None and all(s.correct is not None for s in critique.steps)
        for critique in read
    ]
    return {
        'final verdict readable': _share(len(finals) - finals.count(None), len(read)),
        'every verdict readable': _share(sum(whole), len(read)),
        'unreadable in records': ', '.join(
            str(number) for number, clear in enumerate(whole, start=1) if not clear
        ),
        'final verdicts': _counts(map(_verdict, finals)),
        'step verdicts': _counts(map(_verdict, steps)),
        'form': _counts(map(_form, records, read)),
    }


def _form(record: CritiqueRecord, critique: Critique) -> str:
    """The form of a critique; one that ends at a wrong last step is a full pass too."""
    first = grammars.first_error(critique)
    lines = [line for line in record.steps if line.strip() and not _NO_STEP.search(line)]
    if grammars.is_full_pass(critique, len(lines)):
        return 'full pass'
    if first is None:
        return 'no error, not every step'
    return 'stops at first error' if first == len(critique.steps) - 1 else 'full pass'


def _truth_figures(
    records: Sequence[CritiqueRecord],
    read: Sequence[Critique],
    *,
    answers: Mapping[str, str],
    verifier: verify.Verifier,
) -> dict[str, str]:
    """Attempts and refinements against the reference answers that are known."""
    known = [(r, c, a) for r, c in zip(records, read, strict=True) if (a := _answer(r, answers))]
    attempts = verifier.check([(record.response, answer) for record, _, answer in known])
    refined = verifier.check([(r.refinement, answer) for r, _, answer in known if r.refinement])
    agreed = [
        critique.final_correct is (outcome == verify.Outcome.RIGHT)
        for (_, critique, _), outcome in zip(known, attempts, strict=True)
    ]
    return {
        'reference answer known': _share(len(known), len(records)),
        'attempts, by reference': _counts(attempts),
        'refinements, by reference': _counts(refined),
        'final verdict is true': _share(sum(agreed), len(known)),
    }


def _answer(record: CritiqueRecord, answers: Mapping[str, str]) -> str | None:
    if (record.problem_id or '').startswith('lab/'):
        return answer_lib.extract_answer(task.solve(record.question))
    return answers.get(_words(record.question))


def _verdict(correct: bool | None) -> str:
    return {True: 'correct', False: 'wrong', None: 'unreadable'}[correct]


def _counts(values: Iterable) -> str:
    """Each value with its count and share, the most frequent first."""
    counts = collections.Counter('unknown' if value is None else str(value) for value in values)
    total = counts.total()
    return '\n'.join(f'{v}: {n} ({100 * n / total:.1f} %)' for v, n in counts.most_common())


def _share(part: int, whole: int) -> str:
    return f'{part} of {whole} ({100 * part / whole:.1f} %)' if whole else ''


def _words(text: str) -> str:
    return ' '.join(text.split())


def _run(command: str, arguments: Sequence[str]) -> None:
    """One command. Raises ValueError on an unknown one, or where its arguments are not given."""
    values = flags.FLAGS
    if command not in ('inspect', 'convert'):
        near = build.nearest(command, ('inspect', 'convert'))
        raise ValueError(f'{command!r} is neither inspect nor convert; nearest: {near}')
    if command == 'inspect' and arguments:
        table = inspect(arguments, problem_paths=values.problems)
        rich.console.Console().print(table)
    elif command == 'convert' and len(arguments) == 2:
        print(convert(*arguments, form=values.to))
    else:
        needed = 'one FILE or more' if command == 'inspect' else 'IN and OUT'
        raise ValueError(f'{command} needs {needed}; --help shows examples')


if __name__ == '__main__':
    flags.DEFINE_list(
        'problems',
        [],
        'inspect: JSONL files of problems (question, answer) with the reference answers, separated '
        'by commas.',
    )
    flags.DEFINE_enum(
        'to', None, sorted(FORMS.values()), "convert: the form of OUT, whatever its name's ending."
    )

    def main(argv):
        _run(argv[1] if len(argv) > 1 else '', argv[2:])

    cli.run_main(main)
