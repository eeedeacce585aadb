"""The table of stages."""

from elenchus.configs import lab
from elenchus.train.config import run_settings
from elenchus.train.stages import STAGES


def test_every_stage_of_the_settings_can_be_run():
    assert set(lab.get_config().stages) < set(STAGES) == set(run_settings.StageName.__args__)
