"""PPO: what its file changes, and the published numbers."""

import pytest

from elenchus.configs import method
from elenchus.configs.methods import ppo
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support import method_cases


@pytest.mark.parametrize('base', ['default', 'smoke', 'gsm8k:tiny'])
def test_it_has_the_published_numbers(base):
    s = build.build(RunSettings, ppo.get_config(base)).reinforce
    assert s.reward_rules('actor').reads_values and not s.reward_rules('actor').needs_step_scores
    assert (s.value.gamma, s.value.gae_lambda, s.value.clip, s.value.whiten) == (1, 0.95, 0.2, True)
    o = s.objective
    assert (o.surrogate, o.ratio, o.average, o.kl) == ('clip', 'token', 'token', 'k1')
    assert (o.clip_low, o.clip_high, o.kl_coef, o.on_policy) == (0.2, 0.2, 0.05, False)
    assert not s.reuses_update_logprobs and s.num_epochs == 4


def test_it_changes_advantages_loss_and_epochs_alone():
    config, base = ppo.get_config('default'), method.lab.get_config('default')
    method_cases.undo(config, base, ppo.CHANGES)
    assert build.build(RunSettings, config) == build.build(RunSettings, base)
