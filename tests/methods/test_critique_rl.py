"""Critique-RL: rewards of the two stages."""

import pytest

from elenchus.configs.methods import critique_rl
from elenchus.data import records
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import rewards
from tests.support.method_cases import PROBLEM


def reward(settings, *, verdict, correct, helpful):
    attempt = records.Turn('attempt', (6,), (5,), facts=records.TurnFacts(correct=correct))
    facts = records.TurnFacts(verdict=verdict, helpful=helpful)
    turn = rewards.JudgedTurn(
        records.Turn('critique', (7,), (5,), facts=facts), attempt, PROBLEM, 9, 4, str
    )
    (values,) = rewards.terms(settings, [turn])
    return rewards.total(settings, values)


@pytest.mark.parametrize(
    ('verdict', 'correct', 'helpful', 'second', 'first'),
    [
        (False, False, 1.0, 1.5, 1.0),
        (False, False, 0.0, 0.5, 1.0),
        (True, False, 0.0, 0.0, 0.0),
        (False, True, -1.0, -1.0, 0.0),
        (True, True, 0.0, 0.5, 1.0),
    ],
)
def test_helping_is_paid_in_the_second_stage_and_judging_in_both(
    verdict, correct, helpful, second, first
):
    config = critique_rl.get_config('default')
    two = build.build(RunSettings, config).reinforce
    facts = {'verdict': verdict, 'correct': correct, 'helpful': helpful}
    assert reward(two.critic_rewards, **facts) == second
    assert (two.objective.kl, two.refine) == ('k3', 'wrong')
    config.reinforce.critic_rewards.update(helpful=0.0, verdict=1.0)
    one = build.build(RunSettings, config).reinforce
    assert reward(one.critic_rewards, **facts) == first
