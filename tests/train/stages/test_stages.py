"""The table of stages, and where their arguments come from."""

import pytest

from elenchus.configs import lab
from elenchus.train import stages
from elenchus.train.config import run_settings
from elenchus.train.stages import STAGES
from tests.support import fake_run
from tests.support.fake_run import FakeModel


def test_every_stage_of_the_settings_can_be_run():
    assert set(lab.get_config().stages) < set(STAGES) == set(run_settings.StageName.__args__)


@pytest.mark.parametrize(
    ('names', 'complete', 'base'),
    [
        (
            ('base', 'actor', 'critic', 'evaluate'),
            ('base', 'actor', 'critic'),
            FakeModel('00-base'),
        ),
        (('base', 'actor', 'critic', 'evaluate'), ('actor', 'critic'), None),
        (('actor', 'critic', 'evaluate'), ('actor', 'critic'), None),
    ],
)
def test_evaluation_compares_with_the_base_that_the_run_has(tmp_path, names, complete, base):
    config = lab.get_config('smoke')
    config.stages = names
    run = fake_run.make_run(config, tmp_path, fake_run.make_inputs(), complete=complete)
    arguments = stages.evaluate_arguments(run)
    assert arguments['base'] == base
    assert arguments['pair'].actor == FakeModel(f'{names.index("actor"):02d}-actor')
