"""RefineBench: five turns, from the same attempts, refined whatever the verdict."""

from elenchus.configs.evaluations import refine_bench
from elenchus.sampling.test_time import gates
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support import method_cases


def test_every_attempt_is_refined_in_five_turns_beside_the_oracle():
    s = build.build(RunSettings, refine_bench.get_config('default')).evaluate
    assert s.num_rounds == 5 and s.oracle
    (group,) = method_cases.groups([({'correct': True}, {'verdict': True})])
    assert gates.asks_for_refinement(group[0], s.refine)
    assert not gates.asks_for_refinement(group[0], 'wrong')
