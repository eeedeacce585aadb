"""PersonaMath: rewritten problems are others, and their truth is that of the original."""

import pytest

from elenchus.configs.methods import persona_math
from elenchus.data import records
from elenchus.data.lab import forms, task
from elenchus.sampling.exploration import making
from elenchus.sampling.writing import Notes

PROBLEMS = [
    forms.generate_problem(seed=0, split='train', index=i, form=forms.FORMS[form])
    for i in range(16)
    for form in ('digits', 'tail')
]
TEXT = records.Problem('t', 'Ben has 3 eggs.', '3', '#### 3', 2, 'gsm8k')


@pytest.mark.parametrize('number', [0, 1])
def test_on_the_lab_other_persons_have_the_same_truth(number):
    assert set(persona_math.NAMES) == set(task.NAMES)
    for problem in PROBLEMS:
        ((question, solution),) = persona_math.rewritten(problem, Notes(number))
        new = making.derive_problem(problem, question, solution, name='x')
        assert new.question != problem.question and new.answer == problem.answer
        assert len(new.question.split()) == len(problem.question.split())
        names = [word for word in problem.question.split() if word in task.NAMES]
        others = [word for word in question.split() if word in task.NAMES]
        assert len(set(zip(names, others, strict=True))) == len(set(names)) == len(set(others))


def test_another_round_has_other_persons():
    first, second = (persona_math.rewritten(PROBLEMS[0], Notes(number)) for number in (0, 1))
    assert first != second


def test_elsewhere_the_critic_writes_problem_and_solution():
    assert persona_math.rewritten.writer == 'critic'
    (request,) = persona_math.rewritten(TEXT, Notes())
    assert TEXT.question in request and sum(p in request for p in persona_math.PERSONS) == 1
    said = 'A nurse has 3 eggs.\nSolution:\nThere are 3.\n#### 3'
    ((question, solution),) = persona_math.rewritten(TEXT, Notes(written=(said,)))
    problem = making.derive_problem(TEXT, question, solution, name='0')
    assert (problem.question, problem.answer, problem.level) == ('A nurse has 3 eggs.', '3', 2)
    ((question, solution),) = persona_math.rewritten(TEXT, Notes(written=('no solution',)))
    assert making.derive_problem(TEXT, question, solution, name='0') is None
