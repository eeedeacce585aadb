"""OpenVLThinker: three turns of fine-tuning and reinforcement, each from the one before."""

import pytest

from elenchus.configs.methods import open_vl_thinker
from elenchus.train.config import build, checks, players, stage_fields
from elenchus.train.config.run_settings import RunSettings

CHAIN = {
    'reinforce': 'actor',
    'vanilla': 'reinforce',
    'reinforce_2': 'vanilla',
    'vanilla_2': 'reinforce_2',
    'reinforce_3': 'vanilla_2',
    'evaluate': 'reinforce_3',
}


@pytest.mark.parametrize('variant', ['default', 'smoke'])
def test_every_phase_starts_from_the_one_before(variant):
    settings = build.build(RunSettings, open_vl_thinker.get_config(variant))
    checks.check_settings(settings)
    starts = {stage: players.start_of(settings, stage, 'actor') for stage in CHAIN}
    assert starts == CHAIN
    assert settings.improve.restart == 'base' and settings.improve.num_rounds == 1


def test_a_later_phase_depends_on_all_before_it_and_an_earlier_one_on_none_behind():
    settings = build.build(RunSettings, open_vl_thinker.get_config('smoke'))
    assert {*CHAIN} - {'evaluate'} <= set(stage_fields.closure(settings, 'reinforce_3'))
    assert 'vanilla' not in stage_fields.closure(settings, 'reinforce')
