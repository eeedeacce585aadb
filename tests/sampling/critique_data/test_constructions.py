"""Constructed attempts: the location of the mistake, and no mistake before it."""

import collections
import dataclasses

import jax
import pytest

from elenchus.data import records
from elenchus.data.critiques import mistakes
from elenchus.data.grading import judge, verify
from elenchus.data.lab import forms, task
from elenchus.model import transformer
from elenchus.sampling import episodes
from elenchus.sampling.critique_data import constructions
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.sampling.sample_spec import SampleSpec
from tests.support import fake_engine, tiny_model
from tests.support.fake_engine import CHAT, EOS, TOKENIZER

PROBLEMS = [forms.generate_problem(seed=0, split='train', index=i) for i in range(5)]
SAMPLING = sampling_methods.TemperatureSampling(0.7, 0, 1.0, 0.0, banned=())
SPEC = SampleSpec(num_samples=4, method=SAMPLING, seed=3, first_id=0)


@pytest.fixture(scope='module')
def judging():
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        yield judge.make_judge('lab', verifier)


def solution_of(request):
    return next(p.solution for p in PROBLEMS if p.question == request.texts['question'])


def right(request):
    """The rest of the reference after the lines that the prompt's attempt already has."""
    lines = solution_of(request).split('\n')
    done = request.opening.count('\n')
    return '\n'.join(lines[done:])


def wrong(request):
    """The same with another answer."""
    text = right(request)
    return f'{text[:-1]}{(int(text[-1]) + 1) % 10}'


def groups_of(judging, answer=right):
    sampler = fake_engine.make_sampler(answer)
    return constructions.sample_from_scratch(
        sampler, None, PROBLEMS, judge=judging, spec=dataclasses.replace(SPEC, num_samples=2)
    )


def test_attempts_from_scratch_are_grouped_and_nothing_is_known_of_them(judging):
    groups = groups_of(judging)
    assert [[e.problem_id for e in g] for g in groups] == [[p.id] * 2 for p in PROBLEMS]
    facts = [(e.facts.construction, e.facts.location, e.facts.mistake) for g in groups for e in g]
    assert set(facts) == {('RG1', None, None)}


def resample(judging, groups, answer, **changed):
    sampler = fake_engine.make_sampler(answer)
    attempts = constructions.resample_from_step(
        sampler,
        None,
        groups,
        judge=judging,
        spec=dataclasses.replace(SPEC, **changed),
    )
    return attempts, sampler.engine


def test_a_resampled_attempt_keeps_the_very_ids_up_to_its_line(judging):
    groups = groups_of(judging)
    sources = {e.problem_id: e.attempt for g in groups for e in g}
    attempts, engine_ = resample(judging, groups, wrong)
    assert collections.Counter(e.problem_id for e in attempts) == dict.fromkeys(sources, 4)
    for episode, request in zip(attempts, engine_.requests, strict=True):
        turn, source = episode.attempt, sources[episode.problem_id]
        end = (0, *source.step_ends)[request.opening.count('\n')]
        assert turn.tokens[:end] == source.tokens[:end]
        assert len(turn.logprobs) == len(turn.tokens)


def test_a_resampled_attempt_records_the_first_line_that_differs(judging):
    attempts, engine_ = resample(judging, groups_of(judging), wrong)
    drawn = {request.opening.count('\n') for request in engine_.requests}
    assert len(drawn) > 2
    for episode in attempts:
        assert not episode.attempt.facts.correct
        assert episode.facts.location == episode.attempt.facts.first_error
        assert (episode.facts.construction, episode.facts.mistake) == ('RG2', None)


@pytest.mark.parametrize('answer', [right, lambda request: 'is is...', lambda request: ''])
def test_the_location_is_a_line_of_the_attempt_with_nothing_wrong_before(judging, answer):
    for episode in resample(judging, groups_of(judging), answer)[0]:
        problem = next(p for p in PROBLEMS if p.id == episode.problem_id)
        path = constructions.as_annotated_attempt(CHAT, episode, problem)
        assert 0 <= path.location < len(path.attempt.split('\n'))
        first = task.judge(path.problem.question, path.attempt).first_error
        assert first is None or first >= path.location


def test_without_a_right_attempt_nothing_is_resampled(judging):
    attempts, engine_ = resample(judging, groups_of(judging, wrong), wrong)
    assert attempts == [] and engine_.requests == []


def spurious(request):
    """The right answer after a wrong first line."""
    first, *rest = right(request).split('\n')
    return '\n'.join([f'{first[:-1]}{(int(first[-1]) + 1) % 10}', *rest])


def test_an_attempt_right_by_chance_is_no_source(judging):
    groups = groups_of(judging, spurious)
    assert any(e.attempt.facts.correct for g in groups for e in g)
    assert resample(judging, groups, wrong)[0] == []


