"""A player that nothing rewards is refused; a function of one's own is a reward like any other."""

import pytest

from elenchus.configs import lab, method
from elenchus.train.config import build, checks
from elenchus.train.config.run_settings import RunSettings

FUNCTION = 'elenchus.configs.methods.empo:agreement'
STAGES = {'rewards': method.REINFORCE, 'critic_rewards': method.REINFORCE_CRITIC}


def settings(section, weight, **terms):
    config = lab.get_config('default')
    config.stages = STAGES[section]
    config.reinforce.advantage.step_coef = 0.0
    off = {name: 0.0 for name, value in config.reinforce[section].items() if type(value) is float}
    config.reinforce[section].update(off | terms)
    config.reinforce[section].functions = ((FUNCTION, weight),) if weight is not None else ()
    return build.build(RunSettings, config)


@pytest.mark.parametrize('section', STAGES)
def test_a_function_is_a_reward(section):
    for weight in (1.0, -0.5):
        checks.check_settings(settings(section, weight))
    checks.check_settings(settings(section, None, format=1.0))


@pytest.mark.parametrize('section', STAGES)
def test_functions_of_weight_0_are_none(section):
    for weight in (None, 0.0):
        message = rf'reinforce\.{section} has only weights of 0'
        with pytest.raises(ValueError, match=message) as error:
            checks.check_settings(settings(section, weight))
        assert '\n' not in str(error.value)
