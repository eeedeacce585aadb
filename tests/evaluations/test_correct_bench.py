"""CorrectBench: strategies are paired with the majority at equal tokens."""

from elenchus.configs.evaluations import correct_bench
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings


def test_correction_and_voting_both_run():
    """tests/train/stages/test_evaluate.py shows the pairing by cost."""
    s = build.build(RunSettings, correct_bench.get_config('default')).evaluate
    assert s.num_attempts >= 2 and s.num_rounds >= 2 and s.refine == 'wrong'
