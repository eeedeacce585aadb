"""Solutions whose first wrong step is known, as benchmarks of critics publish them.

ProcessBench (arXiv 2412.06559), BIG-Bench Mistake (arXiv 2311.08516) and MR-GSM8K (arXiv
2312.17080) count steps from 0, 0 and 1; here the first step is 0, and None says that none is wrong.
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from elenchus.data.critiques import step_labels
from elenchus.data.files import jsonl, row_files
from elenchus.data.files.text_files import unix_lines


class LabelledSolution(NamedTuple):
    """A question and a solution in steps, with the truth about them."""

    id: str
    question: str
    steps: tuple[str, ...]
    first_error: int | None  # None: no step is wrong
    correct: bool  # the final answer is right


class Form(NamedTuple):
    """A form of rows: the fields that it needs, and their conversion."""

    name: str
    needed: tuple[str, ...]
    read: Callable[..., LabelledSolution]  # (row, *, id)


def read_solutions(path: str | os.PathLike) -> list[LabelledSolution]:
    """Reads JSON, JSONL or Parquet rows of one of FORMS.

    Raises ValueError that names the file, the row and the field.
    """
    rows = row_files.read_rows(path)
    if not rows:
        raise ValueError(f'{path} has no rows')
    form = next((f for f in FORMS if all(n in rows[0].value for n in f.needed)), None)
    if form is None:
        listed = '; '.join(f'{f.name}: {", ".join(f.needed)}' for f in FORMS)
        raise ValueError(f'{path}: rows have none of these sets of fields: {listed}')
    stem = os.path.splitext(os.path.basename(path))[0]
    return [
        jsonl.at_place(row.place, functools.partial(_read, form, id=f'{stem}/{i}'), row.value)
        for i, row in enumerate(rows)
    ]


def of_processbench(row: Mapping[str, Any], *, id: str) -> LabelledSolution:
    """Converts a row of ProcessBench: `label` is the first wrong step, -1 is none."""
    fields = step_labels.of_processbench(row)
    steps = tuple(map(unix_lines, fields['steps']))
    first = fields.get('location')
    return _checked(
        LabelledSolution(
            fields.get('problem_id', id), fields['question'], steps, first, fields['correct']
        )
    )


def of_bigbench_mistake(row: Mapping[str, Any], *, id: str) -> LabelledSolution:
    """Converts a row of BIG-Bench Mistake: `mistake_index` is the first wrong step, null none."""
    answer, target = (str(row[name]).strip() for name in ('answer', 'target'))
    return _checked(
        LabelledSolution(
            id, row['input'], _steps(row, 'steps'), row['mistake_index'], answer == target
        )
    )


def of_mr_gsm8k(row: Mapping[str, Any], *, id: str) -> LabelledSolution:
    """Converts a row of MR-GSM8K: the first wrong step counts from 1, and right ones have none."""
    steps, words = _steps(row, 'model_output_steps'), {'correct': True, 'wrong': False}
    judged = [row[f'model_output_{what}_correctness'] for what in ('answer', 'solution')]
    if not all(isinstance(word, str) and word in words for word in judged):
        raise ValueError(f"correctness={judged} must be 'correct' or 'wrong'")
    answer, solution = (words[word] for word in judged)
    number = row['model_output_solution_first_error_step']
    first = None if solution else number - 1 if type(number) is int else number
    id = id if row.get('uuid') is None else str(row['uuid'])
    return _checked(LabelledSolution(id, row['question'], steps, first, answer))


FORMS = (
    Form('ProcessBench', ('problem', 'steps', 'label', 'final_answer_correct'), of_processbench),
    Form(
        'BIG-Bench Mistake',
        ('input', 'steps', 'answer', 'target', 'mistake_index'),
        of_bigbench_mistake,
    ),
    Form(
        'MR-GSM8K',
        (
            *('question', 'model_output_steps', 'model_output_answer_correctness'),
            *('model_output_solution_correctness', 'model_output_solution_first_error_step'),
        ),
        of_mr_gsm8k,
    ),
)


def _checked(solution: LabelledSolution) -> LabelledSolution:
    """Returns a solution. Raises ValueError if a field has another type or the step is none."""
    question, steps, first = solution.question, solution.steps, solution.first_error
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f'the question {question!r} is not text')
    if first is not None and (type(first) is not int or not 0 <= first < len(steps)):
        raise ValueError(f'the first wrong step {first!r} must be one of the {len(steps)} steps')
    return solution._replace(question=unix_lines(question))


def _read(form: Form, row: Mapping[str, Any], *, id: str) -> LabelledSolution:
    """Reads a row of a form. Raises ValueError if it lacks a field."""
    missing = [name for name in form.needed if name not in row]
    if missing:
        raise ValueError(f'missing field {missing[0]!r} of {form.name}')
    return form.read(row, id=id)


def _steps(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    steps = row[name]
    if not isinstance(steps, list) or not steps or not all(isinstance(s, str) for s in steps):
        raise ValueError(f'{name} must be a list of texts that is not empty')
    return tuple(map(unix_lines, steps))
