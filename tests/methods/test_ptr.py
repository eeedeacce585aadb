"""PTR: thoughts before the last one are read and not learnt."""

import random

from elenchus.configs.methods import ptr
from elenchus.data import records
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.stages import actor
from tests.support import fake_engine


def test_earlier_thoughts_have_the_weight_zero():
    problem = fake_engine.problems(1)[0]
    example = actor.refinement(fake_engine.CHAT, problem, rng=random.Random(0))
    last = example.roles == records.ROLES.index('refinement')
    assert {'attempt', 'critique'} <= {records.ROLES[role] for role in example.roles}
    assert not example.loss_mask[~last].any() and example.loss_mask[last].any()


def test_refinement_goes_on_at_test_time():
    settings = build.build(RunSettings, ptr.get_config('default'))
    assert settings.evaluate.num_rounds == 3 and settings.evaluate.refine == 'always'
    assert settings.actor.refinements_per_problem == 3
