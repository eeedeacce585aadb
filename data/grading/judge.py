"""What is true of an attempt: its answer, whether it is right and, where known, its first error."""

from collections.abc import Callable, Sequence

from elenchus.data.grading import answers, verify
from elenchus.data.lab import task
from elenchus.data.records import Problem

Judge = Callable[[Sequence[tuple[Problem, str | None]]], list[dict]]
"""(problem, text or None where it was cut off) pairs -> facts, each a dict of plain JSON values:
`answer`, `correct`, `outcome`, and for the lab `steps_correct` (every step right), `first_error`,
`kind`."""


def make_judge(source: str, verifier: verify.Verifier) -> Judge:
    """The judge of a problem source: step by step on the lab, by final answer elsewhere."""

    def by_answer(pairs):
        told = [(text or '', problem.answer) for problem, text in pairs]
        outcomes = verifier.check(told)
        return [
            {
                'answer': answers.canonical(answers.extract_answer(text)),
                'outcome': str(outcome),
                'correct': outcome == verify.Outcome.RIGHT,
            }
            for (text, _), outcome in zip(told, outcomes, strict=True)
        ]

    def by_step(pairs):
        facts = by_answer(pairs)
        for (problem, text), fact in zip(pairs, facts, strict=True):
            judgement = task.judge(problem.question, text or '')
            fact |= {
                'steps_correct': judgement.correct,
                'first_error': judgement.first_error,
                'kind': judgement.kind,
            }
        return facts

    return by_step if source == 'lab' else by_answer
