"""Judges attempts: the answer, its correctness and, on the lab, the first error."""

import dataclasses
from collections.abc import Callable, Sequence

from elenchus.data.grading import answers, verify
from elenchus.data.lab import task
from elenchus.data.records import Problem, TurnFacts

Judge = Callable[[Sequence[tuple[Problem, str | None]]], list[TurnFacts]]
"""Pairs of (problem, text, or None if it was cut off) -> facts with `answer`, `correct` and
`outcome`, and on the lab also `steps_correct`, `first_error` and `kind`."""


def make_judge(source: str, verifier: verify.Verifier) -> Judge:
    """Returns the judge of a problem source: step by step on the lab, else by final answer."""

    def judge_answers(pairs):
        """Judges by the final answer."""
        checks = [(text or '', problem.answer) for problem, text in pairs]
        outcomes = verifier.check(checks)
        return [
            TurnFacts(
                answer=answers.canonical(answers.extract_answer(text)),
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
