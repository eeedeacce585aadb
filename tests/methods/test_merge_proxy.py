"""The merge proxy: the mean of the models of two parts of the data."""

from elenchus.configs.methods import merge_proxy
from elenchus.train.config import build, checks, players
from elenchus.train.config.run_settings import RunSettings


def test_both_parts_begin_with_one_base_and_their_mean_is_evaluated():
    settings = build.build(RunSettings, merge_proxy.get_config('default'))
    checks.check_settings(settings)
    assert settings.average.stages == ('actor', 'vanilla') and settings.average.weights == ()
    assert players.start_of(settings, 'actor', 'actor') == 'base'
    assert settings.improve.restart == 'base' and not settings.improve.demonstrations
    assert players.start_of(settings, 'evaluate', 'actor') == 'average'
    assert {'actor', 'vanilla'} <= set(players.stages_read(settings, 'average'))
