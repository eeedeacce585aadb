"""Made problems: their answers, what is left out, and who solves those of the lab."""

import dataclasses

import pytest

from elenchus.data import records
from elenchus.data.lab import task
from elenchus.sampling.exploration import making
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.writing import Notes
from tests.support import fake_engine
from tests.support.rollout_cases import METHOD

PROBLEMS = fake_engine.problems(5)
TEXT = records.Problem('t', 'ben 1 ; ben ?', '1', '#### 1', 3, 'jsonl')


def make(tmp_path, body, problems, answer=lambda request: '#### 4'):
    path = tmp_path / f'mine_{len(list(tmp_path.iterdir()))}.py'
    path.write_text(f'def mine(problem, notes):\n    {body}\n')
    engine = fake_engine.AnsweringEngine(answer)
    return making.make_problems(
        fake_engine.players(engine),
        [(problem, Notes(number=2)) for problem in problems],
        reference=f'{path}:mine',
        spec=SampleSpec(1, METHOD, 0, 0),
        room=None,
    )


def test_a_problem_of_the_lab_is_solved_by_the_labs_solver(tmp_path):
    derived, counts = make(
        tmp_path,
        'return [(problem.question.replace("+", "-"), "#### 77")]',
        PROBLEMS,
    )
    changed = [p for p in PROBLEMS if '+' in p.question]
    assert counts == {
        'new': len(changed),
        'repeated': len(PROBLEMS) - len(changed),
        'without_answer': 0,
        'too_long': 0,
    }
    for new, old in zip(derived, changed, strict=True):
        assert new.question == old.question.replace('+', '-') and '+' not in new.question
        assert new.solution == task.solve(new.question)
        assert new.answer == new.solution.rsplit(' ', 1)[1]
        assert (new.level, new.source) == (old.level, old.source)
        assert new.id.startswith(f'{old.id}/derived/2-')
    assert len({p.id for p in derived}) == len(derived)


@pytest.mark.parametrize(
    'question', ['ben ?', 'ben : eve + 1 ; ben ?', 'gold', '', 'eve x ; eve ?']
)
def test_what_the_labs_solver_cannot_solve_is_dropped(tmp_path, question):
    derived, counts = make(tmp_path, f'return [({question!r}, "#### 1")]', PROBLEMS[:1])
    assert derived == [] and counts['without_answer'] == 1


def test_elsewhere_the_answer_is_that_of_the_solution(tmp_path):
    body = 'return [("ben 2 ; ben ?", notes.written[0])] if notes.written else [problem.question]'
    ((problem,), counts) = make(tmp_path, body, [TEXT])
    assert problem == dataclasses.replace(
        TEXT, id='t/derived/2-0', question='ben 2 ; ben ?', answer='4', solution='#### 4'
    )
    assert counts['new'] == 1
    derived, counts = make(tmp_path, 'return [("ben 2 ; ben ?", "ben")]', [TEXT])
    assert derived == [] and counts['without_answer'] == 1


def test_questions_that_were_there_or_are_too_long_are_dropped(tmp_path):
    body = (
        'return [("ben 2 ; ben ?", "#### 2")] * 2 + [(problem.question, "#### 1")]'
        ' + [("ben 3 ; eve 4 ; ben ?", "#### 3")]'
    )
    derived, counts = make(tmp_path, body, [TEXT])
    assert [p.question for p in derived] == ['ben 2 ; ben ?']
    assert counts == {'new': 1, 'repeated': 2, 'without_answer': 0, 'too_long': 1}


@pytest.mark.parametrize(
    'returned', ['3', '"text"', '["a", "b"]', '[("a",)]', '[("a", 1)]', '{"a": "b"}']
)
def test_what_are_no_problems_is_an_error_of_one_line(tmp_path, returned):
    with pytest.raises(ValueError, match=r'it must return \[\(question, solution\), \.\.\.\]') as e:
        make(tmp_path, f'return {returned}', [TEXT])
    assert str(e.value).startswith('improve.make: mine (') and '\n' not in str(e.value)


@pytest.mark.parametrize('returned', ['None', '[]', '()'])
def test_a_problem_may_make_none(tmp_path, returned):
    assert make(tmp_path, f'return {returned}', [TEXT])[0] == []
