"""SCoRe: rewards of the two stages; credit is in tests/train/rl/test_two_turns.py."""

import pytest

from elenchus.configs.methods import score
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import credit


@pytest.mark.parametrize(
    ('first', 'second', 'shaped'),
    [(0.0, 1.0, [0.0, 11.0]), (1.0, 0.0, [1.0, -10.0]), (1.0, 1.0, [1.0, 1.0])],
)
def test_the_second_stage_pays_for_progress_and_the_first_for_the_correction(first, second, shaped):
    rules = build.build(RunSettings, score.get_config('default')).reinforce.reward_rules('actor')
    assert credit._shape_rewards([first, second], rules, first_phase=False) == shaped
    assert credit._shape_rewards([first, second], rules, first_phase=True) == [0.0, second]


def test_the_first_stage_holds_attempts_close_to_the_reference():
    settings = build.build(RunSettings, score.get_config('default')).reinforce
    objective = settings.first_phase_objective
    assert (objective.kl, objective.attempt_kl_coef) == ('k2', 0.1)
    assert 0 < settings.turns.first_phase_steps < settings.num_steps
