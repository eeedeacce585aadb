"""Annotators: critiques by something that knows more than the critic will.

Every annotator takes attempts with what their maker knows of them, and gives texts.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence

from elenchus.data.critiques import grammars, record_files
from elenchus.data.grading import answers
from elenchus.data.lab import task
from elenchus.data.records import Problem

CONSTRUCTIONS = ('RG1', 'RG2', 'RG3')
"""How an attempt was made (arXiv 2411.16579): sampled from scratch; sampled hotter from a line on;
with a mistake of a named kind put in at a line, and continued."""


@dataclasses.dataclass(frozen=True)
class Path:
    """An attempt to be criticised, and what its maker knows of it.

    `location` is an index of `attempt.split('\\n')`: the line of the mistake (RG3) or the first
    line sampled hotter (RG2), and all lines before it are right. `kind` is of `mistakes.kinds`.
    """

    problem: Problem
    attempt: str
    construction: str
    location: int | None
    kind: str | None


Annotator = Callable[[Sequence[Path]], list[str | None]]
"""Paths -> the texts of their critiques; None where the annotator has nothing to say of one."""


def oracle(paths: Sequence[Path]) -> list[str | None]:
    """By ground truth on the lab; elsewhere by comparison with the reference and the location.

    None where a problem of the latter has no reference solution.
    """
    return [
        task.judge(path.problem.question, path.attempt).critique
        if path.problem.source == 'lab'
        else _by_reference(path)
        if path.problem.solution
        else None
        for path in paths
    ]


def from_file(path: str | os.PathLike) -> Annotator:
    """Critiques brought in a file (see critique_files): those of the same problem and attempt.

    The problem is told by its id or by its question's text, and texts are the same whatever their
    white space. Raises ValueError where the file has two critiques of one attempt.
    """
    brought: dict[tuple[str, str], str] = {}
    for record in record_files.read(path):
        for name in filter(None, (record.problem_id, record.question)):
            key = (_words(name), _words(record.response))
            if brought.setdefault(key, record.critique) != record.critique:
                raise ValueError(f'{path}: two critiques of one attempt at {name[:60]!r}: keep one')

    def annotator(paths: Sequence[Path]) -> list[str | None]:
        return [
            brought.get((path.problem.id, attempt), brought.get((question, attempt)))
            for path in paths
            for question, attempt in [(_words(path.problem.question), _words(path.attempt))]
        ]

    return annotator


def _words(text: str) -> str:
    return ' '.join(text.split())


def annotate(problem: Problem, attempt: str) -> str:
    """The oracle's critique of an attempt of which nothing is known.

    Raises ValueError where it has none.
    """
    (critique,) = oracle([Path(problem, attempt, 'RG1', None, None)])
    if critique is None:
        raise ValueError(f'{problem.id}: no critique without a reference solution')
    return critique


_TOLD = {
    'number': 'A number in this step is wrong.',
    'operands': 'The operands of this step are the wrong way round.',
    'dropped': 'A step that this one needs is missing.',
}


def _by_reference(path: Path) -> str:
    """A critique in the released grammar, which stops at the first wrong step.

    Lines before the location are right, and the line of a known mistake (RG3) is wrong. Any other
    line is right where the number it ends with is one that the reference has reached too, or where
    it has none, so that nothing contradicts it.
    """
    reached = set(map(answers.parse_number, answers.numbers(path.problem.solution)))
    *lines, final = path.attempt.split('\n')
    known = 0 if path.location is None else path.location
    steps = []
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        numbers = answers.numbers(line)
        told = f'It reaches {numbers[-1]}.' if numbers else 'It reaches no number.'
        right = i < known or not numbers or answers.parse_number(numbers[-1]) in reached
        if i == path.location and path.construction == 'RG3':
            right, told = False, _TOLD.get(path.kind, told)
        steps.append(grammars.StepVerdict(line.strip(), right, told))
        if not right:
            break
    answer = answers.extract_answer(final)
    right = (
        all(step.correct for step in steps)
        and answer is not None
        and answers.equivalent(answer, path.problem.answer)
    )
    told = f'The answer is {answer}.' if answer else 'There is no answer.'
    return grammars.RELEASED.write(grammars.Critique(tuple(steps), right, told))
