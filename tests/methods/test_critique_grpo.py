"""Critique-GRPO: attempt and refinement in one group, and a refinement raises its attempt."""

import numpy as np

from elenchus.configs.methods import critique_grpo
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.rl import advantages
from tests.support import method_cases


def test_where_all_attempts_fail_those_that_could_be_mended_are_raised():
    settings = build.build(RunSettings, critique_grpo.get_config('default')).reinforce
    discount = settings.turns.discount
    rewards = [[0.0, 1.0], [0.0, 0.0]]  # attempts fail; one refinement is right
    returns = [advantages.discounted(row, discount=discount) for row in rewards]
    assert returns == [[0.5, 1.0], [0.0, 0.0]]
    function = advantages.OUTCOMES[settings.advantage.outcome]
    values, _ = method_cases.outcome(function, returns, roles=('attempt', 'refinement'))
    np.testing.assert_allclose(values, [[1, 1], [-1, -1]], atol=1e-4)
    # Without the refinement's return the attempts have no advantage at all.
    values, _ = method_cases.outcome(function, rewards, roles=('attempt', 'refinement'))
    assert not values[:, 0].any() and values[:, 1].all()


def test_the_critique_in_the_episode_is_not_trained():
    settings = build.build(RunSettings, critique_grpo.get_config('default')).reinforce
    assert settings.turns.episode == 'critique'
    assert settings.reward_rules('actor').player == 'actor'
