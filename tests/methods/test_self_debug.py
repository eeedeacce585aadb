"""Self-debug: the explanation earns what its refinements become, the refinement its own outcome."""

import pytest

from elenchus.configs.methods import self_debug
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import credit, rewards


@pytest.mark.parametrize(
    ('before', 'after', 'value'),
    [(False, [True, False], 0.5), (True, [False], -1.0), (True, [True], 0.0), (False, [False], 0)],
)
def test_an_explanation_is_worth_what_it_corrects_less_what_it_breaks(before, after, value):
    assert rewards.helpfulness(before, after) == value


def test_critiques_without_a_right_refinement_are_not_imitated():
    assert build.build(RunSettings, self_debug.get_config('default')).critique.filter_successes == 1


def test_the_refinement_alone_is_rewarded_in_the_actors_episode():
    settings = build.build(RunSettings, self_debug.get_config('default')).reinforce
    rules = settings.reward_rules('actor')
    assert credit._shape_rewards([1.0, 0.0], rules, first_phase=False) == [0.0, 0.0]
    assert credit._shape_rewards([0.0, 1.0], rules, first_phase=False) == [0.0, 1.0]
    weights = rewards.weighted_terms(settings.critic_rewards)
    assert weights['helpful'].weight == 1.0
