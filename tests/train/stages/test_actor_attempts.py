"""Attempts after guides: figures by name, the groups for measures, and the tokens of all."""

import dataclasses
import types

from elenchus.configs import lab
from elenchus.data import records
from elenchus.train.config import build
from elenchus.train.config.evaluate_settings import EvaluateSettings
from elenchus.train.stages import actor_attempts
from tests.support.rollout_cases import PROBLEMS

SETTINGS = build.build(EvaluateSettings, lab.get_config('smoke').evaluate)


def attempts_of(problems, *, correct):
    """Two attempts at each problem."""
    return [
        records.Episode(
            problem.id,
            problem.level,
            (records.Turn('attempt', (6,), (5,), facts=records.TurnFacts(correct=correct)),),
        )
        for problem in problems
        for _ in range(2)
    ]


def evaluate(monkeypatch, *conditions):
    guides = []

    def sample_actor(actor, problems, *, name, condition, **_):
        part = types.SimpleNamespace(items=problems[:1])
        found = actor_attempts.guides_of(condition, None, part, samplers=None, seed=0)
        guides.append((name, *found))
        return attempts_of(problems, correct=name.endswith('solution')), 7

    monkeypatch.setattr(actor_attempts, 'sample_actor', sample_actor)
    settings = dataclasses.replace(SETTINGS, conditions=conditions)
    options = {'settings': settings, 'samplers': None, 'seed': 0, 'stage': None}
    return guides, actor_attempts.evaluate_conditions(None, PROBLEMS, **options)


def test_each_guide_has_figures_and_groups_by_its_name(monkeypatch):
    guides, (figures, groups, tokens) = evaluate(monkeypatch, 'answer', 'solution')
    assert guides == [
        ('conditions/answer', f'#### {PROBLEMS[0].answer}'),
        ('conditions/solution', PROBLEMS[0].solution),
    ]
    assert list(figures['conditions']) == list(groups) == ['answer', 'solution'] and tokens == 14
    for name, right in (('answer', 0.0), ('solution', 1.0)):
        assert figures['conditions'][name]['tokens'] == 7
        assert [group.problem for group in groups[name]] == PROBLEMS
        assert all(e.attempt.facts.correct == right for g in groups[name] for e in g)


def test_without_guides_nothing_is_sampled(monkeypatch):
    assert evaluate(monkeypatch) == ([], ({}, {}, 0))
