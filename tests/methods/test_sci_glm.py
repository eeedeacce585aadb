"""SciGLM: one revision of what is wrong, by one who knows the answer, and a filter by scores."""

import dataclasses

from elenchus.configs.methods import sci_glm
from elenchus.sampling.exploration import explorers, selection
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support import fake_engine
from tests.support.rollout_cases import METHOD

PROBLEMS = fake_engine.problems(4)
SETTINGS = build.build(RunSettings, sci_glm.get_config('default')).improve


def play(role, request, seed):
    """Attempts that are wrong at every second problem, and right refinements."""
    assert role != 'critique', 'on the lab the oracle reflects'
    solution = fake_engine.rest_of_solution(request, role)
    is_wrong = role == 'attempt' and request.id % 2
    return fake_engine.change_last_digit(solution) if is_wrong else solution


def test_exactly_what_is_wrong_is_revised_once():
    models = fake_engine.players(fake_engine.RuleEngine(play))
    explored, _ = explorers.explore(
        SETTINGS.explore, models, PROBLEMS, explorer='interactive', method=METHOD, seed=0,
        first_id=0,
    )  # fmt: skip
    assert [e.turns[-1].role for e in explored] == ['attempt'] * 4 + ['refinement'] * 2
    assert [e.problem_id for e in explored[4:]] == [PROBLEMS[1].id, PROBLEMS[3].id]
    kept = selection.curate(explored, SETTINGS.explore, wrong=False, deduplicate=True)
    assert sorted(e.problem_id for e in kept) == sorted(p.id for p in PROBLEMS)


def test_the_classifier_leaves_out_what_is_poor():
    models = fake_engine.players(fake_engine.RuleEngine(play))
    explored, _ = explorers.explore(
        SETTINGS.explore, models, PROBLEMS[::2], explorer='vanilla', method=METHOD, seed=0,
        first_id=[0, 2],
    )  # fmt: skip
    scored = [e.with_turn_facts('attempt', score=s) for e, s in zip(explored, (0.5, 0.4))]  # noqa: B905
    chosen = selection.keep_above_threshold(scored, threshold=SETTINGS.threshold, keep=5)
    assert chosen == scored[:1] and SETTINGS.weighting == 'threshold'
    assert dataclasses.replace(SETTINGS, weighting='keep') != SETTINGS
