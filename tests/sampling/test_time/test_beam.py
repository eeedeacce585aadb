"""Step beam search: survivors, requests, costs, and its special case greedy decoding."""

import dataclasses
import functools
import itertools

import jax
import pytest

from elenchus.data.critiques import grammars
from elenchus.data.lab import forms
from elenchus.model import transformer
from elenchus.sampling import episodes, step_scores
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.test_time import beam, strategies
from tests.support import fake_engine, tiny_model
from tests.support.fake_engine import CHAT, EOS, TOKENIZER

PROBLEMS = [forms.generate_problem(seed=0, split='test', index=i) for i in (1, 2)]
SAMPLING = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=())
SETTINGS = beam.BeamSettings(width=2, expansions=2, max_steps=6, aggregate='min', num_problems=2)


@pytest.fixture
def scored(monkeypatch):
    monkeypatch.setattr(strategies.step_scores, 'step_rewards', fake_engine.step_rewards)


def by_id(role, request, seed):
    """Every second request of a step is wrong."""
    if role == 'critique':
        return fake_engine.critique(request)
    return (
        fake_engine.change_last_digit(fake_engine.next_line(request))
        if request.id % 2
        else fake_engine.next_line(request)
    )


def search(rule, problems=PROBLEMS, first_id=0, **changed):
    inner = fake_engine.RuleEngine(rule)
    players = fake_engine.players(inner)
    setup = strategies.EvaluationSetup(players, fake_engine.SCORER, SAMPLING, 'wrong', 1, seed=3)
    results = beam.beam_search(
        dataclasses.replace(SETTINGS, **changed),
        setup,
        problems,
        line_sampler=players.sampler,
        first_id=first_id,
    )
    return results, inner


def text(episode):
    return CHAT.text(episode.attempt)


@pytest.mark.usefixtures('scored')
@pytest.mark.parametrize('aggregate', ['min', 'product', 'last'])
def test_the_line_that_the_critic_finds_right_goes_on(aggregate):
    results, _ = search(by_id, aggregate=aggregate)
    for problem, episode in zip(PROBLEMS, results, strict=True):
        assert text(episode) == problem.solution
        assert episode.attempt.facts.correct and episode.critique.facts.verdict is True
        roles = [turn.role for turn in episode.turns]
        assert roles == ['question', 'attempt', 'critique']
        assert episode.attempt.step_scores == (0.9,) * len(fake_engine.lines_of(problem.solution))


@pytest.mark.usefixtures('scored')
def test_with_more_beams_fewer_mistakes_survive():
    problems = [forms.generate_problem(seed=1, split='test', index=i) for i in range(30)]
    right = [
        sum(e.attempt.facts.correct for e in search(fake_engine.careless, problems, **size)[0])
        for size in ({'width': 1, 'expansions': 1}, {'width': 2, 'expansions': 4})
    ]
    assert right[0] < 15 and right[1] > 25


@pytest.mark.usefixtures('scored')
def test_every_token_and_call_is_counted_dropped_beams_too():
    results, inner = search(fake_engine.careless, width=3, expansions=3)
    for role in ('attempt', 'critique'):
        assert sum(e.facts.tokens[role] for e in results) == inner.num_tokens(role)
        assert sum(e.facts.calls[role] for e in results) == inner.num_requests(role)
        assert sum(e.facts.processed[role] for e in results) == inner.num_processed(role)


@pytest.mark.usefixtures('scored')
def test_processed_tokens_of_a_narrow_beam_by_hand():
    """Each line reads question and lines so far; each critique those and the new line."""

    def rule(role, request, seed):
        if role == 'critique':
            return fake_engine.critique(request)
        return fake_engine.next_line(request)

    problem = PROBLEMS[0]
    (episode,), _ = search(rule, [problem], width=1, expansions=1)
    question = 1 + len(TOKENIZER.encode(problem.question))
    lines = [len(line) for line in fake_engine.lines_of(problem.solution)]
    ends = list(itertools.accumulate(lines))
    starts = [end - length for end, length in zip(ends, lines, strict=True)]
    assert len(lines) > 1
    assert episode.facts.processed['attempt'] == sum(
        question + 1 + start + length for start, length in zip(starts, lines, strict=True)
    )
    reads = sum(question + 1 + end + 1 for end in ends)
    assert episode.facts.processed['critique'] == reads + episode.facts.tokens['critique']


@pytest.mark.usefixtures('scored')
def test_the_first_step_begins_with_as_many_beams_as_survive():
    _, inner = search(fake_engine.careless, PROBLEMS[:1], width=3, expansions=4, max_steps=1)
    assert inner.num_requests('attempt') == 12


@pytest.mark.usefixtures('scored')
def test_the_same_line_twice_is_one_beam():
    def same(role, request, seed):
        return (
            fake_engine.critique(request) if role == 'critique' else fake_engine.next_line(request)
        )

    _, inner = search(same, PROBLEMS[:1], width=2, expansions=2)
    num_steps = len(fake_engine.lines_of(PROBLEMS[0].solution))
    assert inner.num_requests('critique') == num_steps
    assert inner.num_requests('attempt') == 4 + 2 * (num_steps - 1)


