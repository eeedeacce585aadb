"""Critique at test time: which turns are sampled, what is shared, and every token counted."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.data.lab import forms
from elenchus.sampling import episodes
from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.test_time import strategies
from tests.support import fake_engine
from tests.support.fake_engine import CHAT

PROBLEMS = [forms.generate_problem(seed=0, split='test', index=i) for i in range(3)]
SAMPLING = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=())
PASS, REJECT, GARBLED = 'answer : ben is 1 ; correct', 'answer : ben is 1 ; wrong', 'is is is'
N = 4  # attempts a problem


@pytest.fixture(autouse=True)
def scored(monkeypatch):
    monkeypatch.setattr(strategies.step_scores, 'step_rewards', fake_engine.step_rewards)


def answer(digit):
    return f'#### {digit % 10}'


def make_rule(seed):
    """Any attempts and refinements by noise and id; critiques are greedy, so by prompt alone."""

    def rule(role, request, noise):
        greedy = role == 'critique'
        rng = random.Random(repr((seed, request.prompt if greedy else (request, noise))))
        if greedy:
            return fake_engine.ids_of(rng.choice([PASS, REJECT, GARBLED]))
        return fake_engine.ids_of(answer(rng.randrange(10)))

    return rule


def make_setup(engine, **changed):
    setup = strategies.EvaluationSetup(
        models=fake_engine.players(engine),
        scorer=fake_engine.SCORER,
        method=SAMPLING,
        refine='wrong',
        num_rounds=3,
        seed=5,
    )
    return dataclasses.replace(setup, **changed)


def attempts(setup, problems=PROBLEMS, first_id=0):
    outputs = episodes.sample_attempts(
        setup.models.sampler,
        None,
        problems,
        judge=fake_engine.judge,
        spec=SampleSpec(N, SAMPLING, 5, first_id),
    )
    return outputs, [problem for problem in problems for _ in range(N)]


def play(strategy, setup, inputs, problems, first_id=0):
    return strategy(setup, inputs, problems, first_id=first_id)[0]


def roles(episode):
    return [turn.role for turn in episode.turns]


def first_round(engine, **changed):
    setup = make_setup(engine, **changed)
    inputs, episode_problems = attempts(setup)
    return setup, play(strategies.parallel, setup, inputs, episode_problems), episode_problems


# Parallel


@given(st.integers(0, 10**6))
def test_only_what_the_critic_does_not_pass_is_refined(seed):
    _, played, _ = first_round(fake_engine.RuleEngine(make_rule(seed)))
    for episode in played:
        passed = episode.critique.facts.verdict is True
        assert ('refinement' in roles(episode)) == (not passed)
        assert (episode.response is not episode.attempt) == (not passed)
        assert episode.response.facts.correct is not None


def test_everything_is_refined_where_the_config_says_so():
    _, played, _ = first_round(fake_engine.RuleEngine(make_rule(0)), refine='always')
    assert {e.critique.facts.verdict for e in played} == {True, False, None}
    assert all(roles(e) == ['question', 'attempt', 'critique', 'refinement'] for e in played)


def test_attempts_carry_the_critics_step_scores():
    _, played, _ = first_round(fake_engine.RuleEngine(make_rule(0)))
    score = {True: 0.9, False: 0.1, None: None}
    for episode in played:
        assert episode.attempt.facts.score == score[episode.critique.facts.verdict]
        assert episode.attempt.step_scores == (episode.attempt.facts.score,)


# Sequential


@given(st.integers(0, 10**6), st.sampled_from(['wrong', 'always']))
@settings(max_examples=10)
def test_a_chain_goes_on_until_the_critic_passes_it_or_the_rounds_are_over(seed, refine):
    setup, played, episode_problems = first_round(
        fake_engine.RuleEngine(make_rule(seed)), refine=refine
    )
    outputs = play(strategies.sequential, setup, played, episode_problems)
    chains = {i: [e] for i, e in enumerate(played)}
    for episode in outputs:
        chains[episode.facts.chain].append(episode)
    for chain in chains.values():
        assert [e.facts.round or 1 for e in chain] == list(range(1, len(chain) + 1))
        assert all(roles(e)[-1] == 'refinement' for e in chain[:-1])
        ended = roles(chain[-1])[-1] == 'critique'
        assert ended or len(chain) == setup.num_rounds
        assert not ended or (refine == 'wrong' and chain[-1].critique.facts.verdict is True)


def test_the_next_critique_sees_the_question_and_the_refinement_alone():
    engine = fake_engine.RuleEngine(make_rule(1))
    setup, played, episode_problems = first_round(engine)
    before = len(engine.requests)
    outputs = play(strategies.sequential, setup, played, episode_problems)
    prompts = [r.prompt for role, r in engine.requests[before:] if role == 'critique']
    refined = [e for e in played if roles(e)[-1] == 'refinement']
    first = outputs[: len(refined)]
    assert refined and len(first) == len(refined)
    for prompt, one, problem_turns in zip(prompts, refined, first, strict=False):
        answer_turn = dataclasses.replace(one.turn('refinement'), header=CHAT.header('attempt'))
        assert list(prompt) == CHAT.context((one.turns[0], answer_turn), 'critique')
        assert roles(problem_turns)[:3] == ['question', 'attempt', 'critique']
        assert problem_turns.attempt.facts.answer == one.response.facts.answer
        assert problem_turns.attempt.facts.correct == one.response.facts.correct


def test_later_rounds_draw_other_noise():
    seeds = set()

    def rule(role, request, seed):
        if role == 'refinement':
            seeds.add(seed)
        return fake_engine.ids_of(REJECT if role == 'critique' else answer(request.id))

    setup, played, episode_problems = first_round(fake_engine.RuleEngine(rule))
    play(strategies.sequential, setup, played, episode_problems)
    assert len(seeds) == setup.num_rounds


# Oracle


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_the_oracle_refines_all_that_is_wrong_and_nothing_else(seed):
    setup, played, episode_problems = first_round(fake_engine.RuleEngine(make_rule(seed)))
    outputs = play(strategies.oracle, setup, played, episode_problems)
    wrong = [i for i, e in enumerate(played) if not e.attempt.facts.correct]
    assert [e.facts.chain for e in outputs] == wrong
    assert all(roles(e)[-1] == 'refinement' for e in outputs)


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_the_oracle_shares_what_parallel_sampled_and_is_never_worse(seed):
    setup, played, episode_problems = first_round(fake_engine.RuleEngine(make_rule(seed)))
    after = {e.facts.chain: e for e in play(strategies.oracle, setup, played, episode_problems)}
    for i, episode in enumerate(played):
        right = after[i].response.facts.correct if i in after else True
        if i in after and roles(episode)[-1] == 'refinement':
            assert after[i].turns == episode.turns
        assert right or not episode.response.facts.correct


def test_the_oracle_makes_the_same_of_bare_attempts():
    setup = make_setup(fake_engine.RuleEngine(make_rule(2)))
    attempt_episodes, episode_problems = attempts(setup)
    played = play(strategies.parallel, setup, attempt_episodes, episode_problems)
    assert play(strategies.oracle, setup, played, episode_problems) == play(
        strategies.oracle, setup, attempt_episodes, episode_problems
    )


# Cost and noise


@given(st.integers(0, 10**6), st.sampled_from(['wrong', 'always']))
@settings(max_examples=10)
def test_every_token_and_call_is_counted_once(seed, refine):
    engine = fake_engine.RuleEngine(make_rule(seed))
    setup = make_setup(engine, refine=refine)
    attempt_episodes, episode_problems = attempts(setup)
    counted = engine.tokens
    played, tokens = strategies.parallel(setup, attempt_episodes, episode_problems, first_id=0)
    assert counted + tokens == engine.tokens
    for role in ('attempt', 'critique', 'refinement'):
        assert sum(e.facts.tokens.get(role, 0) for e in played) == engine.num_tokens(role)
        assert sum(e.facts.calls.get(role, 0) for e in played) == engine.num_requests(role)
        assert sum(e.facts.processed.get(role, 0) for e in played) == engine.num_processed(role)
    counted += tokens
    for strategy in (strategies.sequential, strategies.oracle):
        outputs, tokens = strategy(setup, played, episode_problems, first_id=0)
        assert counted + tokens == engine.tokens
        counted += tokens
        if strategy is strategies.sequential:
            total = sum(sum(e.facts.processed.values()) for e in [*played, *outputs])
            assert total == sum(map(engine.num_processed, ('attempt', 'critique', 'refinement')))
            assert sum(sum(e.facts.tokens.values()) for e in outputs) == tokens
            assert all('attempt' not in e.facts.calls for e in outputs)


def test_processed_tokens_are_prompt_and_sample_of_every_call():
    """Question 5 tokens, attempt 2, critique 3, refinement 4; each has a header before it."""
    bodies = {'question': 5, 'attempt': 2, 'critique': 3, 'refinement': 4}
    turns = tuple(
        records.Turn(role, CHAT.header(role), (9,) * n, () if role == 'question' else (-1.0,) * n)
        for role, n in bodies.items()
    )
    episode = strategies.with_cost(CHAT, records.Episode('p', 1, turns))
    assert episode.facts.processed == {
        'attempt': 6 + 1 + 2,
        'critique': 6 + 3 + 1 + 3,
        'refinement': 6 + 3 + 4 + 1 + 4,
    }
    assert episode.facts.tokens == {'attempt': 2, 'critique': 3, 'refinement': 4}
    later = dataclasses.replace(turns[1], logprobs=())
    again = strategies.with_cost(CHAT, records.Episode('p', 1, (turns[0], later, *turns[2:])))
    assert again.facts.processed == {'critique': 13, 'refinement': 18}


@pytest.mark.parametrize('strategy', [strategies.sequential, strategies.oracle])
def test_parts_make_what_the_whole_makes(strategy):
    setup = make_setup(fake_engine.RuleEngine(make_rule(3)))
    attempt_episodes, episode_problems = attempts(setup)
    played = play(strategies.parallel, setup, attempt_episodes, episode_problems)
    whole = play(strategy, setup, played, episode_problems)
    parts, again = [], []
    for i in range(len(PROBLEMS)):
        some, those = attempts(setup, PROBLEMS[i : i + 1], first_id=i * N)
        part = play(strategies.parallel, setup, some, those, first_id=i * N)
        again += part
        parts += play(strategy, setup, part, those, first_id=i * N)
    assert again == played
    key = lambda e: (e.facts.chain, e.facts.round or 1)  # noqa: E731
    assert sorted(parts, key=key) == sorted(whole, key=key)


def test_correct_attempts_need_no_further_rounds():
    def right(role, request, seed):
        text = PASS if role == 'critique' else answer(int(problem.answer))
        return fake_engine.ids_of(text)

    problem = PROBLEMS[0]
    setup = make_setup(fake_engine.RuleEngine(right))
    attempt_episodes, episode_problems = attempts(setup, [problem])
    played = play(strategies.parallel, setup, attempt_episodes, episode_problems)
    for strategy in (strategies.sequential, strategies.oracle):
        assert strategy(setup, played, episode_problems, first_id=0) == ([], 0)
