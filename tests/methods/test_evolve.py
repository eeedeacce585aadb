"""EVOLVE: pairs of answers behind the question, and of refinements behind their answer."""

from elenchus.configs.methods import evolve
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support.method_cases import group, last_tokens, talk, written


def answer(number, correct):
    return written('attempt', (number,), correct=correct)


def refinement(attempt, number, correct):
    last = written('refinement', (number,), correct=correct)
    return talk(attempt, written('critique', (2,)), last)


def test_turns_behind_one_prompt_are_compared():
    wrong, other = answer(10, False), answer(11, False)
    rows = [
        talk(wrong),
        talk(answer(12, True)),
        talk(other),
        refinement(wrong, 20, True),
        refinement(wrong, 21, False),
        refinement(other, 22, True),
        refinement(other, 23, None),
    ]
    pairs = evolve.answers_and_refinements([group(*rows)])
    assert last_tokens(pairs) == [((12,), (10,)), ((20,), (21,))]


def test_the_next_round_begins_with_the_model_of_the_last_one():
    settings = build.build(RunSettings, evolve.get_config('default')).prefer
    assert (settings.num_rounds, settings.restart) == (2, 'last')
    assert (settings.loss.kind, settings.loss.nll_coef) == ('dpo', 1.0)
    assert settings.explorer == 'critique_in_the_loop' and settings.prompt == 'conversation'
