"""Annotators that write critiques with knowledge that the critic will not have.

`oracle` knows the reference solution (on the lab, the exact rules); `from_file` looks critiques up.
Annotators by models are in sampling/critique_data/annotators.py.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence

from elenchus.data.critiques import grammars, record_files
from elenchus.data.grading import answers
from elenchus.data.lab import task
from elenchus.data.records import Problem


@dataclasses.dataclass(frozen=True)
class ConstructedAttempt:
    """An attempt to be annotated, and the knowledge of the code that constructed it.

    All lines before `location` are right. Constructions (arXiv 2411.16579): RG1: sampled from
    scratch. RG2: resampled from one line on, at a higher temperature. RG3: a mistake of a known
    kind inserted at one line, then continued.
    """

    problem: Problem
    attempt: str
    construction: str  # 'RG1', 'RG2' or 'RG3'
    location: int | None  # index of a line: the first resampled one (RG2), the mistake (RG3)
    kind: str | None  # of mistakes.kinds(problem), for RG3


@dataclasses.dataclass(frozen=True)
class NoCritique:
    """Replaces a critique that an annotator does not write, with the reason for the data card."""

    reason: str


Annotator = Callable[[Sequence[ConstructedAttempt]], list[str | NoCritique | None]]
"""Constructed attempts -> texts of their critiques; None or a reason where there is none."""


def oracle(attempts: Sequence[ConstructedAttempt]) -> list[str | None]:
    """Annotates by rule on the lab, elsewhere by comparison with the reference solution.

    The critique is None if a problem outside the lab has no reference solution.
    """
    return [
        task.judge(a.problem.question, a.attempt).critique
        if a.problem.source == 'lab'
        else _by_reference(a)
        if a.problem.solution
        else None
        for a in attempts
    ]


def from_file(path: str | os.PathLike) -> Annotator:
    """Returns an annotator that looks critiques up in a file of records (record_files.py).

    A record matches by the problem's id or the question's text, and the attempt's text; white space
    is ignored. Raises ValueError if the file has two critiques of one attempt.
    """
    critiques: dict[tuple[str, str], str] = {}
    for record in record_files.read(path):
        for name in filter(None, (record.problem_id, record.question)):
            key = (_normalize(name), _normalize(record.response))
            if critiques.setdefault(key, record.critique) != record.critique:
                raise ValueError(f'{path}: two critiques of one attempt at {name[:60]!r}; keep one')

    def annotate_from_file(attempts: Sequence[ConstructedAttempt]) -> list[str | None]:
        """Looks up the critiques; None if the file has none."""
        return [
            critiques.get((a.problem.id, text), critiques.get((question, text)))
            for a in attempts
            for question, text in [(_normalize(a.problem.question), _normalize(a.attempt))]
        ]

    return annotate_from_file


def _normalize(text: str) -> str:
    return ' '.join(text.split())


def annotate(problem: Problem, attempt: str) -> str:
    """Returns the oracle's critique of an attempt of unknown construction.

    Raises ValueError if the problem has no reference solution.
    """
    (critique,) = oracle([ConstructedAttempt(problem, attempt, 'RG1', None, None)])
    if critique is None:
        raise ValueError(f'{problem.id}: the oracle needs a reference solution')
    return critique


_EXPLANATIONS = {
    'number': 'A number in this step is wrong.',
    'operands': 'The operands of this step are the wrong way round.',
    'dropped': 'A step that this one needs is missing.',
}


def _by_reference(attempt: ConstructedAttempt) -> str:
    """Writes a critique in the released grammar; it stops at the first wrong step.

    Lines before the location are right, and the line of a known mistake (RG3) is wrong. Any other
    line is right if its last number is in the reference solution, or if it has no number: then
    nothing contradicts it. This is a heuristic; only the lab has exact labels.
    """
    reached = set(map(answers.parse_number, answers.numbers(attempt.problem.solution)))
    *lines, _ = attempt.attempt.rstrip().split('\n')  # the last one states the answer
    num_known_right = 0 if attempt.location is None else attempt.location
    steps = []
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        numbers = answers.numbers(line)
        why = f'It reaches {numbers[-1]}.' if numbers else 'It reaches no number.'
        right = i < num_known_right or not numbers or answers.parse_number(numbers[-1]) in reached
        if i == attempt.location and attempt.construction == 'RG3':
            right, why = False, _EXPLANATIONS.get(attempt.kind, why)
        steps.append(grammars.StepVerdict(line.strip(), right, why))
        if not right:
            break
    # As the judge reads it: models may write more behind their answer.
    answer = answers.extract_answer(attempt.attempt)
    right = (
        all(step.correct for step in steps)
        and answer is not None
        and answers.equivalent(answer, attempt.problem.answer)
    )
    why = f'The answer is {answer}.' if answer else 'There is no answer.'
    return grammars.RELEASED.write(grammars.Critique(tuple(steps), right, why))