def insert(judging, groups, answer=right, limits=fake_engine.LIMITS, **changed):
    sampler = fake_engine.make_sampler(answer, limits)
    attempts = constructions.insert_mistake(
        sampler,
        None,
        groups,
        judge=judging,
        spec=dataclasses.replace(SPEC, **changed),
    )
    return attempts, sampler.engine


@pytest.mark.parametrize('answer', [right, wrong])
def test_a_mistake_of_its_kind_stands_at_its_line(judging, answer):
    """From an actor's right attempt, or from the reference where there is none."""
    attempts, _ = insert(judging, groups_of(judging, answer))
    assert len(attempts) == 4 * len(PROBLEMS)
    for episode in attempts:
        facts, judged = episode.facts, episode.attempt.facts
        assert facts.construction == 'RG3' and facts.mistake in task.MISTAKE_KINDS
        assert (judged.first_error, judged.kind) == (facts.location, facts.mistake)
    assert len({e.facts.mistake for e in attempts}) > 2


def test_the_actor_continues_behind_the_mistake_and_not_behind_an_answer(judging):
    attempts, engine_ = insert(judging, groups_of(judging))
    openings = {(a.texts['question'], a.opening) for a in engine_.requests}
    questions = {p.id: p.question for p in PROBLEMS}
    whole = 0
    for episode in attempts:
        text, at = CHAT.text(episode.attempt), episode.facts.location
        lines = text.split('\n')
        opening = '\n'.join([*lines[: at + 1], ''])
        ended = lines[at].strip().startswith('####')
        assert ((questions[episode.problem_id], opening) in openings) == (not ended)
        assert '<unk>' not in text and TOKENIZER.special('<unk>') not in episode.turns[-1].tokens
        whole += ended
    assert 0 < whole < len(attempts) and len(engine_.requests) == len(attempts) - whole


@pytest.mark.parametrize(('limit', 'count'), [(14, 4 * len(PROBLEMS)), (8, 0)])
def test_an_opening_that_leaves_no_room_is_dropped(judging, limit, count):
    """The least line has eleven tokens and a line break."""
    short = {**fake_engine.LIMITS, 'attempt': limit}
    attempts, engine_ = insert(judging, groups_of(judging, wrong), lambda request: '=...', short)
    assert len(attempts) == count
    assert all(len(TOKENIZER.encode(request.opening)) < limit for request in engine_.requests)


def test_the_same_seed_makes_the_same_paths_and_another_others(judging):
    groups = groups_of(judging)
    for construct, answer in ((resample, wrong), (insert, right)):
        requests = [construct(judging, groups, answer, seed=seed)[1].requests for seed in (3, 3, 4)]
        assert requests[0] == requests[1] != requests[2]


def test_requests_have_ids_of_their_own_from_the_first(judging):
    groups = groups_of(judging)
    for construct, answer in ((resample, wrong), (insert, right)):
        _, engine_ = construct(judging, groups, answer, first_id=100)
        ids = [request.id for request in engine_.requests]
        assert len(set(ids)) == len(ids) and min(ids) >= 100 and max(ids) < 100 + 4 * len(PROBLEMS)


def test_a_problem_without_a_solution_gets_no_mistake(judging):
    problem = dataclasses.replace(PROBLEMS[0], source='jsonl', solution='')
    assert mistakes.kinds(problem) == mistakes.TEXT_KINDS
    sampler = fake_engine.make_sampler(right)
    attempts = constructions.insert_mistake(
        sampler, None, [records.RolloutGroup(problem, ())], judge=judging, spec=SPEC
    )
    assert attempts == []


@pytest.mark.slow
def test_tokens_of_a_real_engine_are_metered(judging):
    """Every construction through the real sampler, by an actor that has learnt nothing."""
    model_config = dataclasses.replace(
        tiny_model.CONFIG, vocab_size=TOKENIZER.vocab_size, num_layers=1, mlp_dim=16, num_heads=2,
        num_kv_heads=1, head_dim=8, max_length=160, scan_layers=False,
    )  # fmt: skip
    settings = engine.EngineSettings(
        num_slots=4, max_length=160, chunk_steps=8, prompt_buckets=(128,), prefill_batch_sizes=(4,),
        decode_batch_sizes=(), decode_cache_lengths=(),
    )  # fmt: skip
    actor = transformer.init_model(model_config, jax.random.key(0))
    control = tuple(i for i in range(9) if i != EOS)
    method = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, control)
    spec = dataclasses.replace(SPEC, num_samples=1, method=method)
    metered = engine.Engine(settings, stop_ids=(EOS,))
    sampler = episodes.Sampler(metered, CHAT, fake_engine.LIMITS)
    groups = constructions.sample_from_scratch(sampler, actor, PROBLEMS, judge=judging, spec=spec)
    assert metered.tokens == episodes.sampled_tokens([e for g in groups for e in g])
    before = metered.tokens
    attempts = constructions.insert_mistake(sampler, actor, groups, judge=judging, spec=spec)
    assert len(attempts) == len(PROBLEMS)
    written = sum(len(e.attempt.tokens) for e in attempts)
    assert before < metered.tokens < before + written
