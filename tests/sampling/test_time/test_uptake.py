"""Uptake conditions: what each puts in the critique's place, what they share, and their cost."""

import collections
import dataclasses
import random
import types

import pytest

from elenchus.data import records
from elenchus.data.critiques import grammars, oracle
from elenchus.data.lab import forms, task
from elenchus.data.text import chat_templates, tokenizer_json
from elenchus.data.text.chat import Chat
from elenchus.sampling import episodes as episode_lib
from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.engine.requests import Completion
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.test_time import strategies, uptake
from tests.support import fake_engine, hf_tokenizers
from tests.support.fake_engine import CHAT

PROBLEMS = [forms.generate_problem(seed=0, split='test', index=i) for i in range(30)]
SAMPLING = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=())
N, SAMPLES = 3, 2  # attempts a problem, samples of each condition


@pytest.fixture(autouse=True)
def scored(monkeypatch):
    monkeypatch.setattr(strategies.step_scores, 'step_rewards', fake_engine.step_rewards)


def slip(role, request, seed):
    """Solutions of which half have a slip in the first line, and the oracle's critiques."""
    if role == 'critique':
        return fake_engine.critique(request)
    first, *lines = fake_engine.lines_of(task.solve(fake_engine.question_of(request)))
    if random.Random(repr((request, seed))).random() < 0.5:
        first = fake_engine.change_last_digit(first)
    return tuple(token for line in (first, *lines) for token in line)


class Played:
    """Episodes of `strategies.parallel`, and the conditions' sources."""

    def __init__(self, rule=slip, problems=PROBLEMS, feedback='critique'):
        self.engine = fake_engine.RuleEngine(rule)
        self.setup = strategies.EvaluationSetup(
            models=fake_engine.players(self.engine),
            scorer=fake_engine.SCORER,
            method=SAMPLING,
            refine='wrong',
            num_rounds=1,
            seed=5,
            feedback=feedback,
        )
        spec = SampleSpec(N, SAMPLING, 5, 0)
        attempts = episode_lib.sample_attempts(
            self.setup.models.sampler, None, problems, judge=fake_engine.judge, spec=spec
        )
        repeated = [problem for problem in problems for _ in range(N)]
        self.episodes, _ = strategies.parallel(self.setup, attempts, repeated, first_id=0)
        self.sources = uptake.Sources(self.setup, self.episodes, repeated)
        self.first = len(self.engine.requests)  # request of the conditions

    def sample(self, name, ids=range(10**6)):
        return uptake.sample_condition(name, self.sources, ids=ids, num_samples=SAMPLES)


@pytest.fixture(scope='module')
def played():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategies.step_scores, 'step_rewards', fake_engine.step_rewards)
        return Played()


def critique_text(episode):
    return CHAT.text(episode.critique)


