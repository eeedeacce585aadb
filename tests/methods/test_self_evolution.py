"""SELF: what the feedback calls correct is trained on, whether it is right or not."""

import dataclasses

from elenchus.configs.methods import self_evolution
from elenchus.sampling.exploration import explorers, selection
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support import fake_engine
from tests.support.rollout_cases import METHOD

PROBLEMS = fake_engine.problems(4)
EXPLORE = build.build(RunSettings, self_evolution.get_config('default')).improve.explore


def play(role, request, seed):
    """Attempts say 1 or 2, refinements 3 or 4; the feedback calls 1 and 3 correct."""
    if role == 'critique':
        said = fake_engine.last_text(request, 'attempt')[-1]
        return fake_engine.ids_of(f'answer : {"correct" if said in "13" else "wrong"}')
    first = 1 if role == 'attempt' else 3
    return fake_engine.ids_of(f'#### {first + request.id % 2}')


def test_the_data_are_what_the_feedback_accepts():
    settings = dataclasses.replace(EXPLORE, num_attempts=3, keep=9, keep_refined=9)
    models = fake_engine.players(fake_engine.RuleEngine(play))
    explored, _ = explorers.explore(
        settings, models, PROBLEMS, explorer='critique_in_the_loop', method=METHOD, seed=0,
        first_id=0,
    )  # fmt: skip
    kept = selection.curate(explored, settings, wrong=False, deduplicate=False)
    said = [fake_engine.CHAT.text(e.turns[-1])[-1] for e in kept]
    assert set(said) == {'1', '3'}
    accepted = [e for e in explored if fake_engine.CHAT.text(e.turns[-1])[-1] in '13']
    assert len(kept) == len(accepted)
    right = {bool(e.response.facts.correct) for e in kept}
    assert False in right  # a wrong response that the feedback likes is trained on, too


def test_the_data_of_the_skills_stay_in_every_round():
    s = build.build(RunSettings, self_evolution.get_config('default'))
    assert s.improve.demonstrations and s.actor.refinements_per_problem > 0
    assert s.improve.explore.accept == 'critic' and s.critic.start == 'actor'
