"""Feedback: a text behind the critique, which the refinement reads and nobody pays for."""

import dataclasses

import pytest

from elenchus.data import records
from elenchus.sampling.test_time import feedback, strategies
from tests.sampling.test_time.test_strategies import (  # noqa: F401
    first_round,
    make_rule,
    play,
    scored,
)
from tests.support import fake_engine
from tests.support.fake_engine import CHAT


@pytest.fixture
def mine(tmp_path):
    def mine(body):
        path = tmp_path / 'mine.py'
        path.write_text(f'def mine(problem, notes):\n    return {body}\n')
        return f'{path}:mine'

    return mine


def played(setup_feedback):
    engine = fake_engine.RuleEngine(make_rule(3))
    setup, episodes, problems = first_round(engine, feedback=setup_feedback)
    later = play(strategies.sequential, setup, episodes, problems)
    return engine, episodes, later


def test_without_a_function_every_request_and_episode_is_the_same(mine):
    engine, *plain = played('critique')
    same, *silent = played(mine('""'))
    assert engine.requests == same.requests and plain == silent


def test_the_refinement_reads_the_text_of_its_round_behind_the_critique(mine):
    texts = ('wrong', 'answer ?', 'ben')
    engine, episodes, later = played(mine(f'"\\n " + {texts}[notes.number]'))
    _, before, _ = played('critique')
    assert [e.turns[:2] for e in episodes] == [e.turns[:2] for e in before]
    prompts = {r.prompt for role, r in engine.requests if role == 'refinement'}
    refined = [e for e in (*episodes, *later) if e.turns[-1].role == 'refinement']
    assert {(e.facts.round or 1) for e in refined} == {1, 2, 3}
    for episode in refined:
        number = (episode.facts.round or 1) - 1
        assert CHAT.text(episode.critique).endswith(f'\n {texts[number]}')
        assert tuple(CHAT.context(episode.turns[:-1], 'refinement')) in prompts


def test_the_appended_tokens_are_forced_and_cost_nothing(mine):
    _, episodes, _ = played(mine('"\\n wrong"'))
    _, before, _ = played('critique')
    for episode, plain in zip(episodes, before, strict=True):
        refined = episode.turns[-1].role == 'refinement'
        assert refined == (plain.turns[-1].role == 'refinement')
        assert bool(episode.critique.forced) == refined
        assert episode.critique.num_sampled == plain.critique.num_sampled
        assert episode.critique.facts == plain.critique.facts
        assert episode.attempt == plain.attempt  # with the scores of the critique alone
        assert episode.facts.tokens['critique'] == plain.facts.tokens['critique']
        if refined:
            added = len(episode.critique.tokens) - len(plain.critique.tokens)
            assert added > 0
            assert (
                episode.facts.processed['refinement']
                >= plain.facts.processed['refinement'] + added - 90
            )


def test_a_function_sees_attempt_critique_verdict_and_round(mine):
    body = (
        '"\\n wrong" if notes.verdict is False and notes.critique.endswith("wrong")'
        ' and notes.responses[0].startswith("####") and problem.id else ""'
    )
    _, episodes, _ = played(mine(body))
    for episode in episodes:
        if episode.turns[-1].role == 'refinement':
            says = CHAT.text(episode.critique).split('\n')
            assert (len(says) == 2) == (episode.critique.facts.verdict is False)


def criticised(text='answer : wrong', *, finished=True, sampled=True):
    (problem,) = fake_engine.problems(1)
    tokens = CHAT.text_turn('critique', text).tokens
    tokens = tokens if finished else tokens[:-1]
    critique = CHAT.sampled_turn('critique', tokens, (-1.0,) * len(tokens) if sampled else ())
    turns = (*CHAT.question_turns(problem.question), CHAT.text_turn('attempt', '#### 1'), critique)
    return problem, records.Episode(problem.id, 1, turns)