def test_no_condition_has_the_feedback(played, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text('def mine(problem, notes):\n    return "\\n eve 9 - 4 = 5"\n')
    fed = Played(feedback=f'{path}:mine')
    assert all(fed.episodes[i].critique.feedback for i in fed.sources.due)
    for name, condition in uptake.CONDITIONS.items():
        assert condition.critiques(fed.sources) == condition.critiques(played.sources), name


def chains(episodes):
    return [e.facts.chain for e in episodes if e.facts.sample == 0]


def test_the_own_critiques_are_refined_where_they_do_not_pass_the_attempt(played):
    episodes, _ = played.sample('own')
    due = [i for i, e in enumerate(played.episodes) if e.critique.facts.verdict is not True]
    assert chains(episodes) == due and 0 < len(due) < len(played.episodes)
    for episode in episodes:
        before = played.episodes[episode.facts.chain]
        assert [t.tokens for t in episode.turns[:-1]] == [t.tokens for t in before.turns[:3]]
        assert episode.turns[-1].role == 'refinement'
        assert episode.response.facts.correct is not None


def test_shuffled_critiques_are_of_another_question_of_the_level(played):
    own = {i: critique_text(e) for i, e in enumerate(played.episodes)}
    partners = played.sources.partners
    for episode in played.sample('shuffled')[0]:
        i = episode.facts.chain
        partner = played.episodes[partners[i]]
        assert partner.problem_id != episode.problem_id
        assert partner.level == episode.level
        assert critique_text(episode) == own[partners[i]]
        assert episode.turns[:2] != partner.turns[:2]
    assert sorted(partners) == played.sources.due == sorted(partners.values())


def test_the_fixed_critique_is_the_first_due_one_of_the_lowest_level(played):
    level = min(played.episodes[i].level for i in played.sources.due)
    first = next(i for i in played.sources.due if played.episodes[i].level == level)
    texts = {critique_text(e) for e in played.sample('fixed')[0]}
    assert texts == {critique_text(played.episodes[first])}


def test_counterfactual_critiques_are_false_and_their_refinements_are_checked(played):
    episodes, _ = played.sample('counterfactual')
    assert chains(episodes) == list(played.sources.falsified)
    for episode in episodes:
        false = played.sources.falsified[episode.facts.chain]
        assert critique_text(episode) == false.text
        # All slips are in the first line.
        stated = CHAT.text(episode.response).split('\n')[0].split()[-1]
        assert episode.response.facts.uses_value is (stated == false.value)
    assert {e.response.facts.uses_value for e in episodes} == {True, False}


def test_without_a_critique_the_prompt_has_the_attempt_last(played):
    first = len(played.engine.requests)
    episodes, _ = played.sample('no_critique')
    for (role, request), episode in zip(played.engine.requests[first:], episodes, strict=True):
        assert role == 'refinement'
        before = played.episodes[episode.facts.chain].turns[:2]
        assert list(request.prompt) == CHAT.context(before, 'refinement')


def test_a_fresh_attempt_sees_the_question_alone(played):
    first = len(played.engine.requests)
    episodes, _ = played.sample('fresh_attempt')
    for (role, request), episode in zip(played.engine.requests[first:], episodes, strict=True):
        assert role == 'attempt'
        before = played.episodes[episode.facts.chain].turns[:1]
        assert list(request.prompt) == CHAT.context(before, 'attempt')
    assert chains(episodes) == played.sources.due


def test_always_adds_the_attempts_that_the_gate_keeps(played):
    ids = chains(played.sample('always')[0]) + chains(played.sample('own')[0])
    assert sorted(ids) == list(range(len(played.episodes)))


def test_wrong_attempts_get_the_critique_of_who_knows_the_solution(played):
    episodes, _ = played.sample('annotated')
    assert chains(episodes) == played.sources.due  # the critic of this test is the oracle
    for episode in episodes:
        problem = played.sources.problems[episode.facts.chain]
        attempt = CHAT.text(episode.attempt)
        assert critique_text(episode) == oracle.annotate(problem, attempt)


def test_in_free_text_the_calculator_criticises_in_the_grammar_of_the_run():
    problem = records.Problem('p', 'What are 7 and 5?', '12', '7+5=12\n#### 12', 1, 'x')
    turn = records.Turn('attempt', (6,), (1, 2), facts=records.TurnFacts(correct=False))
    sampler = types.SimpleNamespace(
        chat=types.SimpleNamespace(
            text=lambda turn: '7+5=13\n#### 13',
            text_turn=lambda role, text: records.Turn(role, (7,), tuple(text.encode())),
        ),
        max_tokens={'critique': 200},
    )
    for grammar, room, count in ((grammars.WORKED, 200, 1), (grammars.RELEASED, 20, 0)):
        sampler.max_tokens = {'critique': room}
        models = types.SimpleNamespace(sampler=sampler, grammar=grammar)
        setup = types.SimpleNamespace(models=models, seed=0)
        episode = records.Episode('p', 1, (turn,))
        annotated = uptake.Sources(setup, [episode], [problem]).annotated
        texts = [bytes(turn.tokens).decode() for turn in annotated.values()]
        assert len(texts) == count
        for text in texts:
            assert text == grammar.write(grammar.parse(text)) and '= 12' in text


def test_all_conditions_share_their_noise():
    noise = collections.defaultdict(set)

    def rule(role, request, seed):
        noise[current].add((request.id, seed))
        return slip(role, request, seed)

    current = 'before'
    played = Played(rule)
    for current in uptake.CONDITIONS:
        played.sample(current)
    for name in ('shuffled', 'fixed', 'fresh_attempt', 'no_critique'):
        assert noise[name] == noise['own']
    assert noise['counterfactual'] <= noise['own']
    assert not noise['own'] & noise['before']
    assert len(noise['own']) == SAMPLES * len(played.sources.due)


@pytest.mark.parametrize('name', uptake.CONDITIONS)
def test_every_new_token_is_counted_once(played, name):
    before = played.engine.tokens
    episodes, tokens = played.sample(name)
    assert tokens == played.engine.tokens - before > 0
    assert tokens == sum(sum(e.facts.tokens.values()) for e in episodes)
    assert {e.facts.sample for e in episodes} == set(range(SAMPLES))


@pytest.mark.parametrize('name', uptake.CONDITIONS)
def test_a_part_makes_what_the_whole_makes(played, name):
    whole, _ = played.sample(name)
    half = len(played.episodes) // 2
    parts = played.sample(name, range(half))[0] + played.sample(name, range(half, 2 * half))[0]
    key = lambda e: (e.facts.chain, e.facts.sample)  # noqa: E731
    assert sorted(parts, key=key) == sorted(whole, key=key)


def test_prompts_and_turns_are_processed(played):
    first = len(played.engine.requests)
    episodes, _ = played.sample('own')
    for (_, request), episode in zip(played.engine.requests[first:], episodes, strict=True):
        count = len(request.prompt) + len(episode.response.tokens)
        assert episode_lib.processed_tokens(CHAT, episode) == {'refinement': count}


@pytest.mark.parametrize('family', ['qwen2.5', 'llama2'])
def test_a_family_sees_an_empty_critique_where_there_is_none(family):
    content = hf_tokenizers.files(hf_tokenizers.golden()['merges'])[family]
    tokenizer = tokenizer_json.JsonTokenizer(content.encode())
    chat = Chat(tokenizer, chat_templates.TEMPLATES[family])
    prompts = []

    class Engine:
        def generate(self, model, requests, *, method, seed):
            prompts.extend(list(request.prompt) for request in requests)
            return [Completion(r.id, (chat.end_id,), (-1.0,), True, 1) for r in requests]

    facts = records.TurnFacts(correct=False, verdict=False)
    words = {'attempt': 'Ben has 3.', 'critique': 'It is 4.'}
    turns = chat.question_turns('Who has 3?')
    turns += tuple(chat.text_turn(role, text) for role, text in words.items())
    turns = tuple(dataclasses.replace(turn, facts=facts) for turn in turns)
    sampler = episode_lib.Sampler(Engine(), chat, fake_engine.LIMITS)
    judge = lambda pairs: [records.TurnFacts(correct=False) for _ in pairs]  # noqa: E731
    models = dataclasses.replace(fake_engine.players(None), sampler=sampler, judge=judge)
    setup = dataclasses.replace(Played(problems=PROBLEMS[:1]).setup, models=models)
    sources = uptake.Sources(setup, [records.Episode('p', 1, turns)], PROBLEMS[:1])
    uptake.sample_condition('no_critique', sources, ids=[0], num_samples=1)
    empty = (*turns[:2], chat.text_turn('critique', ''))
    assert prompts == [chat.context(empty, 'refinement')]
