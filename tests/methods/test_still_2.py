"""STILL-2: right and different responses of many rollouts; the base is trained anew."""

from elenchus.configs.methods import still_2
from elenchus.data import records
from elenchus.sampling.exploration import selection
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings


def attempt(tokens, *, correct):
    facts = records.TurnFacts(
        correct=correct, answer='1', passes_barrier=True, origin='attempt', outcome='right'
    )
    turns = (
        records.Turn('question', (5,), (1,)),
        records.Turn('attempt', (6,), tokens, facts=facts),
    )
    return records.Episode('p', 1, turns)


def test_a_round_keeps_right_responses_that_differ():
    settings = build.build(RunSettings, still_2.get_config('default')).improve
    explored = [attempt((1,), correct=True), attempt((1,), correct=True),
                attempt((2,), correct=False), attempt((3,), correct=True)]  # fmt: skip
    kept = selection.curate(
        explored, settings.explore, wrong=False, deduplicate=settings.deduplicate
    )
    assert [e.turns[-1].tokens for e in kept] == [(1,), (3,)]
    assert (settings.num_rounds, settings.restart, settings.demonstrations) == (3, 'base', True)
