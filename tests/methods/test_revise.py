"""ReVISE: the four forms of its pairs."""

from elenchus.configs.methods import revise
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support.method_cases import group, last_tokens, talk, written

END = 3
WRONG = written('attempt', (10, END), correct=False)
RIGHT = written('attempt', (11, END), correct=True)
CUT_OFF = written('attempt', (12, 13), correct=False)
CRITIQUE = written('critique', (2, END))


def refined(attempt, correct=True):
    return talk(attempt, CRITIQUE, written('refinement', (14, END), correct=correct))


def test_a_right_answer_ends_and_a_wrong_one_goes_on_to_the_right_one():
    mark = refined(WRONG).turns[-1].header[0]
    rows = [talk(WRONG), talk(RIGHT), refined(WRONG), refined(WRONG, False), refined(CUT_OFF)]
    pairs = revise.verify_and_correct([group(*rows)])
    assert last_tokens(pairs) == [
        ((11, END), (11, mark)),
        ((10, mark, 14, END), (10, END)),
    ]
    for chosen, rejected, _ in pairs:
        assert [turn.role for turn in chosen.turns] == ['question', 'attempt']
        assert [turn.role for turn in rejected.turns] == ['question', 'attempt']


def test_a_right_attempt_that_was_cut_off_is_in_no_pair_and_its_last_token_no_end():
    whole, cut_off = talk(RIGHT), talk(written('attempt', (15, 16), correct=True))
    rows = [refined(WRONG), whole, refined(WRONG)]
    pairs = revise.verify_and_correct([group(cut_off, *rows)])
    assert last_tokens(pairs) == last_tokens(revise.verify_and_correct([group(*rows)]))


def test_without_a_refinement_or_a_right_turn_there_is_no_pair():
    assert not revise.verify_and_correct([group(talk(RIGHT))])
    assert not revise.verify_and_correct([group(talk(WRONG), refined(WRONG, False))])


def test_what_stands_before_the_mark_is_not_learnt():
    settings = build.build(RunSettings, revise.get_config('default')).prefer
    assert settings.mask_common and settings.loss.nll_coef == 1.0
