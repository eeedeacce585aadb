"""DeepCritic: 1 for the very line; labels by rollouts."""

import pytest

from elenchus.configs.methods import deepcritic
from elenchus.data import records
from elenchus.sampling.critique_data import step_labels
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import rewards
from tests.support.method_cases import PROBLEM


@pytest.mark.parametrize(
    ('located', 'verdict', 'first_error', 'value'),
    [
        (2, False, 2, 1),
        (1, False, 2, 0),
        (None, True, 2, 0),
        (None, True, None, 1),
        (0, False, None, 0),
    ],
)
def test_the_reward_is_one_if_and_only_if_the_very_line_is_named(
    located, verdict, first_error, value
):
    s = build.build(RunSettings, deepcritic.get_config('default')).reinforce.critic_rewards
    attempt = records.Turn('attempt', (6,), (5,), facts=records.TurnFacts(first_error=first_error))
    facts = records.TurnFacts(located=located, verdict=verdict)
    critique = records.Turn('critique', (7,), (5,), facts=facts)
    (terms,) = rewards.terms(s, [rewards.JudgedTurn(critique, attempt, PROBLEM, 9, 4, str)])
    assert rewards.total(s, terms) == value


def test_labels_are_rollouts_but_on_the_lab():
    counts = {
        name: build.build(RunSettings, deepcritic.get_config(name)).reinforce.num_rollouts
        for name in ('default', 'smoke', 'gsm8k:tiny')
    }
    assert counts == {'default': 0, 'smoke': 0, 'gsm8k:tiny': 8}


def test_a_step_is_wrong_from_which_rollouts_fail():
    options = {'num_rollouts': 8, 'threshold': 0.125, 'correct': False, 'problem': PROBLEM}
    assert step_labels.first_wrong('threshold', {0: 8, 1: 7, 2: 0, 3: 0}, **options) == 2
    assert step_labels.first_wrong('threshold', {0: 8, 1: 7}, **options) is None
