"""The explorer `self_guided`: guides that a player writes, beginnings, and the memory."""

import dataclasses
import re

import pytest

from elenchus.sampling import episodes as episode_lib
from elenchus.sampling import slots
from elenchus.sampling.exploration import explorers, guides
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.writing import Notes
from elenchus.train.config import build, functions
from elenchus.train.config.run_settings import RunSettings
from tests.sampling.exploration.test_explorers import SETTINGS
from tests.support import fake_engine
from tests.support.fake_engine import CHAT
from tests.support.rollout_cases import METHOD
from tests.support.shipped_configs import ROOT

PROBLEMS = fake_engine.problems(4)
FUNCTIONS = """
def plan(problem, notes):
    if notes.number == 1 and problem.id.endswith('0'):
        return None
    if not notes.written:
        return [f'{problem.question.split(" ; ")[0]} ; answer ?']
    return f'ben {notes.written[0][-1]} {" ".join(sorted(notes.memory))}'.strip()


def learn(problem, notes):
    right = sum(notes.accepted)
    return {'gold': f'gold {right}', problem.question.split()[0]: str(len(notes.responses))}


plan.learn = learn


def begin(problem, notes):
    return 'ben : eve 1 + 1 = 2 ; ben 2' if notes.number else ''


def many(problem, notes):
    return 'ben ' * 400


def number(problem, notes):
    return 3
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(FUNCTIONS)
    return f'{path}:'.__add__


def play(role, request, seed):
    return fake_engine.ids_of(f'#### {(request.id + seed) % 10}')


def explore(room=None, memory=None, **changed):
    engine = fake_engine.RuleEngine(play)
    settings = dataclasses.replace(SETTINGS, min_correct=99, **changed)
    result, tokens = explorers.explore(
        settings,
        fake_engine.players(engine),
        PROBLEMS,
        explorer='self_guided',
        method=METHOD,
        seed=1,
        first_id=0,
        room=room,
        memory=memory or {},
    )
    assert tokens == engine.tokens
    return engine, [e for e in result if e.response.facts.origin == 'self_guided']


def test_a_guide_is_written_shown_and_not_trained(mine):
    engine, guided = explore(player_guide=mine('plan'), memory={'oak': 'x'})
    missing = sum(problem.id.endswith('0') for problem in PROBLEMS)
    assert len(guided) == 2 * len(PROBLEMS) - missing  # two rounds
    for episode in guided:
        guide = CHAT.text(episode.turn('guide'))
        assert guide.startswith('ben ') and guide.endswith(' oak')
        bare = episode_lib.as_attempt(fake_engine.players(None).sampler, episode)
        assert [turn.role for turn in bare.turns] == ['question', 'attempt']
    prompts = [CHAT.tokenizer.decode(r.prompt[1:-1]) for _, r in engine.requests]
    assert sum(text.endswith('answer ?') for text in prompts) == len(guided)


def test_without_functions_it_samples_what_uniform_does():
    _, guided = explore()
    engine = fake_engine.RuleEngine(play)
    settings = dataclasses.replace(SETTINGS, min_correct=99, num_uniform_rounds=2)
    uniform, _ = explorers.explore(
        settings, fake_engine.players(engine), PROBLEMS, explorer='uniform', method=METHOD,
        seed=1, first_id=0,
    )  # fmt: skip
    plain = [e for e in uniform if e.response.facts.origin == 'uniform']
    assert [e.response.tokens for e in guided] == [e.response.tokens for e in plain]


def test_a_beginning_is_a_part_of_the_response(mine):
    _, guided = explore(opening=mine('begin'))
    first, second = guided[: len(PROBLEMS)], guided[len(PROBLEMS) :]
    assert all(CHAT.text(e.response).startswith('####') for e in first)
    for episode in second:
        assert CHAT.text(episode.response).startswith('ben : eve 1 + 1 = 2 ; ben 2\n')
        assert len(episode.response.steps) == 2 and not episode.response.logprobs


def test_what_leaves_no_room_is_not_sampled(mine):
    assert explore(opening=mine('many'))[1] == []
    assert len(explore(player_guide=mine('plan'), room=60)[1]) > 0
    with pytest.raises(
        ValueError, match='improve.explore.player_guide: plan .*of at most 2 tokens'
    ):
        explore(player_guide=mine('plan'), room=2)


def test_what_is_no_text_is_an_error_of_one_line(mine):
    for field, kind in (('player_guide', 'a text, '), ('opening', 'a text')):
        with pytest.raises(ValueError, match=f'improve.explore.{field}: number .*{kind}') as error:
            explore(**{field: mine('number')})
        assert '\n' not in str(error.value)


def learn(reference, items, memory):
    models = fake_engine.players(fake_engine.RuleEngine(play))
    spec = SampleSpec(1, METHOD, 0, 0)
    return guides.learn(models, items, reference=reference, memory=memory, spec=spec, room=None)


def test_a_name_in_the_memory_keeps_its_first_text(mine):
    problems = PROBLEMS[:2]
    items = [(p, Notes(responses=('a', 'b'), accepted=(True, False))) for p in problems]
    kept = learn(mine('plan'), items, {'gold': 'gold 6'})
    names = [p.question.split()[0] for p in problems]
    assert kept == {'gold': 'gold 6', **dict.fromkeys(names, '2')}
    assert learn(mine('plan'), items, {})['gold'] == 'gold 1'
    assert guides.remembers(mine('plan')) and not guides.remembers('none')
    assert not guides.remembers(mine('begin'))


@pytest.mark.parametrize('returned', ['3', '["a", "b"]', '{"a": 1}', '{1: "a"}'])
def test_what_is_no_memory_is_an_error_of_one_line(tmp_path, returned):
    path = tmp_path / 'mine.py'
    path.write_text(
        'def mine(problem, notes):\n    return None\n\n\n'
        f'def learn(problem, notes):\n    return {returned}\n\n\nmine.learn = learn\n'
    )
    with pytest.raises(ValueError, match='it must return {name: text}') as error:
        learn(f'{path}:mine', [(PROBLEMS[0], Notes())], {})
    assert '\n' not in str(error.value)


def test_the_texts_of_the_guide_are_a_run_with_two_functions(tmp_path):
    text = (ROOT / 'docs/extending.md').read_text()
    (source,) = [s for s in re.findall(r'```python\n(.*?)```', text, re.DOTALL) if 'learn' in s]
    path = tmp_path / 'written.py'
    path.write_text(source)
    config = slots.load(f'{path}:get_config').function()
    named = functions.functions_of(build.build(RunSettings, config))
    assert [f.field for f in named] == ['improve.explore.accept', 'improve.explore.player_guide']
    _, plan = (f.function for f in named)
    (problem,) = PROBLEMS[:1]
    assert plan(problem, Notes()) == [problem.question]
    assert plan(problem, Notes(written=('ben ?',))) == 'ben ?'
    _, guided = explore(player_guide=f'{path}:plan', accept=f'{path}:alike')
    assert guided and all(isinstance(e.response.facts.accepted, bool) for e in guided)
    assert learn(f'{path}:plan', [(problem, Notes(responses=('x',)))], {}) == {
        problem.question.split()[0]: 'x'
    }
