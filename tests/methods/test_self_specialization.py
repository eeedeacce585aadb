"""Self-Specialization: new instructions from a seed, and adapters that learn them."""

from elenchus.configs.methods import self_specialization
from elenchus.data import records
from elenchus.sampling.exploration import making
from elenchus.sampling.exploration.acceptance import Response
from elenchus.sampling.writing import Notes
from elenchus.train.config import build, checks
from elenchus.train.config.run_settings import RunSettings
from tests.support import fake_engine
from tests.support.method_cases import written

TEXT = records.Problem('t', 'Ben has 3 eggs.', '3', '#### 3', 2, 'gsm8k')


def test_on_the_lab_the_next_instruction_has_other_digits_and_its_own_truth():
    for problem in fake_engine.problems(10):
        ((question, solution),) = self_specialization.similar(problem, Notes())
        new = making.derive_problem(problem, question, solution, name='0')
        assert new is not None and new.question != problem.question
        assert [w for w in question.split() if not w.isdigit()] == [
            w for w in problem.question.split() if not w.isdigit()
        ]


def test_elsewhere_the_model_writes_it_after_the_seed():
    (request,) = self_specialization.similar(TEXT, Notes())
    assert TEXT.question in request and TEXT.solution not in request
    said = 'Eve has 4 hens.\nSolution:\n#### 4'
    assert self_specialization.similar(TEXT, Notes(written=(said,))) == [
        ('Eve has 4 hens.\n', '\n#### 4')
    ]


def test_an_answer_that_comes_twice_is_kept():
    answers = ['4', '5', '4', None]
    turns = [written('attempt', (1,), answer=answer) for answer in answers]
    responses = [Response(TEXT, turn, '', None) for turn in turns]
    assert self_specialization.majority(responses) == [True, False, True, False]
    assert self_specialization.majority(responses[1:]) == [False] * 3


def test_small_adapters_of_the_base_are_trained():
    settings = build.build(RunSettings, self_specialization.get_config('default'))
    checks.check_lora(settings)
    assert settings.improve.lora.rank == 8 and settings.improve.restart == 'base'
    assert settings.actor.lora.rank == 0
