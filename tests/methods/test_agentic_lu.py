"""AgenticLU: the clarification that leads to the answer against the one that does not."""

from elenchus.configs.methods import agentic_lu
from elenchus.train import pair_rules
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support.method_cases import group, last_tokens, talk, written


def test_the_worth_of_a_clarification_is_what_is_right_after_it():
    attempt = written('attempt', (9,), correct=False)
    rows = [talk(attempt, written('critique', (i,), helpful=h)) for i, h in enumerate([0, 1, -0.5])]
    rule = pair_rules.PAIR_RULES[agentic_lu.CHANGES['prefer.pairs']]
    assert last_tokens(rule([group(*rows)])) == [((1,), (2,))]


def test_it_trains_the_critic_on_rows_that_hold_two_conversations():
    settings = build.build(RunSettings, agentic_lu.get_config('default'))
    assert 'prefer_critic' in settings.stages and settings.prefer.num_refinements == 2
    assert settings.prefer.length == 2 * settings.train.length