@pytest.mark.usefixtures('scored')
def test_companions_and_parts_change_nothing():
    whole, _ = search(fake_engine.careless, PROBLEMS)
    parts = [
        search(fake_engine.careless, [problem], first_id=i * SETTINGS.ids_per_question)[0][0]
        for i, problem in enumerate(PROBLEMS)
    ]
    assert parts == whole


@pytest.mark.usefixtures('scored')
def test_no_id_is_used_twice():
    _, inner = search(fake_engine.careless, width=3, expansions=2)
    ids = [request.id for role, request in inner.requests if role == 'attempt']
    settings = dataclasses.replace(SETTINGS, width=3, expansions=2)
    assert len(set(ids)) == len(ids) and max(ids) < settings.ids_per_question * len(PROBLEMS)


@pytest.mark.usefixtures('scored')
def test_a_search_cut_by_its_limit_has_no_answer():
    (episode,), _ = search(by_id, PROBLEMS[:1], max_steps=1)
    assert text(episode) == f'{PROBLEMS[0].solution.splitlines()[0]}\n'
    assert episode.attempt.facts.answer is None and not episode.attempt.facts.correct


@pytest.mark.usefixtures('scored')
def test_a_finished_beam_stays_and_goes_before_unfinished_ones():
    bare = fake_engine.ids_of('#### 1')

    def hasty(role, request, seed):
        """The even requests answer at once, which is wrong; the odd ones work."""
        if role == 'critique':
            return fake_engine.critique(request)
        return fake_engine.next_line(request) if request.id % 2 else bare

    (unfinished,), _ = search(hasty, PROBLEMS[:1], max_steps=1)
    assert unfinished.turn('attempt').tokens == bare
    (finished,), _ = search(hasty, PROBLEMS[:1])
    assert finished.attempt.facts.correct


@pytest.mark.parametrize('field', ['width', 'expansions', 'max_steps'])
def test_settings_out_of_range_are_named(field):
    with pytest.raises(ValueError, match=rf'beam\.{field}=-1 must be at least'):
        dataclasses.replace(SETTINGS, **{field: -1})


# With a model

CONFIG = dataclasses.replace(
    tiny_model.CONFIG, vocab_size=TOKENIZER.vocab_size, num_layers=1, mlp_dim=16, num_heads=2,
    num_kv_heads=1, head_dim=8, max_length=128, scan_layers=False,
)  # fmt: skip
SHAPES = engine.EngineSettings(
    num_slots=4, max_length=128, chunk_steps=8, prompt_buckets=(112,), prefill_batch_sizes=(4,),
    decode_batch_sizes=(), decode_cache_lengths=(),
)  # fmt: skip
FEW = {TOKENIZER.newline_id, EOS, *TOKENIZER.encode('is + 7 : ben')}
GREEDY = sampling_methods.Greedy(tuple(set(range(TOKENIZER.vocab_size)) - FEW))
LIMITS = {'attempt': 20, 'critique': 6, 'refinement': 6}


@functools.cache
def model(seed):
    return transformer.init_model(CONFIG, jax.random.key(seed))


@functools.cache
def sampler(*stop_ids):
    return episodes.Sampler(engine.Engine(SHAPES, stop_ids=stop_ids), CHAT, LIMITS)


@pytest.mark.slow
def test_one_beam_with_one_greedy_expansion_is_greedy_decoding():
    scorer = step_scores.StepScorer(
        step_scores.ScoreShapes(4, (128,)), {'correct_id': 45, 'wrong_id': 46}
    )
    questions = [CHAT.question_turns(problem.question) for problem in PROBLEMS]
    kinds = set()
    for seed in range(4):
        plain = sampler(EOS).sample_turns(
            model(seed), questions, 'attempt', spec=SampleSpec(1, GREEDY, 0, 0)
        )
        players = ModelPair(sampler(EOS), model(seed), model(9), fake_engine.judge, grammars.LAB)
        results = beam.beam_search(
            dataclasses.replace(SETTINGS, width=1, expansions=1, max_steps=LIMITS['attempt']),
            strategies.EvaluationSetup(players, scorer, GREEDY, 'wrong', 1, seed=0),
            PROBLEMS,
            line_sampler=sampler(EOS, TOKENIZER.newline_id),
            first_id=0,
        )
        for (expected,), episode in zip(plain, results, strict=True):
            attempt = episode.attempt
            assert attempt.tokens == expected.tokens
            assert attempt.step_ends == expected.step_ends
            assert attempt.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
            assert episode.facts.tokens['attempt'] == len(expected.tokens)
            kinds |= {TOKENIZER.newline_id in expected.tokens[:-1], CHAT.is_finished(expected)}
    assert kinds == {True, False}
