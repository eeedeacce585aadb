"""Judges attempts: the answer, its correctness and, on the lab, the first error."""

import dataclasses
from collections.abc import Callable, Collection, Sequence

from elenchus.data.grading import answers, extraction, verify
from elenchus.data.lab import task
from elenchus.data.records import Problem, TurnFacts

Judge = Callable[[Sequence[tuple[Problem, str | None]]], list[TurnFacts]]
"""Pairs of (problem, text, or None if it was cut off) -> facts with `answer`, `correct` and
`outcome`, and on the lab also `steps_correct`, `first_error` and `kind`."""


@dataclasses.dataclass(frozen=True)
class AnswerSettings:
    """How the answers of responses are read and compared."""

    markers: tuple[extraction.Marker, ...]  # what may stand before an answer
    workers: int  # processes for algebra; 0: one for each core
    timeout_s: float  # processor time of one pair

    def __post_init__(self):
        if not self.markers:
            raise ValueError(
                f'data.answer.markers=() must name one of {", ".join(extraction.MARKERS)}'
            )
        if self.workers < 0:
            raise ValueError(f'data.answer.workers={self.workers} must be at least 0')
        if not 0 < self.timeout_s < float('inf'):
            raise ValueError(f'data.answer.timeout_s={self.timeout_s} must be above 0 and finite')


def make_judge(
    source: str,
    verifier: verify.Verifier,
    markers: Collection[extraction.Marker] = extraction.MARKERS,
) -> Judge:
    """Returns the judge of a problem source: step by step on the lab, else by final answer.

    `markers` names what may stand before an answer.
    """

    def judge_answers(pairs):
        """Judges by the final answer."""
        checks = [(text or '', problem.answer) for problem, text in pairs]
        outcomes = verifier.check(checks, markers)
        return [
            TurnFacts(
                answer=answers.canonical(answers.extract_answer(text, markers)),
                outcome=str(outcome),
                correct=outcome == verify.Outcome.RIGHT,
            )
            for (text, _), outcome in zip(checks, outcomes, strict=True)
        ]

    def judge_steps(pairs):
        """Judges every line, too."""
        facts = []
        for (problem, text), fact in zip(pairs, judge_answers(pairs), strict=True):
            judgement = task.judge(problem.question, text or '')
            facts.append(
                dataclasses.replace(
                    fact,
                    steps_correct=judgement.correct,
                    first_error=judgement.first_error,
                    kind=judgement.kind,
                )
            )
        return facts

    return judge_steps if source == 'lab' else judge_answers