@pytest.mark.parametrize('finished', [True, False])
@pytest.mark.parametrize('sampled', [True, False])
def test_a_critique_keeps_its_end(mine, finished, sampled):
    problem, episode = criticised(finished=finished, sampled=sampled)
    sampler = fake_engine.players(None).sampler
    options = {'reference': mine('"\\n wrong"'), 'number': 0, 'attribute': None}
    (longer,) = feedback.add_feedback(sampler, [episode], [problem], **options)
    assert CHAT.text(longer.critique) == 'answer : wrong\n wrong'
    assert CHAT.is_finished(longer.critique) == finished
    assert longer.critique.num_sampled == episode.critique.num_sampled
    assert len(longer.critique.logprobs) in (0, len(longer.critique.tokens))
    assert feedback.without_feedback(CHAT, longer.critique) == episode.critique


@pytest.mark.parametrize('ending', ['', '\n answer : wrong'])
@pytest.mark.parametrize('finished', [True, False])
def test_a_critique_keeps_its_tools(mine, ending, finished):
    problem, episode = criticised()
    call, answer = '7 - 4 =', ' 3'
    start = len(CHAT.tokenizer.encode(call))
    end = len(CHAT.tokenizer.encode(call + answer))
    tokens = CHAT.text_turn('critique', call + answer + ending).tokens
    tokens = tokens if finished else tokens[:-1]
    tools = (records.ToolTurn('calculator', 'answered', start, end),)
    logprobs = [0.0 if start <= i < end else -1.0 for i in range(len(tokens))]
    critique = CHAT.sampled_turn('critique', tokens, logprobs, tools=tools)
    critique = dataclasses.replace(critique, forced=tuple(range(start, end)))
    episode = dataclasses.replace(episode, turns=(*episode.turns[:-1], critique))
    options = {'reference': mine('"\\n wrong"'), 'number': 0, 'attribute': None}
    sampler = fake_engine.players(None).sampler
    (longer,) = feedback.add_feedback(sampler, [episode], [problem], **options)
    assert longer.critique.tools == tools and CHAT.text(longer.critique).endswith('\n wrong')
    assert CHAT.is_finished(longer.critique) == finished
    assert longer.critique.is_of_tool().sum() == end - start
    assert longer.critique.num_sampled == critique.num_sampled
    assert feedback.without_feedback(CHAT, longer.critique) == critique


def test_a_critique_is_never_longer_than_it_may_be(mine):
    problem, episode = criticised()
    sampler = fake_engine.players(None).sampler
    limits = sampler.max_tokens | {'critique': len(episode.critique.tokens) + 2}
    sampler = dataclasses.replace(sampler, max_tokens=limits)
    options = {'reference': mine('"\\n wrong wrong wrong"'), 'number': 0, 'attribute': None}
    (longer,) = feedback.add_feedback(sampler, [episode], [problem], **options)
    assert len(longer.critique.tokens) == limits['critique']


@pytest.mark.parametrize(
    ('body', 'message'), [('3', 'it must return a text'), ('"cheer up"', 'the vocabulary has')]
)
def test_what_cannot_be_appended_is_an_error_of_one_line(mine, body, message):
    with pytest.raises(ValueError, match=message) as error:
        played(mine(body))
    assert str(error.value).startswith('evaluate.feedback: mine (') and '\n' not in str(error.value)


def test_a_function_reads_attributions_of_its_steps_and_others_ask_for_none(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        'def mine(problem, notes):\n    return f"\\n {notes.words[0][0]}"\n'
        'mine.attribution_steps = 3\n'
    )
    problem, episode = criticised()
    calls = []

    def attribute(episodes, *, steps):
        calls.append((list(episodes), steps))
        return [(('ben', 0.5), ('eve', -1.0))]

    options = {'reference': f'{path}:mine', 'number': 0, 'attribute': attribute}
    sampler = fake_engine.players(None).sampler
    (longer,) = feedback.add_feedback(sampler, [episode], [problem], **options)
    assert CHAT.text(longer.critique) == 'answer : wrong\n ben' and calls == [([episode], 3)]

    path = tmp_path / 'half.py'
    path.write_text('def mine(problem, notes):\n    return ""\nmine.attribution_steps = 0.5\n')
    with pytest.raises(ValueError, match=r'evaluate\.feedback: mine\.attribution_steps=0\.5 must'):
        feedback.add_feedback(
            sampler, [episode], [problem], reference=f'{path}:mine', number=0, attribute=attribute
        )
