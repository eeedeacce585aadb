"""First Try Matters: a turn ends with the line of its first candidate answer."""

import pytest

from elenchus.configs.methods import first_try
from elenchus.sampling import paused_turns
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.sampling.test_paused_turns import CHAT, LINES, sample, trained


@pytest.mark.parametrize(
    ('text', 'goes_on'),
    [
        ('7 + 4 = 11\n', True),
        ('7 + 4 = 11\n#### 11\n', False),
        ('so it is \\boxed{11}.\n', False),
        ('wait, # 4 is wrong\n', True),
    ],
)
def test_a_line_with_an_answer_is_the_last(text, goes_on):
    assert first_try.first_answer(text, None) is goes_on


def test_a_talk_is_cut_at_candidate_one_and_the_cut_is_not_trained():
    settings = build.build(RunSettings, first_try.get_config('default')).sampling
    function = paused_turns.AFTER_PAUSES.find(settings.after_pause, paused_turns.FIELD)
    whole, _ = sample(None)
    turn, engine = sample(function)
    assert CHAT.text(turn) == (LINES[0] + LINES[1])[1:] and CHAT.is_finished(turn)
    assert turn.tokens[:-1] == whole.tokens[: len(turn.tokens) - 1]
    assert trained(turn) == (LINES[0] + LINES[1])[1:]
    # The tokens of the reflection are not sampled.
    assert engine.tokens == turn.num_sampled < whole.num_sampled


def test_without_the_method_nothing_pauses():
    base = build.build(RunSettings, first_try.method.lab.get_config('default')).sampling
    assert (base.pause, base.after_pause) == ('none', 'stop')
