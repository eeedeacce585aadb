"""TAR-TVG: reinforcement, fine-tuning of the base on its traces, reinforcement."""

import pytest

from elenchus.configs.methods import tar_tvg
from elenchus.train.config import build, checks, players
from elenchus.train.config.run_settings import RunSettings


@pytest.mark.parametrize('variant', ['default', 'smoke', 'gsm8k:tiny'])
def test_the_three_phases(variant):
    settings = build.build(RunSettings, tar_tvg.get_config(variant))
    checks.check_settings(settings)
    starts = [players.start_of(settings, stage, 'actor') for stage in settings.stages[-4:]]
    assert settings.stages[-4:] == ('reinforce', 'vanilla', 'reinforce_2', 'evaluate')
    assert starts == ['actor', 'reinforce', 'vanilla', 'reinforce_2']
    # A fresh base learns the traces of the first phase.
    assert (settings.improve.restart, settings.improve.responses) == ('base', 'sampled')
