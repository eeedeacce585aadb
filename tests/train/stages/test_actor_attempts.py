"""Attempts after guides: figures by name, the groups for measures, and the tokens of all."""

import dataclasses
import types

import pytest

from elenchus.configs import lab
from elenchus.data import records
from elenchus.train.config import build, run_settings
from elenchus.train.config.evaluate_settings import EvaluateSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.stages import actor_attempts
from tests.support import fake_engine, fake_run
from tests.support.fake_engine import CHAT
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
    options['sample_edited'] = None
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


SOURCE = """
def plan(problem, notes):
    if not notes.written:
        return [f'{problem.question} ; answer ?'] if problem.id.endswith('5') else 'ben ?'
    return f'answer {notes.written[0][-1]}' if notes.number == 0 else None


plan.writes = True


def plain(problem):
    return 'ben ?'


def edited(problem):
    return 'ben 3 ; ben ?' if problem.id.endswith('5') else ''


def longer(problem):
    names = 'ben eve gus hal ida jim kim cal dan fay ada max'.split()
    steps = [f'{b} : {a} + 1' for a, b in zip(names, names[1:])]
    return ' ; '.join(['ben 3', *steps, 'max ?'])


def unread(problem):
    return 'ben ben'


edited.edits = longer.edits = unread.edits = True
"""


def sample(tmp_path, name):
    path = tmp_path / 'mine.py'
    path.write_text(SOURCE)
    settings = build.build(run_settings.RunSettings, lab.get_config('smoke'))
    engine = fake_engine.RuleEngine(lambda role, request, seed: fake_engine.ids_of('#### 7'))
    inputs = fake_run.make_inputs([], PROBLEMS)
    stage = StageFolder.temporary()  # it is deleted with this name
    samplers = fake_run.ScriptedSamplers(settings.sampling, inputs, whole=engine)
    episodes, tokens = actor_attempts.sample_actor(
        None,
        PROBLEMS,
        settings=settings.evaluate,
        samplers=samplers,
        seed=0,
        stage=stage,
        name='conditions/mine',
        condition=name and f'{path}:{name}',
    )
    guides = [[CHAT.text(t) for t in e.turns if t.role == 'guide'] for e in episodes]
    assert tokens == engine.tokens
    return guides, [request.prompt for _, request in engine.requests]


def test_an_actor_may_write_the_guide_that_its_attempts_follow(tmp_path):
    guides, prompts = sample(tmp_path, 'plan')
    plain_guides, plain_prompts = sample(tmp_path, 'plain')
    asks = [problem.id.endswith('5') for problem in PROBLEMS]
    assert 0 < sum(asks) < len(asks)
    assert guides == [['answer 7' if a else 'ben ?'] for a in asks for _ in range(2)]
    assert plain_guides == [['ben ?']] * 2 * len(PROBLEMS)
    assert len(prompts) == len(plain_prompts) + sum(asks)
    assert sample(tmp_path, '')[0] == [[]] * 2 * len(PROBLEMS)


def test_an_edited_question_is_solved_again_and_keeps_its_id(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(SOURCE)
    settings = dataclasses.replace(SETTINGS, conditions=(f'{path}:edited',))
    calls = []

    def sample_edited(problems, *, name):
        calls.append((problems, name))
        return attempts_of(problems, correct=True), 5

    samplers = types.SimpleNamespace(inputs=types.SimpleNamespace(chat=CHAT))
    figures, groups, tokens = actor_attempts.evaluate_conditions(
        None,
        PROBLEMS,
        settings=settings,
        samplers=samplers,
        seed=0,
        stage=None,
        sample_edited=sample_edited,
    )
    ((problems, name),) = calls
    assert name == 'conditions/edited' and tokens == 5
    assert [p.id for p in problems] == [p.id for p in PROBLEMS if p.id.endswith('5')]
    assert {(p.question, p.answer) for p in problems} == {('ben 3 ; ben ?', '3')}
    assert [group.problem for group in groups['edited']] == problems
    assert figures['conditions']['edited']['accuracy']['all'][0] == 1.0


@pytest.mark.parametrize(
    ('name', 'message'), [('longer', 'another question, of at most'), ('unread', 'of the lab')]
)
def test_an_edit_that_is_no_question_is_an_error_that_names_it(tmp_path, name, message):
    path = tmp_path / 'mine.py'
    path.write_text(SOURCE)
    with pytest.raises(ValueError, match=rf'evaluate.conditions: {name} .*{message}') as error:
        actor_attempts.edited_problems(f'{path}:{name}', PROBLEMS, chat=CHAT)
    assert '\n' not in str(error.value)
